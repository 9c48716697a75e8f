// SPDX-License-Identifier: Apache-2.0

// Package lbtest checks what every balancing policy has to fulfil, and makes
// clusters for tests. A policy's own test calls Run in one line; what is special
// about the policy it tests itself.
package lbtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Traits are where policies differ in what they promise.
type Traits struct {
	// Tolerance is how far a host's share may be off, as a fraction of the share.
	Tolerance float64
	// Unequal policies do not spread requests by weight.
	Unequal bool
	// OwnWeights take the place of the endpoints' own.
	OwnWeights bool
}

const draws = 40000

// Run checks a policy.
func Run(t *testing.T, cfg resource.LoadBalancing, traits Traits) {
	t.Helper()
	s := suite{cfg, traits}
	for _, c := range []struct {
		name   string
		run    func(*testing.T)
		spread bool // it is about shares
	}{
		{"an empty cluster has no host to pick", s.empty, false},
		{"a single host gets every request", s.single, false},
		{"requests spread by weight", s.weights, true},
		{"shares hold when the view changes at every pick", s.changing, true},
		{"unhealthy and ejected hosts get nothing", s.unhealthy, true},
		{"below the panic threshold all hosts are used", s.panics, true},
		{"without a panic threshold nothing is picked when nothing is healthy", s.panicOff, true},
		{"fail_traffic_on_panic picks nothing in panic", s.panicFails, false},
		{"degraded hosts get what healthy ones cannot take", s.degraded, true},
		{"lower priorities get what higher ones cannot take", s.priorities, true},
		{"localities get shares by weight and health", s.localities, true},
		{"a tried host is avoided while there is another", s.tried, false},
		{"retries may leave out priorities that were tried", s.triedPriorities, false},
		{"hosts that stay keep their state and hosts that go are flagged", s.carried, false},
		{"a picker copes with the view of another policy", s.foreign, true},
		{"picking allocates nothing", s.allocations, false},
	} {
		if c.spread && traits.Unequal {
			continue
		}
		t.Run(c.name, c.run)
	}
}

type suite struct {
	cfg    resource.LoadBalancing
	traits Traits
}

func (s suite) cluster(a *resource.Assignment, change ...func(*resource.LoadBalancing)) *lb.Cluster {
	cfg := &resource.Cluster{Name: "test", Static: a, LB: s.cfg}
	for _, f := range change {
		f(&cfg.LB)
	}
	return lb.NewCluster(cfg)
}

// Group describes one locality for Assign: endpoints are numbered through.
type Group struct {
	Priority, Weight uint32
	Weights          []uint32                // of the endpoints
	Health           []resource.HealthStatus // missing ones are healthy
}

// Assign makes an assignment; endpoint n is 10.0.n/256.n%256:80.
func Assign(groups ...Group) *resource.Assignment {
	a, n := &resource.Assignment{Cluster: "test"}, 0
	for i, g := range groups {
		l := resource.Locality{Zone: fmt.Sprint("zone-", i), Priority: g.Priority, Weight: g.Weight}
		for j, w := range g.Weights {
			e := resource.Endpoint{
				Address: resource.Address{Host: fmt.Sprintf("10.0.%d.%d", n/256, n%256), Port: 80},
				Weight:  w,
			}
			if j < len(g.Health) {
				e.Health = g.Health[j]
			}
			l.Endpoints = append(l.Endpoints, e)
			n++
		}
		a.Localities = append(a.Localities, l)
	}
	return a
}

// Equal makes a group of n endpoints of weight 1.
func Equal(n int) Group {
	g := Group{Weights: make([]uint32, n)}
	for i := range g.Weights {
		g.Weights[i] = 1
	}
	return g
}

