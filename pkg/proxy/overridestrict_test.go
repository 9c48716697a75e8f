// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// What is tried once more without a retry policy stays at the endpoint that it has to
// come to; what merely should come there goes on elsewhere.
func TestARequestThatIsTriedAgainStaysAtItsStrictEndpoint(t *testing.T) {
	for _, c := range []struct{ strict, want string }{{"x-strict: yes\r\n", "first"}, {"", "second"}} {
		reg := filter.NewRegistry(filter.Spec{Name: "naming", TypeURL: "naming", New: func(any, filter.Worker) filter.Filter { return naming{} }})
		r := newSimWith(t, reg, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
			withCluster(s, "c", "10.0.0.8:80", "10.0.0.9:80")
			s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "n", TypeURL: "naming"}}
		})
		conns := 0
		if err := r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.8:80")), func(p *sim.Peer) {
			conns++
			first := conns == 1
			p.OnData = func(p *sim.Peer, _ []byte) {
				if first {
					p.Reset()
					return
				}
				p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"))
			}
		}); err != nil {
			t.Fatal(err)
		}
		r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) { p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond")) })
		d := r.dial()
		d.Write([]byte("GET / HTTP/1.1\r\nhost: x\r\nx-endpoint: 10.0.0.8:80\r\n" + c.strict + "\r\n"))
		r.until("the answer", time.Second, func() bool { return strings.Contains(string(d.Received), "\r\n\r\n") })
		if !strings.HasSuffix(string(d.Received), c.want) {
			t.Errorf("%q was answered by %q, want %s", c.strict, d.Received, c.want)
		}
	}
}
