// SPDX-License-Identifier: Apache-2.0

// Package freeport finds ports on loopback for processes that are about to be
// started: for tests, benchmarks and examples.
//
// They lie below the range from which the system gives ports to outgoing connections
// (32768 to 60999 by default): a port of that range could be gone again before the
// process that it was found for listens on it. None is given twice by one process.
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
	"strconv"
	"sync"
)

const (
	first = 12_000
	end   = 32_000
	// tries is how often a port is looked for before that is given up.
	tries = 200
)

// given are the ports that this process has found.
var given = struct {
	mu    sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// Find returns n ports of 127.0.0.1 that nobody listens on.
func Find(n int) ([]int, error) {
	given.mu.Lock()
	defer given.mu.Unlock()
	out := make([]int, 0, n)
	var last error
	for range tries * n {
		if len(out) == n {
			break
		}
		port := first + rand.IntN(end-first)
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp4", address(port))
		if err != nil {
			last = err
			continue
		}
		_ = l.Close() // it only finds a port
		given.ports[port] = true
		out = append(out, port)
	}
	if len(out) < n {
		return nil, errors.Join(fmt.Errorf("no %d free ports found from %d to %d", n, first, end-1), last)
	}
	return out, nil
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
