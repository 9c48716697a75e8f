// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// failureNoConnection is of attempts that would need a connection to be made.
var failureNoConnection = failure{
	Flag: record.UO, Status: 503, Details: "upstream_reset_before_response_started{overflow|connection_shed}",
	Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: overflow"), Class: classOverflow,
}

// sheds draws whether a load-shed point lets go of what has come to it.
func (w *worker) sheds(k resource.LoadShedPointKind) bool {
	return w.shed != 0 && w.proxy.overload.Sheds(w.shed, k, w.random.Uint64())
}

// shedding reports whether a connection of the listener may meet a point that sheds.
func (w *worker) shedding(l *listener) bool {
	return w.shed != 0 && !l.config.Load().res.BypassOverload
}

// shedHTTP1 lets go of a connection whose first bytes have come, or answers the
// request that begins on it, and ends the connection. It reports whether it has. What
// has begun goes on.
func (d *downstreamConn) shedHTTP1() bool {
	if d.x != nil || d.tunnel || d.closing || d.dec.Head() || !d.w.shedding(d.listener) {
		return false
	}
	m := d.chain.manager.Load()
	switch {
	case d.requests == 0 && d.w.sheds(resource.ShedCodec):
		m.stats.on[d.w.index].rqOverload++
		d.shut()
		return true
	case d.w.sheds(resource.ShedHTTP1):
		m.stats.on[d.w.index].rqOverload++
		// Envoy says 500 here; nobody could tell that it is worth another try elsewhere.
		d.refuse(m, &failureOverloaded, failureOverloaded.Details)
		return true
	}
	return false
}

// shedHTTP2 asks the points of HTTP/2 before what has come is decoded. It reports
// whether the connection is over.
func (c *http2Conn) shedHTTP2() bool {
	first := !c.begun
	c.begun = true
	switch {
	case !c.w.shedding(c.listener):
		return false
	case first && c.w.sheds(resource.ShedCodec):
		c.counts().rqOverload++
		c.shut()
		return true
	case c.w.sheds(resource.ShedGoAwayAndClose):
		c.codec.GoAway(false, http2.NoError)
		c.flush()
		c.endAll(record.OM, failureOverloaded.Details)
		c.shut()
		return true
	case c.asked == 0 && c.w.sheds(resource.ShedGoAway):
		c.pressed = true
		c.drainIfDue()
	}
	return false
}

// refuseOverloaded answers a request that there is no room for. Where the caller's
// sidecar makes something else of the answer there is no text, so that the connection
// can go on without anybody reading it.
func (x *exchange) refuseOverloaded() filter.Verdict {
	v := x.reply(&failureOverloaded)
	if x.manager.listener.Direction == resource.Inbound {
		x.Local.Body = nil
	}
	return v
}

// shedFilters reports whether a request is refused that filters would have to look at.
func (x *exchange) shedFilters() bool {
	if x.w.shed == 0 || x.manager.listener.BypassOverload || !x.w.sheds(resource.ShedFilters) {
		return false
	}
	x.manager.stats.on[x.w.index].rqOverloadLocal++
	return true
}
