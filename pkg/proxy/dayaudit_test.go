// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/adaptiveconcurrency"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// dayWatch looks after every step that no limit is exceeded, and at some that what is
// counted is what there is.
type dayWatch struct {
	limits  []*watchedLimits
	known   map[*breaker.Limits]*watchedLimits
	removed map[string]*resource.Cluster // taken away for a while
	steps   int
	counts  []filter.Count
	shed    uint64  // by load-shed points, at the last step
	before  float64 // the pressure then
	ticks   uint64  // of the loops at the last step
}

// watchedLimits are those of one priority of one cluster. What was in use when they were
// lowered may stay.
type watchedLimits struct {
	name                                    string
	l                                       *breaker.Limits
	budget                                  bool // of retries
	connections, pending, requests, retries uint32
	left                                    uint32 // connections at the last look
}

// prepare and clusters are called around an Apply.
func (w *dayWatch) prepare(d *day) {
	if w.known == nil {
		w.known, w.removed = map[*breaker.Limits]*watchedLimits{}, map[string]*resource.Cluster{}
	}
	w.step(d)
}

func (w *dayWatch) clusters(d *day) {
	for name, c := range d.p.slots {
		s := c.spec.Load()
		if s == nil {
			continue
		}
		for i, l := range []*breaker.Limits{s.limits, s.limits.High()} {
			if w.known[l] == nil {
				w.known[l] = &watchedLimits{name: name, l: l}
				w.limits = append(w.limits, w.known[l])
			}
			w.known[l].budget = [...]*resource.Thresholds{&s.res.Default, &s.res.High}[i].RetryBudget
		}
	}
}

func (w *dayWatch) step(d *day) {
	if n := d.world.Ticks(); n == w.ticks {
		return // nothing has run since
	} else {
		w.ticks = n
	}
	for _, l := range w.limits {
		l.look(d)
	}
	if len(d.posted) > 0 {
		d.fail("the proxy says: %s", strings.ReplaceAll(strings.Join(d.posted, "\n"), "\\n", "\n"))
	}
	if most := d.p.overload.MaxConnections(); most >= 0 && d.p.connections.Load() > most {
		d.fail("%d connections, want %d at most", d.p.connections.Load(), most)
	}
	for _, l := range d.p.listeners {
		for _, ch := range l.config.Load().all() {
			if n, most := ch.active.Load(), int64(ch.res.ConnectionLimit); most > 0 && n > most {
				d.fail("%d connections in chain %s, want %d at most", n, ch.name, most)
			}
		}
	}
	w.points(d)
	w.rates(d)
	w.concurrency(d)
	if w.steps++; w.steps%32 == 0 {
		d.audit()
	}
}

func (l *watchedLimits) look(d *day) {
	u := l.l.Use()
	check := func(what string, most *uint32, u breaker.Use, beyond uint32) {
		*most = max(u.Max, min(*most, u.Active))
		if u.Active > *most+beyond {
			d.fail("cluster %s: %d %s in use, want %d and %d at most", l.name, u.Active, what, *most, beyond)
		}
	}
	check("requests", &l.requests, u.Requests, 0)
	check("pending", &l.pending, u.Pending, 0)
	if !l.budget { // a budget is of what was active when it was taken
		check("retries", &l.retries, u.Retries, 0)
	}
	if u.Connections.Active <= l.connections {
		check("connections", &l.connections, u.Connections, 0)
		l.left = u.Connections.Active
		return
	}
	switch pools, current := d.poolsOf(l.l); {
	case !current && u.Connections.Active <= l.left: // of a cluster that has gone; they may only become fewer
		l.left = u.Connections.Active
	default:
		check("connections", &l.connections, u.Connections, pools) // each pool may have one
		l.left = u.Connections.Active
	}
}

// points looks whether load-shed points have let go of anything without pressure.
func (w *dayWatch) points(d *day) {
	if !d.plan.pressure {
		return
	}
	n := uint64(0)
	for _, p := range d.p.overload.PointList() {
		n += p.Shed
	}
	if n > w.shed && d.pressure == 0 && w.before == 0 {
		d.fail("something was let go of without pressure: %+v", d.p.overload.PointList())
	}
	d.sums.shed += int(n - w.shed)
	w.shed, w.before = n, d.pressure
}

