// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports are taken below the range from which the system gives ports to outgoing
// connections (32768 to 60999 by default): a port of that range could be gone
// again before the process that it was found for listens on it.
const (
	firstPort = 12000
	lastPort  = 32000
)

// FreeAddress is a loopback address that nobody listens on.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close() // it only finds a port
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}
