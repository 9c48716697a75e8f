// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// freePorts finds n ports that nobody listens on, below the ephemeral range: one
// from it could be taken by a connection of the load before its proxy binds it.
func freePorts(n int) ([]int, error) {
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	var last error
	for range 50 * n {
		if len(ports) == n {
			return ports, nil
		}
		port := 10_000 + rand.IntN(22_000)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			last = err
			continue
		}
		held = append(held, l)
		ports = append(ports, port)
	}
	return nil, errors.Join(fmt.Errorf("no %d free ports found", n), last)
}
