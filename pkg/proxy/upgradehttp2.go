// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Over HTTP/2 a tunnel is a stream (RFC 9113 §8.5): its bytes are DATA, the end of
// a direction is END_STREAM, a connection that broke is RST_STREAM. What HTTP/1.1
// asks for with Upgrade is asked for by extended CONNECT (RFC 8441), and agreed to
// with 2xx in place of 101. In the exchange both are what they are over HTTP/1.1,
// so that routes and filters see one thing.

// http2Tunnel is what a stream from downstream has beyond others when it asks for
// a tunnel.
type http2Tunnel struct {
	// ahead came before the upstream agreed. It has not been credited, so it is no
	// more than the windows that the peer was given.
	ahead []byte
	ended bool // END_STREAM has come
	open  bool
}

var (
	methodGet = []byte("GET")

	// A 2xx over HTTP/2 means a tunnel, so an endpoint's that is none must not get
	// there (CVE-2024-23326).
	failureNotSwitched = failure{Status: 502, Details: "upgrade_answered_without_101"}
	// failureNoExtended: the endpoint has not said that it takes extended CONNECT.
	failureNoExtended = failure{Status: 502, Details: "extended_connect_not_supported_by_upstream"}
)

// asksTunnel makes of CONNECT what it is for the exchange: whole with its head.
// last: END_STREAM came with it.
func (s *http2Stream) asksTunnel(x *exchange, last bool) {
	s.tunnel = &http2Tunnel{ended: last}
	x.Request.BodyLength = codec.BodyNone
	if x.Request.Upgrade {
		x.extended = true
		x.Request.SetMethod(methodGet)
	}
	x.requestEnded()
}

// tunnelData takes bytes of a stream that is a tunnel, or asks for one.
func (s *http2Stream) tunnelData(chunk []byte, last bool) {
	t := s.tunnel
	t.ended = t.ended || last
	if !t.open {
		t.ahead = append(t.ahead, chunk...)
		return
	}
	s.toUpstream(chunk, last)
}

// toUpstream passes bytes on, and credits them unless the upstream is slow.
func (s *http2Stream) toUpstream(chunk []byte, last bool) {
	c, id := s.c, s.id
	s.x.fromClient(chunk, last)
	if c.streams[id] == s && s.held {
		s.withheld += len(chunk)
	} else {
		c.codec.Consumed(id, len(chunk))
	}
}

// startTunnel implements tunneler.
func (s *http2Stream) startTunnel() {
	s.tunnel.open = true
	c := s.c
	if c.tunnelsEnd == 0 && (c.listener.drains.Load() || c.chain.removed.Load()) {
		c.tunnelsEnd = c.w.upgradeLeavesAt(c.listener) // drained already
	}
	if c.tunnelsEnd != 0 {
		c.arm()
	}
}

// passAhead passes on what came before the upstream agreed, once both sides are
// ends of the tunnel.
func (s *http2Stream) passAhead() {
	t := s.tunnel
	if len(t.ahead) == 0 && !t.ended {
		return
	}
	ahead, c := t.ahead, s.c
	t.ahead = nil
	s.toUpstream(ahead, t.ended) // the end of the tunnel, perhaps
	c.flushLater()
}

// endTunnel ends a tunnel that is not at its end: a reset where the upstream broke
// off, else as one side closes that has no more to say. What the upstream has said to
// its end goes on by itself while the peer takes it.
func (s *http2Stream) endTunnel(x *exchange) {
	if x.broken {
		s.c.codec.Reset(s.id, http2.ConnectError)
		return
	}
	if x.upstreamEnded && s.c.codec.Queued(s.id) > 0 {
		x.responseDone = true
		s.c.codec.StopRequest(s.id)
		return
	}
	c := s.c.conn
	c.Commit(s.c.codec.AppendData(c.Reserve(frameHead), s.id, nil, true))
	s.c.codec.Reset(s.id, http2.NoError)
}

// misused ends a stream with fields behind its head: a tunnel carries bytes alone
// (RFC 9113 §8.5).
func (s *http2Stream) misused() {
	c, x := s.c, s.x
	c.codec.Reset(s.id, http2.ProtocolError)
	delete(c.streams, s.id)
	c.counts().rqProtocolError++
	f := failureDownstreamProtocol
	f.Details = "http2.headers_in_tunnel"
	x.end(&f)
}