// Spread picks n times with fresh hashes and random numbers and counts by host.
func Spread(p lb.Picker, view func() *lb.View, n int) map[*lb.Host]int {
	rng := rand.New(rand.NewPCG(1, 2))
	got := map[*lb.Host]int{}
	for range n {
		got[p.Pick(view(), &lb.Request{Hash: rng.Uint64(), HasHash: true, Random: rng.Uint64()})]++
	}
	return got
}

// shares checks the share of each host, listed as in the view.
func (s suite) shares(t *testing.T, c *lb.Cluster, view func() *lb.View, want ...float64) {
	t.Helper()
	got := Spread(lb.NewPicker(&s.cfg, 7), view, draws)
	for i, h := range c.View().Hosts() {
		share := float64(got[h]) / draws
		// Five standard deviations of a random draw, besides the policy's own.
		slack := want[i]*s.traits.Tolerance + 5*math.Sqrt(want[i]*(1-want[i])/draws)
		if math.Abs(share-want[i]) > slack {
			t.Errorf("host %d got %.4f of the requests, want %.4f ± %.4f", i, share, want[i], slack)
		}
	}
	if got[nil] > 0 {
		t.Errorf("%d picks found no host", got[nil])
	}
}

func (s suite) none(t *testing.T, c *lb.Cluster) {
	t.Helper()
	if got := Spread(lb.NewPicker(&s.cfg, 7), c.View, 100); got[nil] != 100 {
		t.Errorf("%d of 100 picks found a host, want none", 100-got[nil])
	}
}

func (s suite) empty(t *testing.T) {
	s.none(t, s.cluster(nil))
	s.none(t, s.cluster(Assign(Group{})))
}

func (s suite) single(t *testing.T) {
	c := s.cluster(Assign(Equal(1)))
	s.shares(t, c, c.View, 1)
}

func (s suite) weights(t *testing.T) {
	c := s.cluster(Assign(Equal(4)))
	s.shares(t, c, c.View, .25, .25, .25, .25)
	c = s.cluster(Assign(Group{Weights: []uint32{1, 2, 3, 14}}))
	if s.traits.OwnWeights {
		s.shares(t, c, c.View, .25, .25, .25, .25)
		return
	}
	s.shares(t, c, c.View, .05, .10, .15, .70)
}

func (s suite) changing(t *testing.T) {
	for _, g := range []Group{Equal(4), {Weights: []uint32{1, 1, 3, 5}}} {
		if s.traits.OwnWeights && g.Weights[3] > 1 {
			continue
		}
		c := s.cluster(Assign(g))
		total := 0.0
		for _, w := range g.Weights {
			total += float64(w)
		}
		var want []float64
		for _, w := range g.Weights {
			want = append(want, float64(w)/total)
		}
		flip := func() *lb.View {
			c.HealthChanged()
			return c.View()
		}
		s.shares(t, c, flip, want...)
	}
}

func (s suite) unhealthy(t *testing.T) {
	c := s.cluster(Assign(Group{
		Weights: []uint32{1, 1, 1, 1, 1, 1, 1, 1},
		Health:  []resource.HealthStatus{resource.Unhealthy, resource.Healthy, resource.Draining},
	}))
	const sixth = 1. / 6
	s.shares(t, c, c.View, 0, sixth, 0, sixth, sixth, sixth, sixth, sixth)
	h := c.View().Hosts()
	h[3].SetEjected(true)
	h[4].SetFailed(true)
	c.HealthChanged()
	s.shares(t, c, c.View, 0, .25, 0, 0, 0, .25, .25, .25)
	if got := c.View().HealthyLen(); got != 4 {
		t.Errorf("%d healthy hosts, want 4", got)
	}
	h[3].SetEjected(false)
	h[4].SetFailed(false)
	c.HealthChanged()
	s.shares(t, c, c.View, 0, sixth, 0, sixth, sixth, sixth, sixth, sixth)
}

var oneOfFour = Group{
	Weights: []uint32{1, 1, 1, 1},
	Health:  []resource.HealthStatus{resource.Healthy, resource.Unhealthy, resource.Unhealthy, resource.Unhealthy},
}

