// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// askAtOnce bounds for how many clusters a worker adds up its counts in one go,
// so that a look at the numbers holds up nobody's request.
const askAtOnce = 16

// totals are the counters of all workers, added up.
type totals struct {
	workers  workerStats
	tls      mtls.Counters
	loops    []reactor.Stats
	dropped  []uint64 // records, by worker
	waiting  []int    // records, by worker
	managers []managerTotals
	clusters []clusterTotals
	filters  []filter.Count       // of all workers, not added up
	free     []*metrics.Histogram // made off the loops, for the loops to use
}

type managerTotals struct {
	stats *managerStats
	sum   managerCounters
}

type clusterTotals struct {
	c     *cluster
	spec  *clusterSpec
	stats clusterStats
	idle  uint64 // connections kept for later
}

// gather asks one worker after the other for its counts. Every number is exact:
// it is read by the only one who writes it.
func (p *Proxy) gather(ctx context.Context) (*totals, error) {
	t := &totals{}
	for _, c := range p.clustersByName() {
		t.clusters = append(t.clusters, clusterTotals{c: c.c, spec: c.spec})
	}
	p.mu.Lock()
	for _, m := range p.managers {
		t.managers = append(t.managers, managerTotals{stats: m})
	}
	p.mu.Unlock()
	slices.SortFunc(t.managers, func(a, b managerTotals) int { return strings.Compare(a.stats.prefix, b.stats.prefix) })
	for _, w := range p.workers {
		t.stock(len(t.managers))
		err := p.ask(ctx, w, func() {
			t.addWorker(w)
			t.filters = p.filterCounts(w, t.filters)
		})
		for at := 0; err == nil && at < len(t.clusters); at += askAtOnce {
			t.stock(askAtOnce)
			err = p.ask(ctx, w, func() { t.addClusters(w, at, at+askAtOnce) })
		}
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// stock makes histograms, so that no loop has to.
func (t *totals) stock(n int) {
	for len(t.free) < n {
		t.free = append(t.free, new(metrics.Histogram))
	}
}

// ask runs f on a worker's loop and waits for its end. What f writes to must not
// be used after an error: f may still run.
func (p *Proxy) ask(ctx context.Context, w *worker, f func()) error {
	done := make(chan struct{})
	w.loop.PostOffLoop(func() {
		f()
		close(done)
	})
	select {
	case <-done:
		return nil
	case <-p.Done():
		return fmt.Errorf("worker %d has stopped", w.index)
	case <-ctx.Done():
		return fmt.Errorf("worker %d did not answer: %w", w.index, context.Cause(ctx))
	}
}

type configuredCluster struct {
	c    *cluster
	spec *clusterSpec
}

// clustersByName lists the clusters that are configured, in the order of their names.
func (p *Proxy) clustersByName() []configuredCluster {
	var list []configuredCluster
	for _, c := range *p.clusters.Load() {
		if s := c.spec.Load(); s != nil {
			list = append(list, configuredCluster{c, s})
		}
	}
	slices.SortFunc(list, func(a, b configuredCluster) int { return strings.Compare(a.c.name, b.c.name) })
	return list
}

// addWorker adds what is not of a cluster. On w's loop.
func (t *totals) addWorker(w *worker) {
	t.workers.add(&w.stats)
	t.tls.Add(w.gate.Counters())
	t.loops = append(t.loops, w.loop.Stats())
	t.dropped = append(t.dropped, w.ring.Dropped())
	t.waiting = append(t.waiting, w.ring.Len())
	for i := range t.managers {
		m := &t.managers[i]
		add(managerCounts[:], &m.sum, &m.stats.on[w.index])
		t.merge(&m.sum.latency, m.stats.on[w.index].latency)
	}
}

// addClusters adds a worker's counts of some of the clusters. On w's loop.
func (t *totals) addClusters(w *worker, from, to int) {
	for i := from; i < min(to, len(t.clusters)); i++ {
		c := &t.clusters[i]
		on := w.clusters[c.c]
		if on == nil {
			continue
		}
		add(clusterCounts[:], &c.stats, &on.stats)
		t.merge(&c.stats.latency, on.stats.latency)
		c.stats.codes.merge(on.stats.codes)
		for _, pool := range on.all {
			c.idle += uint64(len(pool.idle))
		}
	}
}

func (s *workerStats) add(o *workerStats) {
	s.panics += o.panics
	s.listenerRefused += o.listenerRefused
	s.noFilterChain += o.noFilterChain
	s.loopsRefused += o.loopsRefused
	s.tcpTotal += o.tcpTotal
	s.tcpActive += o.tcpActive
	s.tcpDrained += o.tcpDrained
	s.flooderDelayed += o.flooderDelayed
	for i, n := range o.http2Floods {
		s.http2Floods[i] += n
	}
	s.http2KeepAlive += o.http2KeepAlive
	s.upgradesDrained += o.upgradesDrained
	s.webSocketsClosed += o.webSocketsClosed
	s.plaintextBesideTLS += o.plaintextBesideTLS
	s.handedOver += o.handedOver
	s.adopted += o.adopted
	s.adoptFailed += o.adoptFailed
}

// merge adds to a sum, which begins with the first histogram that there is.
func (t *totals) merge(sum **metrics.Histogram, h *metrics.Histogram) {
	if h == nil {
		return
	}
	if *sum == nil {
		n := len(t.free) - 1
		*sum, t.free = t.free[n], t.free[:n]
	}
	(*sum).Merge(h)
}

// count is one counter or gauge of a struct of them, under Envoy's name.
type count[T any] struct {
	name, help string
	kind       metrics.Kind
	field      func(*T) *uint64
}

func add[T any](list []count[T], sum, o *T) {
	for i := range list {
		*list[i].field(sum) += *list[i].field(o)
	}
}

func samples[T any](dst []metrics.Sample, scope *metrics.Scope, list []count[T], from *T) []metrics.Sample {
	for i := range list {
		c := &list[i]
		dst = append(dst, metrics.Sample{Scope: scope, Name: c.name, Help: c.help, Kind: c.kind, Value: *c.field(from)})
	}
	return dst
}
