// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Answers to PINGs (connection_keepalive) are no use of a connection.
func TestSignsOfLifeDoNotKeepAnIdleUpstreamConnection(t *testing.T) {
	const idle = 10 * time.Second
	r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		c := withCluster(s, "c", "10.0.0.9:80")
		c.HTTP2, c.IdleTimeout = true, idle
		c.HTTP2Options = resource.HTTP2Options{KeepAliveInterval: time.Second, KeepAliveTimeout: time.Second}
	})
	upstream := &wireEnd{}
	if err := r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:80")), func(p *sim.Peer) {
		upstream.peer = p
		upstream.attach(http2.Server, http2.Limits{})
	}); err != nil {
		t.Fatal(err)
	}
	down := r.dial()
	down.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
	r.until("the request", time.Second, func() bool { return upstream.ended })
	upstream.peer.Write(upstream.codec.AppendResponse(nil, upstream.id, &codec.ResponseHead{Status: 204}, true))
	r.until("the answer", time.Second, func() bool { return len(down.Received) > 0 })
	start := r.world.Now()
	r.until("the idle connection's end", time.Hour, func() bool { return upstream.peer.EOF })
	if took := r.world.Now() - start; took < idle-time.Second || took > idle+time.Second {
		t.Errorf("an idle connection closed after %v, want %v", took, idle)
	}
	r.settled()
}
