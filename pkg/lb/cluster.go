// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"slices"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Cluster is the balancing state of one cluster, shared by all workers. The zero
// Cluster is ready for its first Update and has no View before.
type Cluster struct {
	view    atomic.Pointer[View]
	weighed atomic.Int64          // when reports were made into weights last
	zones   atomic.Pointer[Zones] // nil: no local cluster
	seed    uint64                // of random subsetting, the updater's
	watch   atomic.Pointer[func()]
}

// NewCluster makes the state with the endpoints that the cluster itself lists
// (static ones); Update brings those of EDS.
func NewCluster(c *resource.Cluster) *Cluster {
	lc := new(Cluster)
	lc.Update(c, c.Static)
	return lc
}

// View is what picks work on now. Any goroutine may call it.
func (c *Cluster) View() *View { return c.view.Load() }

// Update publishes a view of the configuration and the endpoints; a nil
// assignment stands for the cluster's static one. Hosts whose address and host
// name stay are carried over, those that went are flagged Gone. One goroutine at
// a time, not a loop: building a table of a large cluster takes milliseconds.
func (c *Cluster) Update(cfg *resource.Cluster, a *resource.Assignment) {
	if a == nil {
		a = cfg.Static
	}
	prev := c.view.Load()
	hosts := carryLogical(prev, cfg, a)
	if hosts == nil {
		hosts = c.someOf(carryHosts(prev, cfg, a), int(cfg.LB.SubsetSize))
	}
	for {
		if c.view.CompareAndSwap(prev, buildView(prev, hosts, cfg, a, scope{zones: c.zones.Load()})) {
			break
		}
		prev = c.view.Load()
	}
	if prev != nil {
		retire(prev.hosts, hosts)
	}
	if f := c.watch.Load(); f != nil {
		(*f)()
	}
}

// Retire flags all hosts Gone, as their cluster has been removed. Whoever still has the
// view may pick of it.
func (c *Cluster) Retire() {
	if v := c.view.Load(); v != nil {
		retire(v.hosts, nil)
	}
}

// Watch makes every Update call f at its end; nil ends that. f must not update the
// cluster.
func (c *Cluster) Watch(f func()) {
	if f == nil {
		c.watch.Store(nil)
		return
	}
	c.watch.Store(&f)
}

// HealthChanged publishes a view with the hosts' present health. Any goroutine
// but a loop may call it, after it has marked hosts.
func (c *Cluster) HealthChanged() {
	for {
		prev := c.view.Load()
		if c.view.CompareAndSwap(prev, buildView(prev, prev.hosts, prev.cfg, prev.assignment, scope{zones: c.zones.Load()})) {
			return
		}
	}
}

// Tick lets time pass for the weights that depend on it: of hosts in slow start, and
// those that load reports make. now is monotonic, in nanoseconds and positive. One
// goroutine at a time, not a loop, calls it several times a second; it costs next to
// nothing where there is nothing to do.
func (c *Cluster) Tick(now int64) {
	weighed := c.weigh(now)
	for {
		prev := c.view.Load()
		if prev == nil || !weighed && !prev.ramp.due(now) {
			return
		}
		if c.view.CompareAndSwap(prev, buildView(prev, prev.hosts, prev.cfg, prev.assignment, scope{now: now, zones: c.zones.Load()})) {
			return
		}
	}
}

// SetZones says where the local cluster is now, and publishes a view by it where that
// has changed. Any goroutine but a loop may call it, one at a time, after the first
// Update.
func (c *Cluster) SetZones(z *Zones) {
	if !z.Equal(c.zones.Load()) {
		c.zones.Store(z)
		c.HealthChanged()
	}
}

// Removed flags all hosts as gone and leaves a view without any: for a cluster
// that the configuration no longer has.
func (c *Cluster) Removed() {
	v := c.view.Load()
	c.Update(v.cfg, new(resource.Assignment))
}

// carryHosts lists the assignment's hosts by priority and within it in the
// assignment's order, each once, reusing the previous view's where possible.
func carryHosts(prev *View, cfg *resource.Cluster, a *resource.Assignment) []*Host {
	n := 0
	if a != nil {
		for i := range a.Localities {
			n += len(a.Localities[i].Endpoints)
		}
	}
	if n == 0 {
		return nil
	}
	var old index
	if prev != nil {
		old = newIndex(len(prev.hosts))
		for _, h := range prev.hosts {
			old.add(h)
		}
	}
	hosts := make([]*Host, 0, n)
	seen := newIndex(n)
	for i := range a.Localities {
		l := &a.Localities[i]
		for j := range l.Endpoints {
			e := &l.Endpoints[j]
			if seen.find(&e.Address) != nil {
				continue // an address has one set of counts, so it is one host
			}
			h := old.find(&e.Address)
			if h != nil && h.Hostname() == e.Hostname {
				h.configure(e, l)
			} else {
				h = newHost(e, l)
				h.await(cfg.Health)
			}
			seen.add(h)
			hosts = append(hosts, h)
		}
	}
	slices.SortStableFunc(hosts, func(x, y *Host) int {
		return int(int64(x.Locality().Priority) - int64(y.Locality().Priority))
	})
	return hosts
}

// fewHosts are searched faster than a map of them is made.
const fewHosts = 16

// index finds hosts by address.
type index struct {
	byAddress map[resource.Address]*Host // nil where there are few
	few       [fewHosts]*Host
	n         int
}

func newIndex(n int) (x index) {
	if n > fewHosts {
		x.byAddress = make(map[resource.Address]*Host, n)
	}
	return x
}

// add must not be called more often than newIndex was told.
func (x *index) add(h *Host) {
	if x.byAddress != nil {
		x.byAddress[h.spec.Load().Address] = h
		return
	}
	x.few[x.n] = h
	x.n++
}

func (x *index) find(a *resource.Address) *Host {
	if x.byAddress != nil {
		return x.byAddress[*a]
	}
	for _, h := range x.few[:x.n] {
		if h.spec.Load().Address == *a {
			return h
		}
	}
	return nil
}

func retire(old, hosts []*Host) {
	if slices.Equal(old, hosts) {
		return
	}
	stay := make(map[*Host]bool, len(hosts))
	for _, h := range hosts {
		stay[h] = true
	}
	for _, h := range old {
		if !stay[h] {
			h.setFlag(flagGone, true)
		}
	}
}
