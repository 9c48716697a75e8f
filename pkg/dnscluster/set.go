// SPDX-License-Identifier: Apache-2.0

package dnscluster

import (
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/dns"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Counts are a cluster's counters, named as Envoy names them; they only grow.
type Counts struct {
	Attempt   uint64 // lookups begun
	Success   uint64 // lookups answered, of strict clusters be it with nothing
	Failure   uint64 // lookups without an answer: what was known stays
	Empty     uint64 // answers that there is no such name, or none with an address
	NoRebuild uint64 // answers that changed nothing
}

const (
	// lookupsAtATime bounds lookups by the same resolvers.
	lookupsAtATime = 32
	// leastPause is between two lookups of a name, whatever draws and TTLs say.
	leastPause = 10 * time.Millisecond
	// mostTTL is the longest that an answer is believed, whatever it says.
	mostTTL = 24 * time.Hour
)

// set is what is looked up. It is for one goroutine at a time.
type set struct {
	random   func() float64 // [0, 1)
	clusters map[string]*cluster
	counts   map[string]*Counts // by the cluster's name: two versions of one count together
	waiting  queue
	groups   map[string]*group
	changed  map[string]*resource.Assignment // to publish, by key
}

// cluster is one version of a cluster's names.
type cluster struct {
	res      *resource.Cluster
	counts   *Counts
	names    map[string]*name
	assigned *resource.Assignment // published last; nil: nothing yet
	gone     bool
}

// name is a name of a cluster.
type name struct {
	of        *cluster
	text      string
	group     *group
	due       time.Time
	place     int  // in the queue; -1: not in it
	answered  bool // or failed, for the first time
	addresses []netip.Addr
	failures  int
	cancel    func() // of the lookup under way; nil: none
}

// group has what asks the same resolvers.
type group struct {
	active int
	ready  []*name // due, and waiting for others to end
}

func newSet(random func() float64) *set {
	return &set{
		random: random, clusters: map[string]*cluster{}, counts: map[string]*Counts{},
		groups: map[string]*group{}, changed: map[string]*resource.Assignment{},
	}
}

// want replaces the clusters. Names of those that stay keep what is known of them.
func (s *set) want(list []*resource.Cluster, now time.Time) {
	wanted := make(map[string]bool, len(list))
	counted := make(map[string]bool, len(list))
	for _, res := range list {
		wanted[res.DNS.Key], counted[res.Name] = true, true
		if s.clusters[res.DNS.Key] == nil {
			s.add(res, now)
		}
	}
	for key, c := range s.clusters {
		if !wanted[key] {
			s.remove(key, c)
		}
	}
	for n := range s.counts {
		if !counted[n] {
			delete(s.counts, n)
		}
	}
	s.forgetGroups()
}

func (s *set) add(res *resource.Cluster, now time.Time) {
	if s.counts[res.Name] == nil {
		s.counts[res.Name] = new(Counts)
	}
	c := &cluster{res: res, counts: s.counts[res.Name], names: map[string]*name{}}
	s.clusters[res.DNS.Key] = c
	for _, l := range res.DNS.Names.Localities {
		for i := range l.Endpoints {
			text, ok := lookedUp(&l.Endpoints[i])
			if !ok || c.names[text] != nil {
				continue
			}
			n := &name{of: c, text: text, due: now, place: -1, group: s.group(res.DNS)}
			c.names[text] = n
			heap.Push(&s.waiting, n)
		}
	}
	if len(c.names) == 0 || res.DNS.StartsWithout {
		s.assign(c)
	}
}

func (s *set) group(d *resource.DNSLookup) *group {
	key := fmt.Sprint(d.Resolvers, d.TCP)
	g := s.groups[key]
	if g == nil {
		g = &group{}
		s.groups[key] = g
	}
	return g
}

func (s *set) remove(key string, c *cluster) {
	delete(s.clusters, key)
	delete(s.changed, key)
	c.gone = true
	for _, n := range c.names {
		if n.place >= 0 {
			heap.Remove(&s.waiting, n.place)
		}
		if n.cancel != nil {
			n.cancel()
		}
	}
}

// forgetGroups drops those that nobody asks in any more.
func (s *set) forgetGroups() {
	used := map[*group]bool{}
	for _, c := range s.clusters {
		for _, n := range c.names {
			used[n.group] = true
		}
	}
	maps.DeleteFunc(s.groups, func(_ string, g *group) bool { return !used[g] })
}

// begin returns names to look up now. Each must come back by done.
func (s *set) begin(now time.Time) []*name {
	var out []*name
	start := func(n *name) {
		n.group.active++
		n.of.counts.Attempt++
		out = append(out, n)
	}
	for len(s.waiting) > 0 && !s.waiting[0].due.After(now) {
		n := heap.Pop(&s.waiting).(*name)
		if n.group.active < lookupsAtATime {
			start(n)
		} else {
			n.group.ready = append(n.group.ready, n)
		}
	}
	for _, g := range s.groups {
		for len(g.ready) > 0 && g.active < lookupsAtATime {
			n := g.ready[0]
			g.ready = g.ready[1:]
			if !n.of.gone {
				start(n)
			}
		}
	}
	return out
}

// next is when there is something to begin; false: not without something new.
func (s *set) next() (time.Time, bool) {
	if len(s.waiting) == 0 {
		return time.Time{}, false
	}
	return s.waiting[0].due, true
}

// done takes what became of a lookup.
func (s *set) done(n *name, a dns.Answer, err error, now time.Time) {
	n.group.active--
	n.cancel = nil
	c := n.of
	if c.gone {
		return
	}
	empty := errors.Is(err, dns.ErrNone)
	pause := c.res.DNS.Refresh
	if empty {
		c.counts.Empty++
	}
	// There has to be an address of a logical host: none is a failure, as in Envoy.
	if err != nil && (!empty || c.res.Type == resource.LogicalDNS) {
		c.counts.Failure++
		n.failures++
		pause = s.pauseAfterFailure(c.res.DNS, n.failures)
	} else {
		c.counts.Success++
		n.failures = 0
		if empty {
			a = dns.Answer{}
		}
		s.answer(n, a.Addresses)
		if c.res.DNS.RespectTTL && len(a.Addresses) > 0 && a.TTL > 0 {
			pause = min(max(a.TTL, c.res.DNS.MinRefresh), mostTTL)
		}
		pause += time.Duration(s.random() * float64(c.res.DNS.Jitter))
	}
	first := !n.answered
	n.answered = true
	if first && c.assigned == nil && c.mayStart() {
		s.assign(c)
	}
	n.due = now.Add(max(pause, leastPause))
	heap.Push(&s.waiting, n)
}

// answer takes the addresses of a name over.
func (s *set) answer(n *name, list []netip.Addr) {
	c := n.of
	if c.res.Type == resource.LogicalDNS {
		list = list[:1]
	} else {
		list = slices.SortedFunc(slices.Values(list), netip.Addr.Compare) // resolvers rotate their answers
	}
	if n.answered && slices.Equal(n.addresses, list) {
		c.counts.NoRebuild++
		return
	}
	n.addresses = list
	if c.assigned != nil {
		s.assign(c)
	}
}

// mayStart: with the first addresses, or once it is known of every name that there
// are none yet.
func (c *cluster) mayStart() bool {
	all := true
	for _, n := range c.names {
		if len(n.addresses) > 0 {
			return true
		}
		all = all && n.answered
	}
	return all
}

// pauseAfterFailure is Envoy's: drawn from up to the base, and twice as much with
// each failure in a row.
func (s *set) pauseAfterFailure(d *resource.DNSLookup, failures int) time.Duration {
	if d.FailureBase == 0 {
		return d.Refresh
	}
	most := float64(d.FailureBase) * math.Pow(2, float64(min(failures-1, 40)))
	return time.Duration(s.random() * min(most, float64(d.FailureMax)))
}

// assign makes the assignment of what is known.
func (s *set) assign(c *cluster) {
	c.assigned = assignment(c)
	s.changed[c.res.DNS.Key] = c.assigned
}

// take returns what has changed since the last time; nil: nothing.
func (s *set) take() map[string]*resource.Assignment {
	if len(s.changed) == 0 {
		return nil
	}
	out := s.changed
	s.changed = map[string]*resource.Assignment{}
	return out
}

// assignment are the configured endpoints with addresses in place of names. A name's
// host name is the name itself where the configuration gives none, for SNI and for
// rewriting the host header.
func assignment(c *cluster) *resource.Assignment {
	out := *c.res.DNS.Names
	out.Localities = slices.Clone(out.Localities)
	for i := range out.Localities {
		l := &out.Localities[i]
		list := l.Endpoints
		l.Endpoints = make([]resource.Endpoint, 0, len(list))
		for _, e := range list {
			text, ok := lookedUp(&e)
			if !ok {
				l.Endpoints = append(l.Endpoints, e)
				continue
			}
			if e.Hostname == "" {
				e.Hostname = e.Address.Host
			}
			for _, a := range c.names[text].addresses {
				e.Address.Host = a.String()
				l.Endpoints = append(l.Endpoints, e)
			}
		}
	}
	return &out
}

// lookedUp is the name that an endpoint's address is; false: it is none.
func lookedUp(e *resource.Endpoint) (string, bool) {
	if e.Address.Path != "" {
		return "", false
	}
	if _, err := netip.ParseAddr(e.Address.Host); err == nil {
		return "", false
	}
	return e.Address.Host, true
}

// queue is a heap of names by when they are due.
type queue []*name

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	n := x.(*name)
	n.place = len(*q)
	*q = append(*q, n)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	n := old[len(old)-1]
	n.place = -1
	*q = slices.Delete(old, len(old)-1, len(old))
	return n
}
