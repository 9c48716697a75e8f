// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
)

// The tail of a tunnel is what its client has sent and the endpoint's windows do not
// permit yet when both directions have ended. The tunnel is over and its attempt gone;
// the call stays on the connection, which does not close before the tail has left.

// How long an endpoint may take for it, as for what waits in a connection that carries
// one tunnel (reactor.Conn.CloseAfterFlush).
const (
	tailStall = 10 * time.Second // without taking any
	tailLimit = 60 * time.Second // in all
)

// leavesTail keeps a call whose attempt has ended for what waits of its tunnel, and
// reports whether anything does.
func (c *http2Call) leavesTail() bool {
	u := c.u
	left := u.codec.Queued(c.id)
	if !c.tunnel || left == 0 || u.closing {
		return false
	}
	now := u.pool.on.w.loop.Now()
	*c = http2Call{u: u, id: c.id, blocked: true, tail: left, tailDue: now + int64(tailStall), tailEnd: now + int64(tailLimit)}
	u.tails++
	u.arm()
	return true
}

// tailOver takes the call of a tail off the connection.
func (c *http2Call) tailOver() {
	u := c.u
	delete(u.calls, c.id)
	u.tails--
	c.free()
}

func (c *http2Call) free() {
	w := c.u.pool.on.w
	*c = http2Call{}
	w.freeHTTP2Call(c)
}

// dropTails gives up those that have had their time.
func (u *http2Up) dropTails(now int64) {
	if u.tails == 0 {
		return
	}
	for id, c := range inOrder(u.calls) {
		if c.tail == 0 || now < c.tailDue {
			continue
		}
		left := u.codec.Queued(id)
		if left > 0 && left < c.tail && now < c.tailEnd {
			c.tail, c.tailDue = left, min(now+int64(tailStall), c.tailEnd)
			continue
		}
		u.codec.Reset(id, http2.Cancel)
		c.tailOver()
	}
}

// tailsDue is when dropTails has to look next.
func (u *http2Up) tailsDue() int64 {
	next := never
	if u.tails > 0 {
		for _, c := range u.calls {
			if c.tail > 0 {
				next = min(next, c.tailDue)
			}
		}
	}
	return next
}
