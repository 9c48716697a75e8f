// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http1"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// clusterOn is a worker's side of a cluster: its picker, its pools, its counts.
type clusterOn struct {
	w      *worker
	c      *cluster
	spec   *clusterSpec
	picker lb.Picker
	pools  [2]map[*lb.Host]*hostPool // for HTTP/1, for HTTP/2
	all    roll[*hostPool]           // both
	at     int                       // in worker.all
	seen   seenHosts
	counts breaker.Counts
	lost   bool // the worker has forgotten it
	dirty  bool // something was counted since the last flush
	heeds  bool // Retry-After of endpoints matters
	// modified by an update that may have outdated connections, which are being looked for.
	modified bool
	stats    clusterStats
	limits   http1.Limits
	http2    http2.Limits
	req      lb.Request // scratch
	// Of clusters without hosts of their own; nil for others.
	originals *lb.Originals
	scratch   []byte
	aggregate *aggregateOn // of aggregate clusters, once used
}

func newClusterOn(w *worker, c *cluster, spec *clusterSpec) *clusterOn {
	on := &clusterOn{w: w, c: c, pools: [2]map[*lb.Host]*hostPool{{}, {}}}
	on.use(spec)
	return on
}

// use takes over the settings of a spec.
func (on *clusterOn) use(spec *clusterSpec) {
	if on.spec == nil || on.spec.res != spec.res {
		on.picker = lb.NewPicker(&spec.res.LB, on.w.random.Uint64())
		if on.originals != nil {
			on.originals.Close()
			on.originals = nil
		}
		if spec.res.OriginalDst != nil {
			on.originals = lb.NewOriginals(*spec.res.OriginalDst)
		}
		on.limits = http1.Limits{HeadBytes: spec.res.MaxResponseHeadBytes, HeaderCount: spec.res.MaxResponseHeaders}
		on.http2 = http2Limits(&spec.res.HTTP2Options, on.limits)
	}
	on.heeds = heeds(spec)
	on.spec = spec
}

// refresh gives up connections of hosts that have gone, and those that are made in
// another way by now; what is busy goes with its response.
func (on *clusterOn) refresh() {
	spec := on.c.spec.Load()
	if spec != nil {
		on.use(spec)
	}
	on.seen.forget()
	for p := range on.all.each {
		if spec != nil && !p.host.Gone() {
			p.remake()
			continue
		}
		for len(p.idle) > 0 {
			p.drop(p.idle[len(p.idle)-1])
		}
		for _, u := range slices.Clone(p.shared) {
			u.rest()
		}
		if p.total == 0 && len(p.waiting) == 0 {
			on.removePool(p)
		}
	}
	on.w.lostCluster(on)
}

// pick chooses a host for the exchange's next attempt, or for a copy of it, of which
// a route's criteria are not asked.
func (on *clusterOn) pick(x *exchange, criteria *lb.Criteria) *lb.Host {
	if on.originals != nil {
		return on.pickOriginal(on.destination(x), x.Record.DirectRemote)
	}
	r := &on.req
	r.Hash, r.HasHash = x.hash, x.hasHash
	r.Random = on.w.random.Uint64()
	r.Tried = x.tried
	r.Now = on.w.loop.Now()
	r.HostAttempts = max(x.retry.hostAttempts, 1)
	if on.spec.res.LB.HashBalanceFactor > 0 {
		r.Active = on.spec.otherRequests()
	}
	r.Criteria = criteria
	h := on.picker.Pick(on.spec.lb.View(), r)
	r.Tried, r.Criteria = nil, nil
	on.countPick(r)
	return h
}

// countPick counts how a pick came to its subset and zone.
func (on *clusterOn) countPick(r *lb.Request) {
	switch r.Zone {
	case lb.ZoneDirect:
		on.stats.zoneDirect++
	case lb.ZoneSampled:
		on.stats.zoneSampled++
	case lb.ZoneCross:
		on.stats.zoneCross++
	case lb.ZoneAnyhow:
		on.stats.zoneCross++
		on.stats.zoneNoCapacity++
	}
	switch r.Subset {
	case lb.SubsetSelected:
		on.stats.subsetsSelected++
	case lb.SubsetFellBack:
		on.stats.subsetsFallback++
	case lb.SubsetFellToAny:
		on.stats.subsetsFallbackPanic++
	}
}

