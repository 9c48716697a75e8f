// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// speaks is the protocol of a downstream connection, where something else than its
// first bytes decides it: the listener, or what TLS has agreed on (RFC 7301 §3.2).
func speaks(c *reactor.Conn, m *manager) resource.Codec {
	if m.res.Codec != resource.CodecAuto {
		return m.res.Codec
	}
	if s, ok := c.Transport().(*mtls.Session); ok {
		switch s.Info().ALPN {
		case "h2":
			return resource.CodecHTTP2
		case "http/1.1", "http/1.0":
			return resource.CodecHTTP1
		}
	}
	return resource.CodecAuto
}

// becomeHTTP2 hands a connection on whose first bytes are in.
func (d *downstreamConn) becomeHTTP2(m *manager, in []byte) int {
	h := d.newHTTP2Conn(m)
	d.conn.SetHandler(h)
	return h.OnData(d.conn, in)
}

// watch keeps the time since which the peer owes the rest of what it has begun: of
// the connection's beginning (from the accept on), of a header block, or of a frame.
// read is how many bytes were decoded, left how many are a part of a frame.
func (c *http2Conn) watch(read, left int) {
	began, owes := c.codec.Partial()
	switch {
	case owes && began == 0:
		c.stuck = c.started
	case owes:
		c.stuck = began
	case left == 0:
		c.stuck = 0
	case c.stuck == 0 || read > 0: // another frame than the one before
		c.stuck = c.w.loop.Now()
	}
	if c.stuck == 0 {
		return
	}
	if t := c.chain.manager.Load().res.RequestHeadersTimeout; t > 0 {
		c.ensure(c.stuck + int64(t))
	}
}

// begin makes the connection's next exchange.
func (d *downstreamConn) begin(m *manager) *exchange {
	x := d.w.newExchange(m, d)
	r := &x.Record
	r.ConnectionID = d.conn.ID()
	r.Remote = d.conn.RemoteAddr()
	r.DirectRemote = d.conn.DirectRemoteAddr()
	r.Security = d.security
	r.Local = d.conn.LocalAddr()
	r.FilterChain = d.chain.name
	x.Connection = &d.kept
	d.x = x
	d.sentFrom = outPlace(d.conn)
	return x
}
