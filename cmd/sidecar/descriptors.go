// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"syscall"
)

// Descriptors that traffic never gets: for the admin port, connections to the
// control plane and to exporters, files and sockets that listen; and for what
// each worker has beside its connections.
const (
	reservedDescriptors   = 48
	reservedForEachWorker = 16
)

// connectionLimits divides the limit on open files between connections from
// downstream and to upstreams, so that neither can take what the other needs, nor
// the rest of the process. The runtime has raised the soft limit to the hard one.
func connectionLimits(workers int) (accepting, dialling int, err error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, 0, fmt.Errorf("limit on open files: %w", err)
	}
	accepting, dialling = divideDescriptors(limit.Cur, workers)
	return accepting, dialling, nil
}

func divideDescriptors(limit uint64, workers int) (accepting, dialling int) {
	n := int(min(limit, 1<<30)) // it may be infinite
	left := n - min(reservedDescriptors+workers*reservedForEachWorker, n/2)
	return left / 2, left - left/2
}
