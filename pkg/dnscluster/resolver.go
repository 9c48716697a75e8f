// SPDX-License-Identifier: Apache-2.0

package dnscluster

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/dns"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Config is what a Resolver is made of.
type Config struct {
	// Lookup finds a name's addresses; dns.ErrNone says that there are none. It ends
	// with ctx. See LookupBy.
	Lookup func(ctx context.Context, d *resource.DNSLookup, name string) (dns.Answer, error)
	// Publish gets new assignments, by DNSLookup.Key, from one goroutine.
	Publish func(map[string]*resource.Assignment)
	Log     *slog.Logger // nil: discard
}

// Resolver keeps the endpoints of DNS clusters up to date while Run runs. Want and
// Stats may be called by any goroutine at any time.
type Resolver struct {
	cfg     Config
	news    chan struct{} // holds one: clusters have changed
	results chan result

	mu     sync.Mutex // guards what follows
	set    *set
	wanted *[]*resource.Cluster // nil: as before
}

type result struct {
	name   *name
	answer dns.Answer
	err    error
}

// ClusterStats are the counters of one cluster.
type ClusterStats struct {
	Name   string // as in stats
	Counts Counts
}

// New makes a resolver without clusters.
func New(cfg Config) *Resolver {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Resolver{cfg: cfg, news: make(chan struct{}, 1), results: make(chan result), set: newSet(rand.Float64)}
}

// LookupBy is a Lookup that asks the resolvers that a cluster names, or the host's.
func LookupBy(host *dns.Host, counts *dns.ClientCounts) func(context.Context, *resource.DNSLookup, string) (dns.Answer, error) {
	return func(ctx context.Context, d *resource.DNSLookup, name string) (dns.Answer, error) {
		c := dns.Client{
			Host: host, Resolvers: d.Resolvers, TCP: d.TCP, NoSearch: d.NoSearch,
			Timeout: d.QueryTimeout, Tries: d.QueryTries, Counts: counts,
		}
		return c.Lookup(ctx, name, families[d.Family])
	}
}

var families = [...]dns.Family{
	resource.DNSAuto: dns.V6ThenV4, resource.DNSV4Only: dns.V4, resource.DNSV6Only: dns.V6,
	resource.DNSV4Preferred: dns.V4ThenV6, resource.DNSAll: dns.Both,
}

// Want replaces the clusters that are looked up, all of a DNS type. The list must
// not change any more. Lookups of those that are not in it end.
func (r *Resolver) Want(list []*resource.Cluster) {
	r.mu.Lock()
	r.wanted = &list
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// Stats lists the clusters' counters. Clusters may share a name.
func (r *Resolver) Stats() []ClusterStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []ClusterStats
	seen := map[*Counts]bool{}
	for _, c := range r.set.clusters {
		if !seen[c.counts] {
			seen[c.counts] = true
			out = append(out, ClusterStats{cmp.Or(c.res.AltStatName, c.res.Name), *c.counts})
		}
	}
	slices.SortFunc(out, func(a, b ClusterStats) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Run looks names up until ctx ends, and returns nil.
func (r *Resolver) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var lookups sync.WaitGroup
	defer lookups.Wait()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.news:
		case <-timer.C:
		case done := <-r.results:
			r.take(done)
		}
		pause := r.step(ctx, &lookups)
		timer.Reset(pause)
	}
}

// take takes a result in, and those that came with it.
func (r *Resolver) take(done result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		// Once for failures in a row: the counters say how many there are.
		if err := done.err; err != nil && !errors.Is(err, dns.ErrNone) && !done.name.of.gone && done.name.failures == 0 {
			r.cfg.Log.Warn("a name could not be looked up; what is known of it stays", "cluster", done.name.of.res.Name, "name", done.name.text, "error", err)
		}
		r.set.done(done.name, done.answer, done.err, time.Now())
		select {
		case done = <-r.results:
		default:
			return
		}
	}
}

// step publishes what has changed and begins what is due. It returns how long there
// is nothing more to do.
func (r *Resolver) step(ctx context.Context, lookups *sync.WaitGroup) time.Duration {
	r.mu.Lock()
	now := time.Now()
	if r.wanted != nil {
		r.set.want(*r.wanted, now)
		r.wanted = nil
	}
	for _, n := range r.set.begin(now) {
		one, cancel := context.WithCancel(ctx)
		n.cancel = cancel
		// Ends with the answer, with its cluster or with ctx; Run waits for it.
		lookups.Go(func() {
			defer cancel()
			a, err := r.cfg.Lookup(one, n.of.res.DNS, n.text)
			select {
			case r.results <- result{n, a, err}:
			case <-ctx.Done():
			}
		})
	}
	pause := time.Hour
	if at, ok := r.set.next(); ok {
		pause = max(at.Sub(now), 0)
	}
	changed := r.set.take()
	r.mu.Unlock()
	if changed != nil {
		r.cfg.Publish(changed)
	}
	return pause
}
