// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"maps"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A connection to an endpoint is outdated when another one would be made in another way
// by now: over TLS, no longer over TLS, or over TLS with other settings. Pools give none
// to requests. What is under way on one has the drain time to end by itself; a tunnel, a
// stream and a TCP connection have no end of their own, and would stay in the clear for
// as long as they like. Certificates and roots that are renewed outdate nothing.

// detailsOutdated is what access logs say of what was ended because of that, beside the
// flag LR.
const detailsOutdated = "upstream_transport_security_changed"

var failureOutdated = failure{
	Flag: record.LR, Status: 503, Details: detailsOutdated, GRPC: grpc.Unavailable,
	Body: []byte("upstream connect error or disconnect/reset before headers. reset reason: local reset, transport security of the upstream has changed"),
}

// spokenTo is what connections to a cluster's endpoints are made with before an update.
type spokenTo struct {
	transports []*transport
	hosts      []*lb.Host          // where their metadata chooses
	about      []map[string]string // of each host, what it is chosen by
}

func (c *cluster) spokenTo() (s spokenTo) {
	spec := c.spec.Load()
	if s.transports = c.transports(); len(s.transports) < 2 || spec == nil {
		return s
	}
	s.hosts = spec.lb.View().Hosts()
	for _, h := range s.hosts {
		s.about = append(s.about, h.Metadata()[resource.MatchNamespace])
	}
	return s
}

// changed reports whether the update of c may have outdated connections. Nearly none
// does, and to look for them takes a walk over all connections.
func (s *spokenTo) changed(c *cluster) bool {
	same := func(a, b *transport) bool { return a.res == b.res && maps.Equal(a.match, b.match) }
	if !slices.EqualFunc(s.transports, c.transports(), same) {
		return true
	}
	for i, h := range s.hosts {
		if !maps.Equal(s.about[i], h.Metadata()[resource.MatchNamespace]) {
			return true
		}
	}
	return false
}

// leaveOutdated tells what is under way on outdated connections to end with the drain
// time, of requests that to the endpoints of modified clusters.
func (w *worker) leaveOutdated() {
	end := w.loop.Now() + int64(w.proxy.options.DrainTime)
	for t := w.tunnels; t != nil; t = t.next {
		switch {
		case !t.open || t.noticed:
		case !t.outdated():
			t.leaves = 0
		case t.leaves == 0:
			t.leaves = end
			t.arm()
		}
	}
	for d := w.downs.first; d != nil; d = d.next {
		d.x.leaveOutdated(end)
	}
	for _, c := range w.http2s {
		for _, s := range inOrder(c.streams) {
			s.x.leaveOutdated(end)
		}
	}
}

// leaveOutdated marks the exchange's attempts; x may be nil.
func (x *exchange) leaveOutdated(end int64) {
	if x == nil {
		return
	}
	mark := func(a *attempt) {
		switch {
		case a == nil || a.on == nil || !a.on.modified:
		case !a.outdated():
			a.leaves = 0
		case a.leaves == 0:
			a.leaves = end
			x.ensure(end)
		}
	}
	mark(x.main)
	for _, a := range x.hedges {
		mark(a)
	}
	for _, a := range x.shadows {
		mark(a)
	}
}

// outdated reports whether the attempt is under way on an outdated connection.
func (a *attempt) outdated() bool {
	return a.up != nil && a.up.madeWith() != a.on.transport(a.host).res
}

// endOutdated ends attempts whose time is over; it reports whether the exchange has
// ended with them.
func (x *exchange) endOutdated(pending func(int64) bool) bool {
	for _, a := range slices.Backward(x.shadows) {
		if a.leaves != 0 && pending(a.leaves) {
			a.on.stats.mirrorDropped++
			a.finish(&failureOutdated)
		}
	}
	for _, a := range slices.Backward(x.hedges) {
		if a.leaves != 0 && pending(a.leaves) {
			x.dropHedge(a)
			a.finish(&failureOutdated)
		}
	}
	a := x.main
	if a == nil || a.leaves == 0 || !pending(a.leaves) {
		return false
	}
	if a.tunnels() {
		x.w.stats.upgradesDrained++
	}
	x.fail(&failureOutdated)
	return true
}

// madeWith implements upstream.
func (u *upstreamConn) madeWith() *resource.UpstreamTLS { return u.secure }

// madeWith implements upstream.
func (c *http2Call) madeWith() *resource.UpstreamTLS { return c.u.secure }

// madeWith implements upstream.
func (t *tunnelConn) madeWith() *resource.UpstreamTLS { return t.secure }
