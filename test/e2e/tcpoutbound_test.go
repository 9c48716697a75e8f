// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// TestATCPOutboundBeginsToWorkWhenItsServiceComes: until then the log says why not.
func TestATCPOutboundBeginsToWorkWhenItsServiceComes(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	address := mesh.FreeAddress(t)
	caller := m.Caller("caller", "--tcp-outbound", address+"=db:5432")
	caller.AwaitLog("--tcp-outbound: nobody listens", 1)
	m.ControlPlane.PutYAML("Service", "db", fmt.Sprintf(tcpServices, "db", 5432, "tcp"))
	beside(m, t, "db", "db-1", serveConns(t, func(c net.Conn) { fmt.Fprintln(c, "db") })) //nolint:errcheck // the client sees what came
	caller.AwaitLog("--tcp-outbound: the service has come", 1)
	caller.Await(routeLimit, "the service", func() error {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // all was read
		_ = c.SetDeadline(time.Now().Add(routeLimit))
		got, err := line(bufio.NewReader(c))
		if err == nil && got != "db" {
			err = fmt.Errorf("%q answers", got)
		}
		return err
	})
}