func (s suite) panics(t *testing.T) {
	c := s.cluster(Assign(oneOfFour))
	s.shares(t, c, c.View, .25, .25, .25, .25)
	if !c.View().InPanic() {
		t.Error("the view does not say that it is in panic")
	}
	c = s.cluster(Assign(oneOfFour), func(l *resource.LoadBalancing) { l.HasPanic, l.PanicThreshold = true, 20 })
	s.shares(t, c, c.View, 1, 0, 0, 0)
}

func (s suite) panicOff(t *testing.T) {
	g := oneOfFour
	off := func(l *resource.LoadBalancing) { l.HasPanic, l.PanicThreshold = true, 0 }
	c := s.cluster(Assign(g), off)
	s.shares(t, c, c.View, 1, 0, 0, 0)
	c.View().Hosts()[0].SetEjected(true)
	c.HealthChanged()
	s.none(t, c)
}

func (s suite) panicFails(t *testing.T) {
	s.none(t, s.cluster(Assign(oneOfFour), func(l *resource.LoadBalancing) { l.FailOnPanic = true }))
}

func (s suite) degraded(t *testing.T) {
	g := Group{Weights: []uint32{1, 1, 1, 1}, Health: []resource.HealthStatus{resource.Degraded}}
	c := s.cluster(Assign(g))
	const third = 1. / 3
	s.shares(t, c, c.View, 0, third, third, third)
	g.Health = []resource.HealthStatus{resource.Degraded, resource.Degraded, resource.Unhealthy, resource.Healthy}
	c = s.cluster(Assign(g)) // 1.4 · 25 % for the healthy one, the rest for two degraded
	s.shares(t, c, c.View, .325, .325, 0, .35)
}

func (s suite) priorities(t *testing.T) {
	half := Group{Weights: []uint32{1, 1}, Health: []resource.HealthStatus{resource.Unhealthy, resource.Healthy}}
	second := Equal(2)
	second.Priority = 1
	c := s.cluster(Assign(Equal(2), second))
	s.shares(t, c, c.View, .5, .5, 0, 0)
	c = s.cluster(Assign(half, second)) // 1.4 · 50 % stay
	s.shares(t, c, c.View, 0, .7, .15, .15)
	second.Health = []resource.HealthStatus{resource.Unhealthy, resource.Unhealthy}
	c = s.cluster(Assign(half, second), func(l *resource.LoadBalancing) { l.HasPanic, l.PanicThreshold = true, 0 })
	s.shares(t, c, c.View, 0, 1, 0, 0)
}

func (s suite) localities(t *testing.T) {
	on := func(l *resource.LoadBalancing) { l.LocalityWeighted = true }
	a, b, without := Equal(2), Equal(2), Equal(2)
	a.Weight, b.Weight = 1, 3
	c := s.cluster(Assign(a, b, without), on)
	s.shares(t, c, c.View, .125, .125, .375, .375, 0, 0)
	b.Health = []resource.HealthStatus{resource.Unhealthy} // 3 · 0.7 against 1
	c = s.cluster(Assign(a, b), on)
	s.shares(t, c, c.View, .5/3.1, .5/3.1, 0, 2.1/3.1)
	b.Health = nil
	if s.traits.OwnWeights {
		return
	}
	b.Weights = []uint32{1, 3} // weights of hosts count within their locality
	c = s.cluster(Assign(a, b), on)
	s.shares(t, c, c.View, .125, .125, .1875, .5625)
}

