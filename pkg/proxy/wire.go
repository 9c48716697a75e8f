// SPDX-License-Identifier: Apache-2.0

package proxy

import "github.com/outrigger-mesh/outrigger/pkg/reactor"

// What was on the wire is not added up message by message: connections count
// their bytes anyway, and messages on one follow each other, so that the bytes of
// a message are the difference between two places of its connection.

// outPlace is how far output has come: with what waits for the kernel, unless the
// connection is gone and will never have it.
func outPlace(c *reactor.Conn) uint64 {
	if c.Closed() {
		return c.WrittenBytes()
	}
	return c.WrittenBytes() + uint64(c.Buffered())
}

// wireSince is the way from one place to another, none where a close took back what
// was waiting.
func wireSince(from, to uint64) uint64 { return max(to, from) - from }

// byteCount is what counters have of a connection's bytes. Output that a close
// drops after it was counted stays counted: a counter never falls.
type byteCount struct{ rx, tx uint64 }

// add brings the counters up to date.
func (b *byteCount) add(c *reactor.Conn, rx, tx *uint64) {
	in, out := c.ReadBytes(), max(outPlace(c), b.tx)
	*rx += in - b.rx
	*tx += out - b.tx
	b.rx, b.tx = in, out
}

func (c *http2Conn) countBytes() {
	s := c.counts()
	c.counted.add(c.conn, &s.rxBytes, &s.txBytes)
}

// wire implements downstream.
func (d *downstreamConn) wire() (received, sent uint64) {
	return d.received, wireSince(d.sentFrom, outPlace(d.conn))
}

// wire implements downstream: a call of our own has no wire.
func (*internalCall) wire() (received, sent uint64) { return 0, 0 }

// wire returns the bytes of the attempt's connection since its request.
func (a *attempt) wire() (received, sent uint64) {
	if a.up == nil || !a.streaming {
		return 0, 0
	}
	return a.up.wire()
}

// wire implements upstream.
func (u *upstreamConn) wire() (received, sent uint64) {
	return u.conn.ReadBytes() - u.readFrom, wireSince(u.written, outPlace(u.conn))
}

// addWire adds an attempt to the record: those that failed have used the wire, too.
func (x *exchange) addWire(a *attempt) {
	received, sent := a.wire()
	x.Record.UpstreamWireReceived += received
	x.Record.UpstreamWireSent += sent
}

func (d *downstreamConn) countBytes() {
	s := &d.chain.manager.Load().stats.on[d.w.index]
	d.counted.add(d.conn, &s.rxBytes, &s.txBytes)
}

func (u *upstreamConn) countBytes() {
	s := &u.pool.on.stats
	u.counted.add(u.conn, &s.rxBytes, &s.txBytes)
}