// tunnels reports whether there is one on the connection.
func (c *http2Conn) tunnels() bool {
	for _, s := range c.streams {
		if s.tunnel != nil && s.tunnel.open && s.x != nil {
			return true
		}
	}
	return false
}

// endTunnels ends those whose drain time is over, or begins their end: those of
// WebSocket may be in the middle of a frame.
func (c *http2Conn) endTunnels() {
	wait := time.Duration(0)
	for _, s := range inOrder(c.streams) {
		if s.tunnel == nil || !s.tunnel.open || s.x == nil {
			continue
		}
		if t, over := s.x.leaveWebSocket(); t > 0 {
			wait = max(wait, t)
		} else if !over {
			c.w.stats.upgradesDrained++
			s.x.fail(&failureDrained)
		}
	}
	if wait > 0 {
		c.tunnelsEnd = c.w.loop.Now() + int64(wait)
	}
}

// asksConnect reports whether success means, to the client, that there is a tunnel.
func (x *exchange) asksConnect() bool {
	return x.Request.Method == codec.MethodConnect || x.extended
}

// falseAgreement reports whether the endpoint's response would be taken for
// consent to the tunnel, and is none.
func (x *exchange) falseAgreement() bool {
	return x.extended && !x.switches() && x.Response.Status >= 200 && x.Response.Status < 300
}

// neverAgree keeps a reply of our own from being taken for consent, whatever routes
// and mappers made of it. Nothing after it changes the status.
func (x *exchange) neverAgree() {
	l := &x.Local
	if !x.asksConnect() || x.Response.Status < 200 || x.Response.Status > 299 {
		return
	}
	l.Status, l.Body, l.ContentType = failureUpgrade.Status, nil, ""
	x.Response.Status = l.Status
}

// speaksHTTP2 reports whether x's attempts at h go by HTTP/2. Where the cluster follows
// the protocol of downstream, a tunnel that extended CONNECT asks for goes by
// Upgrade: next to no application knows the other.
func (on *clusterOn) speaksHTTP2(x *exchange, h *lb.Host) bool {
	res := on.spec.res
	switch {
	case x.needsHTTP2(res):
		return true
	case !res.DownstreamProtocol || x.Request.Protocol != codec.HTTP2 || x.extended:
		return false
	}
	return x.call.is || !res.HTTP2Calls && !h.HTTP2Calls()
}

// needsHTTP2 reports whether x goes by HTTP/2 to each host of a cluster: all that goes
// there does, or a filter wants it.
func (x *exchange) needsHTTP2(res *resource.Cluster) bool { return res.HTTP2 || x.HTTP2 }

// convertible reports whether the Upgrade can become extended CONNECT, which has
// neither another method's meaning nor a body.
func (x *exchange) convertible() bool {
	return x.Request.Method == codec.MethodGet && x.Request.BodyLength == codec.BodyNone
}

// startTunnel implements tunneler.
func (c *http2Call) startTunnel() { c.tunnel = true }

// agrees makes of a 2xx that opens the tunnel what it is over HTTP/1.1.
func (c *http2Call) agrees(h *codec.ResponseHead) bool {
	x := c.a.x
	if c.a.shadow || x.tunnel != tunnelOffered || h.Status < 200 || h.Status > 299 {
		return false
	}
	h.BodyLength, h.NoBody = codec.BodyChunked, true
	if x.Request.Upgrade {
		h.Status = 101
		h.SetUpgrade(x.Request.UpgradeProtocol())
		x.acceptWebSocket(h)
	}
	return true
}

// pass hands on what came for the attempt.
func (c *http2Call) pass(chunk []byte, last bool) {
	if c.tunnel {
		c.a.x.fromUpstream(chunk, last)
	} else {
		c.a.responseData(chunk, last)
	}
}

// misused: fields came in a tunnel.
func (c *http2Call) misused() {
	c.u.pool.on.stats.protocolError++
	c.u.codec.Reset(c.id, http2.ProtocolError)
	c.a.x.tunnelBroken()
}

// tunnels reports whether the attempt is an end of an open tunnel.
func (a *attempt) tunnels() bool { return !a.shadow && a.x.tunnel == tunnelOpen }

var (
	_ tunneler = (*http2Stream)(nil)
	_ tunneler = (*http2Call)(nil)
)
