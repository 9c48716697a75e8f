// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
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
	explain := func(args ...string) mesh.Finished {
		return mesh.Run(t, "", append([]string{mesh.Program("sidecar"), "explain", "--admin", caller.Admin}, args...)...)
	}
	flag := "--tcp-outbound " + address + "=db:5432"
	if x := explain("CONNECT", "tcp://db:5432"); x.Code != 1 || !strings.Contains(x.Output, flag+" asks for it, and nobody listens") {
		t.Errorf("explained before there is a service: %d %s", x.Code, x.Output)
	}
	if x := explain("CONNECT", "tcp://mail:25"); x.Code != 1 || !strings.Contains(x.Output, "no --tcp-outbound of this sidecar is for mail:25") {
		t.Errorf("explained what nothing asks for: %d %s", x.Code, x.Output)
	}
	if text := dumped(t, caller.Admin); !strings.Contains(text, `"client_status": "DOES_NOT_EXIST"`) || !strings.Contains(text, flag+": nobody listens") {
		t.Errorf("dumped before there is a service: %s", text)
	}
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
	if x := explain("CONNECT", "tcp://db:5432"); x.Code != 0 || !strings.Contains(x.Output, address+": asked for, made for "+flag) || !strings.Contains(x.Output, "outbound|db, the only endpoint") {
		t.Errorf("explained: %d %s", x.Code, x.Output)
	}
	if x := explain("GET", "http://db/"); !strings.Contains(x.Output, "hint: connections to db:5432 are passed on by --tcp-outbound at "+address) {
		t.Errorf("a request is explained: %d %s", x.Code, x.Output)
	}
	if text := dumped(t, caller.Admin); !strings.Contains(text, `"askedForBy": "`+flag+`"`) || strings.Contains(text, "DOES_NOT_EXIST") {
		t.Errorf("dumped: %s", text)
	}
}

// dumped are the listeners of /config_dump.
func dumped(t *testing.T, admin string) string {
	t.Helper()
	text, err := mesh.Get("http://" + admin + "/config_dump?resource=dynamic_listeners")
	if err != nil {
		t.Fatal(err)
	}
	return text
}