// ejections looks at what outlier detection does: no host is ejected beyond
// max_ejection_percent of those that there are, but for one where always_eject_one_host
// says so, and as many are counted as there are.
func (w *dayWatch) ejections(d *day, tick func()) {
	type count struct{ ejected, hosts int }
	look := func(s *clusterSpec) (n count) {
		for _, h := range s.lb.View().Hosts() {
			if n.hosts++; h.Ejected() {
				n.ejected++
			}
		}
		return n
	}
	var before [32]count
	i := 0
	list := *d.p.clusters.Load()
	for _, c := range list {
		if s := c.spec.Load(); s != nil && s.outlier != nil {
			before[i] = look(s)
		}
		i++
	}
	tick()
	i = 0
	for _, c := range list {
		old := before[i]
		i++
		s := c.spec.Load()
		if s == nil || s.outlier == nil {
			continue
		}
		n := look(s)
		if n == old {
			continue
		}
		d.sums.ejections += max(n.ejected-old.ejected, 0)
		o := s.res.Outlier
		if n.ejected > old.ejected && n.ejected*100 > n.hosts*int(o.MaxEjectionPercent) && !(n.ejected == 1 && o.AlwaysEjectOne) {
			d.fail("cluster %s: %d of %d hosts are ejected, want %d %% at most", c.name, n.ejected, n.hosts, o.MaxEjectionPercent)
		}
		if st := s.outlier.Stats(); int(st.Active) != n.ejected {
			d.fail("cluster %s: %d hosts are counted as ejected, %d are", c.name, st.Active, n.ejected)
		}
	}
}

// poolsOf counts the pools with connections; not current: the cluster has gone, or has
// others since.
func (d *day) poolsOf(l *breaker.Limits) (n uint32, current bool) {
	for _, w := range d.p.workers {
		for _, on := range w.clusters {
			if on.spec.limits != l && on.spec.limits.High() != l {
				continue
			}
			current = true
			for _, p := range on.all {
				if p.total > 0 {
					n++
				}
			}
		}
	}
	return n, current
}

// dayBooks are numbers that must agree, as they are counted and as they are found.
type dayBooks struct {
	cx, cxHTTP2, exchanges, retries, pending, connections, sent, attempts int64
}

// audit compares what is counted with what there is.
func (d *day) audit() {
	d.sums.audit++
	var counted, found dayBooks
	for _, m := range d.p.managers {
		for i := range m.on {
			s := &m.on[i]
			counted.cx += int64(s.cxActive)
			counted.cxHTTP2 += int64(s.cxHTTP2Active)
			counted.exchanges += int64(s.rqActive)
			if s.cxTotal != s.cxDestroy+s.cxActive {
				d.fail("of %d connections %d are open and %d closed", s.cxTotal, s.cxActive, s.cxDestroy)
			}
			if s.rqTotal != s.rqCompleted+s.rqActive {
				d.fail("of %d requests %d are active and %d completed", s.rqTotal, s.rqActive, s.rqCompleted)
			}
		}
	}
	for _, l := range d.watch.limits {
		u := l.l.Use()
		counted.pending += int64(u.Pending.Active)
		counted.connections += int64(u.Connections.Active)
		counted.retries += int64(u.Retries.Active)
		counted.attempts += int64(u.Requests.Active)
	}
	passages := map[any]uint64{}
	for _, w := range d.p.workers {
		found.cx += int64(w.downs.n + len(w.http2s))
		found.cxHTTP2 += int64(len(w.http2s))
		found.attempts += int64(w.attempts.used)
		each := func(x *exchange) {
			if x == nil {
				return
			}
			found.exchanges++
			passage(x, passages)
			if x.retry.budget != nil {
				found.retries++
			}
		}
		for c := w.downs.first; c != nil; c = c.next {
			each(c.x)
		}
		for _, c := range w.http2s {
			for _, s := range c.streams {
				each(s.x)
			}
		}
		tunnels := d.auditTunnels(w)
		for c, on := range w.clusters {
			counted.sent += int64(on.stats.rqActive)
			cx := int64(0)
			for _, p := range on.all {
				found.pending += int64(len(p.waiting))
				cx += int64(p.total)
				if p.connecting > p.total || p.connecting < 0 || len(p.waiting) > 0 && p.total == 0 {
					d.fail("cluster %s, host %s: %d wait, %d connecting of %d", c.name, p.host, len(p.waiting), p.connecting, p.total)
				}
			}
			if n := tunnels[on]; n > 0 || c.name[0] == 't' { // beside those of tunnels that have ended and flush
				if cx += n; int64(on.stats.cxActive) < cx {
					d.fail("cluster %s: %d connections are open, there are %d", c.name, on.stats.cxActive, cx)
				}
				cx = int64(on.stats.cxActive)
			}
			found.connections += cx
			if s := &on.stats; s.cxTotal != s.cxActive+s.cxDestroy || int64(s.cxActive) != cx {
				d.fail("cluster %s: of %d connections %d are open, %d closed, and %d in pools", c.name, s.cxTotal, s.cxActive, s.cxDestroy, cx)
			}
		}
	}
	d.auditPassages(passages)
	found.sent = counted.sent
	if counted != found {
		d.fail("counted %+v\nthere are %+v%s", counted, found, d.upstreams())
	}
}

