// SPDX-License-Identifier: Apache-2.0

// Package freeport finds ports on loopback for processes that are about to be
// started: for tests, benchmarks and examples.
//
// They lie below the range from which the system gives ports to outgoing connections
// (32768 to 60999 by default): a port of that range could be gone again before the
// process that it was found for listens on it. None is given twice by one process, nor,
// as long as there are blocks of ports that nobody has, by two of a user that run at the
// same time: each takes its ports from blocks that it holds a lock of, in the folder for
// temporary files.
//
// What does not belong here: a socket that is kept open. Whoever can, listens on port
// 0 and tells others where.
//
// Concurrency: any number of goroutines.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

const (
	first = 12_000
	end   = 32_000
	// A block is so many ports in a row.
	block = 200
)

// found is what this process has of the ports.
var found struct {
	mu    sync.Mutex
	next  []int      // of its blocks, in the order in which they are given
	locks []*os.File // of its blocks, held until the process ends
	taken [(end - first) / block]bool
}

// Find returns n ports of 127.0.0.1 that nobody listens on.
func Find(n int) ([]int, error) {
	if n > end-first {
		return nil, fmt.Errorf("%d ports are wanted, and there are %d", n, end-first)
	}
	found.mu.Lock()
	defer found.mu.Unlock()
	out := make([]int, 0, max(n, 0))
	var last error
	for len(out) < n {
		if len(found.next) == 0 && !takeBlock() {
			return nil, errors.Join(fmt.Errorf("no %d free ports found from %d to %d", n, first, end-1), last)
		}
		port := found.next[0]
		found.next = found.next[1:]
		l, err := net.Listen("tcp4", address(port))
		if err != nil {
			last = err
			continue
		}
		_ = l.Close() // it only finds a port
		out = append(out, port)
	}
	return out, nil
}

// takeBlock adds the ports of a block that no other process has, or, where all are had or
// cannot be locked, of one that this process has not given yet.
func takeBlock() bool {
	order := rand.Perm(len(found.taken))
	for _, shared := range []bool{false, true} {
		for _, i := range order {
			if found.taken[i] || !shared && !lock(i) {
				continue
			}
			found.taken[i] = true
			for _, k := range rand.Perm(block) {
				found.next = append(found.next, first+i*block+k)
			}
			return true
		}
	}
	return false
}

// lock takes a block for this process, until it ends. Programs that it starts do not
// inherit the lock: what they listen on is seen.
func lock(i int) bool {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("outrigger-ports-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return false
	}
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return false // somebody else's
	}
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(first+i*block)), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return false
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		_ = f.Close() // another process has it
		return false
	}
	found.locks = append(found.locks, f)
	return true
}

// Addresses is Find with addresses, 127.0.0.1:PORT.
func Addresses(n int) ([]string, error) {
	ports, err := Find(n)
	out := make([]string, len(ports))
	for i, p := range ports {
		out[i] = address(p)
	}
	return out, err
}

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
