// SPDX-License-Identifier: Apache-2.0

package http2

import "encoding/binary"

// goAway is how far the end of a connection has come. What a graceful end does,
// step by step (RFC 9113 §6.8):
//
//	GoAway(true)   GOAWAY with the highest number, PING   sent
//	PING answered, Finish   GOAWAY with the last stream   sent, final
//	GoAway(false)  GOAWAY with the last stream            sent, final
type goAway struct {
	sent, final bool
	last        uint32 // streams above it are not taken
	code        ErrorCode

	come     bool // the peer's has come
	peerLast uint32
}

// The payloads of our PING frames.
const (
	pingAlive uint64 = 0x6f75747269676765
	pingDrain uint64 = 0x6f75747269676465
)

type ping struct {
	outstanding bool
	since       int64
}

// GoAway tells the peer to open no more streams. graceful takes two steps (RFC
// 9113 §6.8): a first GOAWAY that excludes no stream, with a PING; Finish comes
// when that is answered. Otherwise the streams seen until now are the last, and
// those open go on.
func (c *Conn) GoAway(graceful bool, code ErrorCode) {
	if c.err != nil || c.away.final {
		return
	}
	c.away.code = code
	if !graceful || c.role == Client {
		c.away.sent = true
		c.Finish()
		return
	}
	if c.away.sent {
		return
	}
	c.away.sent = true
	c.pending = appendGoAway(c.pending, maxStreamID, code)
	c.pending = appendPing(c.pending, 0, pingDrain)
}

// Finish is the second step of a graceful GoAway, for callers that do not wait
// for the PING any longer. It has no effect but once.
func (c *Conn) Finish() {
	if c.err != nil || !c.away.sent || c.away.final {
		return
	}
	c.away.final = true
	c.away.last = c.lastPeer
	c.pending = appendGoAway(c.pending, c.lastPeer, c.away.code)
}

// Draining reports whether a GOAWAY was sent or has come.
func (c *Conn) Draining() bool { return c.away.sent || c.away.come }

// Closed reports whether the connection can be closed once AppendPending has
// nothing more: after an error, or when it drains for good and no stream is left.
func (c *Conn) Closed() bool {
	return c.err != nil || (c.away.final || c.away.come) && c.streams.count == 0
}

// goneAway handles the peer's GOAWAY. A client's streams above the last were not
// looked at, and may be tried elsewhere.
func (c *Conn) goneAway(payload []byte, sink Sink) error {
	last := binary.BigEndian.Uint32(payload) & maxStreamID
	code := ErrorCode(binary.BigEndian.Uint32(payload[4:]))
	if c.away.come {
		if last > c.away.peerLast {
			return c.fail(errGoAwayRaised)
		}
		if err := c.idleFrame(); err != nil {
			return err
		}
	}
	c.away.come, c.away.peerLast = true, last
	sink.GoAway(last, code)
	if c.role == Server {
		return nil
	}
	for {
		s := c.above(last)
		if s == nil {
			return nil
		}
		id := s.id
		c.past.noteReset(id)
		c.end(s)
		sink.Reset(id, RefusedStream, false)
	}
}

// above is the open stream with the lowest number above last.
func (c *Conn) above(last uint32) (found *stream) {
	for _, s := range c.streams.slots {
		if s != nil && s.id > last && (found == nil || s.id < found.id) {
			found = s
		}
	}
	return found
}

func appendPing(dst []byte, flags uint8, data uint64) []byte {
	dst = appendFrame(dst, 8, framePing, flags, 0)
	return binary.BigEndian.AppendUint64(dst, data)
}

// Ping asks the peer for a sign of life, unless it is already asked.
func (c *Conn) Ping(now int64) {
	if c.err == nil && !c.ping.outstanding {
		c.ping = ping{true, now}
		c.pending = appendPing(c.pending, 0, pingAlive)
	}
}

// PingOutstanding is when Ping asked, if there is no answer yet.
func (c *Conn) PingOutstanding() (since int64, ok bool) { return c.ping.since, c.ping.outstanding }

func (c *Conn) pinged(f frame, payload []byte) error {
	data := binary.BigEndian.Uint64(payload)
	if !c.pings.spend(c.now, c.useful, pingRate, c.lim.Pings) {
		return c.fail(errPings)
	}
	if !f.has(flagAck) {
		c.pending = appendPing(c.pending, flagAck, data)
		return c.queued()
	}
	switch data {
	case pingAlive:
		c.ping.outstanding = false
	case pingDrain:
		c.Finish()
	}
	return nil
}