// upstreams describes the connections to endpoints that are left.
func (d *day) upstreams() string {
	var b strings.Builder
	for _, w := range d.p.workers {
		for c, on := range w.clusters {
			for _, p := range on.all {
				fmt.Fprintf(&b, "\nworker %d, cluster %s, host %s (gone %v), HTTP/2 %v: %d in all, %d connecting, %d idle", w.index, c.name, p.host, p.host.Gone(), p.http2, p.total, p.connecting, len(p.idle))
				for _, u := range p.shared {
					fmt.Fprintf(&b, "\n  open %v closing %v closed %v calls %d bound %d draining %v idle since %v timer %v idle timeout %v buffered %d", u.open, u.closing, u.conn.Closed(), len(u.calls), len(u.bound), u.codec.Draining(), time.Duration(u.idleAt), u.timer.Armed(), on.spec.res.IdleTimeout, u.conn.Buffered())
				}
				for _, u := range p.idle {
					fmt.Fprintf(&b, "\n  open %v closing %v closed %v idle since %v timer %v idle timeout %v", u.open, u.closing, u.conn.Closed(), time.Duration(u.idleAt), u.timer.Armed(), on.spec.res.IdleTimeout)
				}
			}
		}
	}
	return b.String()
}

// nothingLeft looks for what is left of traffic long after it.
func (d *day) nothingLeft() {
	p := d.p
	for _, c := range inOrder(d.clients) {
		if !c.rude {
			d.fail("a connection is still open: %s, of %d requests", c, len(c.pending()))
		}
		c.p.Close() // who held it did not read
		c.over = true
		delete(d.clients, c.number)
	}
	d.pass(ms)
	if n := p.connections.Load(); n != 0 {
		d.fail("%d connections from downstream are open", n)
	}
	if p.accepting != nil && p.accepting.Taken() != 0 || p.dialling != nil && p.dialling.Taken() != 0 {
		d.fail("places are taken: %d and %d%s", p.accepting.Taken(), p.dialling.Taken(), d.upstreams())
	}
	for _, l := range d.watch.limits {
		if u := l.l.Use(); u.Requests.Active|u.Pending.Active|u.Retries.Active|u.Connections.Active != 0 {
			d.fail("cluster %s holds %+v%s", l.name, u, d.upstreams())
		}
	}
	d.watch.limits = nil // those of clusters that have gone are not looked at again
	clear(d.watch.known)
	d.watch.clusters(d)
	for name, c := range p.slots {
		if s := c.spec.Load(); s != nil {
			for _, h := range s.lb.View().Hosts() {
				if h.Active.Load() != 0 || h.Conns.Load() != 0 {
					d.fail("cluster %s, host %s: %d requests, %d connections", name, h, h.Active.Load(), h.Conns.Load())
				}
			}
		}
	}
	for _, s := range d.plan.filters {
		if s.Counts == nil || s.TypeURL == adaptiveconcurrency.TypeURL { // whose gauges are no counts
			continue
		}
		for w := range p.workers {
			for _, c := range s.Counts(w, nil) {
				if c.Gauge && c.Value != 0 {
					d.fail("filter %s: %s is %d", s.Name, c.Name, c.Value)
				}
			}
		}
	}
	var tunnels uint64
	for _, w := range p.workers {
		d.nothingLeftOn(w)
		tunnels += w.stats.tcpTotal
	}
	if n := d.sums.tcpRecords; uint64(n) != tunnels {
		d.fail("%d connections of TCP proxies have %d records", tunnels, n)
	}
}

func (d *day) nothingLeftOn(w *worker) {
	if w.stats.panics != 0 || w.stats.tcpActive != 0 {
		d.fail("worker %d: %+v", w.index, w.stats)
	}
	if n := w.loop.Stats().Open; n != 0 {
		d.fail("worker %d: %d connections are open", w.index, n)
	}
	if n := w.ring.Dropped(); n != 0 {
		d.fail("worker %d: %d records dropped", w.index, n)
	}
	if w.exchanges.used|w.attempts.used|w.http2Streams.used|w.http2Calls.used != 0 {
		d.fail("worker %d has not given back %d exchanges, %d attempts, %d streams, %d calls", w.index, w.exchanges.used, w.attempts.used, w.http2Streams.used, w.http2Calls.used)
	}
	if n := max(len(w.exchanges.items), len(w.attempts.items), len(w.http2Streams.items), len(w.http2Calls.items)); n > freeKept {
		d.fail("worker %d keeps %d free items", w.index, n)
	}
	if len(w.bodies) > maxBodies || len(w.ready)+len(w.doomed)+len(w.replays) != 0 || w.tunnels != nil {
		d.fail("worker %d: %d bodies, %d ready, %d doomed, %d replays", w.index, len(w.bodies), len(w.ready), len(w.doomed), len(w.replays))
	}
	for c, on := range w.clusters {
		if n := len(on.pools[0]) + len(on.pools[1]); c.spec.Load() == nil || n > 2*on.spec.lb.View().Len() {
			d.fail("cluster %s has %d pools, configured: %v", c.name, n, c.spec.Load() != nil)
		}
		if on.stats.rqActive != 0 || on.stats.cxActive != 0 {
			d.fail("cluster %s: %d requests, %d connections on worker %d", c.name, on.stats.rqActive, on.stats.cxActive, w.index)
		}
	}
	if at, ok := w.loop.Due(); ok {
		d.fail("worker %d has a timer for %v", w.index, time.Duration(at))
	}
}