func (s suite) tried(t *testing.T) {
	c := s.cluster(Assign(Equal(3)))
	hosts := c.View().Hosts()
	p := lb.NewPicker(&s.cfg, 3)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 1000 {
		r := &lb.Request{Hash: rng.Uint64(), HasHash: i%2 == 0, Random: rng.Uint64(), HostAttempts: i % 3}
		for len(r.Tried) < len(hosts) {
			h := p.Pick(c.View(), r)
			for _, tried := range r.Tried {
				if h == tried {
					t.Fatalf("pick %d went to %s again, which was tried", i, h)
				}
			}
			r.Tried = append(r.Tried, h)
		}
		if p.Pick(c.View(), r) == nil {
			t.Fatalf("pick %d found no host after all were tried, want any", i)
		}
	}
}

func (s suite) triedPriorities(t *testing.T) {
	first, second, dead, last := Equal(3), Equal(2), Equal(1), Equal(1)
	second.Priority, dead.Priority, last.Priority = 1, 2, 3
	dead.Health = []resource.HealthStatus{resource.Unhealthy}
	c := s.cluster(Assign(first, second, dead, last))
	p := lb.NewPicker(&s.cfg, 3)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		r := &lb.Request{Hash: rng.Uint64(), HasHash: true, PreviousPriorities: 2}
		got := ""
		for range 7 {
			r.Random = rng.Uint64()
			h := p.Pick(c.View(), r)
			got += fmt.Sprint(h.Locality().Priority)
			r.Tried = append(r.Tried, h)
		}
		if got != "0011300" { // no host twice, and when all were tried from the start
			t.Fatalf("tries went to the priorities %s, want 0011300", got)
		}
	}
}

func (s suite) carried(t *testing.T) {
	a := Assign(Equal(3))
	c := s.cluster(a)
	before := c.View().Hosts()
	before[1].Active.Store(5)
	before[1].SetEjected(true)
	next := Assign(Equal(4))
	next.Localities[0].Endpoints = next.Localities[0].Endpoints[1:]
	next.Localities[0].Endpoints[0].Weight = 9
	c.Update(c.View().Config(), next)
	after := c.View().Hosts()
	if len(after) != 3 || after[0] != before[1] || after[1] != before[2] {
		t.Fatalf("hosts after the update: %v, want the second and third of %v and a new one", after, before)
	}
	if after[0].Active.Load() != 5 || !after[0].Ejected() || after[0].Weight() != 9 {
		t.Error("the host that stayed lost its requests in flight or ejection, or did not get its weight")
	}
	if !before[0].Gone() || before[1].Gone() || after[2].Gone() {
		t.Error("exactly the removed host must be flagged as gone")
	}
	if got := Spread(lb.NewPicker(&s.cfg, 1), c.View, 1000); got[before[0]] > 0 {
		t.Error("the removed host was picked")
	}
	c.Removed()
	if !after[2].Gone() || c.View().Len() != 0 {
		t.Error("a removed cluster must have no hosts and flag those it had")
	}
}

func (s suite) foreign(t *testing.T) {
	for _, name := range lb.Policies() {
		other := s
		other.cfg = resource.LoadBalancing{Policy: name}
		c := other.cluster(Assign(Group{Weights: []uint32{1, 2, 3}}))
		got := Spread(lb.NewPicker(&s.cfg, 1), c.View, 300)
		if got[nil] > 0 || len(got) != 3 {
			t.Errorf("picks on a view of %s: %d hosts reached, %d without a host", name, len(got), got[nil])
		}
	}
}

func (s suite) allocations(t *testing.T) {
	for _, g := range []Group{Equal(10), {Weights: []uint32{1, 2, 3, 4, 5}}, oneOfFour} {
		c := s.cluster(Assign(g))
		v, p := c.View(), lb.NewPicker(&s.cfg, 1)
		r := &lb.Request{HasHash: true, Tried: v.Hosts()[:1]}
		p.Pick(v, r) // adopts the view
		n := testing.AllocsPerRun(1000, func() {
			r.Random += 0x9e3779b97f4a7c15
			r.Hash = r.Random
			p.Pick(v, r)
		})
		if n != 0 {
			t.Errorf("%v allocations per pick, want 0", n)
		}
	}
}