// outcome counts how an attempt ended.
func (on *clusterOn) outcome(a *attempt, r breaker.Result, now int64) {
	spec := on.spec
	if spec.circuit != nil {
		on.judge(spec.circuit, a, r, now)
	}
	on.learnFailure(a, r, now)
	if spec.outlier == nil || a.host == nil {
		return
	}
	on.changed()
	t := on.tally(a.host)
	if a.retryAt != 0 && spec.res.Outlier.IsError(a.judged()) { // a 429 may be one caller's own doing
		on.tallyOf(a.host).RetryAt(a.retryAt)
	}
	if r == breaker.Response {
		spec.outlier.Result(a.host, t, a.judged())
	} else {
		spec.outlier.Local(a.host, t, r)
	}
}

// cancelled: nobody learnt anything of the upstream. After a probe that ended
// like this, the next one passes a sleep window later.
func (on *clusterOn) cancelled(a *attempt, now int64) {
	on.report(a.token, breaker.BadRequest, now)
}

func (on *clusterOn) report(t breaker.Token, o breaker.Outcome, now int64) {
	c := on.spec.circuit
	if c == nil {
		return
	}
	c.Count(&on.counts, o, false)
	if t.Probe() {
		c.Report(t, o, now)
	}
	on.changed()
}

// changed: something was counted that breakers are to hear of.
func (on *clusterOn) changed() {
	on.dirty = true
	on.w.countsChanged()
}

// flush adds the counts to the shared breaker; it reports whether there may be more.
func (on *clusterOn) flush(now int64) bool {
	if !on.dirty && on.stats.rqActive == 0 {
		return false
	}
	on.dirty = false
	if c := on.spec.circuit; c != nil {
		c.Flush(&on.counts)
	}
	on.c.lastUse.Store(now)
	on.w.proxy.awake.wake(on.c)
	return on.stats.rqActive > 0
}

// pool returns the pool that x's attempts at a host take their connections from.
func (on *clusterOn) pool(h *lb.Host, x *exchange) *hostPool {
	i := 0
	if on.speaksHTTP2(x, h) {
		i = 1
	}
	p := on.pools[i][h]
	if p == nil {
		p = &hostPool{on: on, host: h, http2: i == 1}
		on.pools[i][h] = p
		on.all.add(p)
		on.w.keepCluster(on)
	}
	return p
}

// removePool forgets a pool, unless that was done already.
func (on *clusterOn) removePool(p *hostPool) {
	if m := on.pools[p.protocol()]; m[p.host] == p {
		delete(m, p.host)
		on.all.remove(p)
	}
}

func (on *clusterOn) empty() bool { return len(on.all) == 0 }

func (on *clusterOn) place() *int { return &on.at }
func (p *hostPool) place() *int   { return &p.at }

// remake gives up the connections that are not what new ones would be. Those of
// HTTP/1 that are being dialled see it when they open or fail.
func (p *hostPool) remake() {
	now := p.on.transport(p.host).res
	p.secure = now
	for i := len(p.idle) - 1; i >= 0; i-- {
		if u := p.idle[i]; u.secure != now {
			p.drop(u)
		}
	}
	other := func(u *http2Up) bool { return u.secure != now }
	if !slices.ContainsFunc(p.shared, other) {
		return
	}
	for _, u := range slices.Clone(p.shared) {
		switch {
		case !other(u):
		case u.open:
			u.rest()
		default:
			u.giveUp()
		}
	}
}

// alpn is the name of the pool's protocol in TLS.
func (p *hostPool) alpn() string {
	if p.http2 {
		return "h2"
	}
	return "http/1.1"
}

// protocol is the pool's place in clusterOn.pools.
func (p *hostPool) protocol() int {
	if p.http2 {
		return 1
	}
	return 0
}
