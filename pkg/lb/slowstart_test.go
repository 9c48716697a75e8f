// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const testWindow = 10 * time.Second

func slowly(policy resource.LBPolicy) resource.LoadBalancing {
	return resource.LoadBalancing{
		Policy: policy, ActiveRequestBias: 1,
		SlowStart: resource.SlowStart{Window: testWindow, Aggression: 1, MinWeightPercent: 10},
	}
}

func TestSlowStartHasEnvoysFormula(t *testing.T) {
	for _, c := range []struct {
		healthy     time.Duration
		aggression  float64
		min         float64
		want        float64
		neverTicked bool
	}{
		{healthy: 0, aggression: 1, min: 10, want: .1},
		{healthy: 0, aggression: 1, min: 0, want: .0001}, // of one millisecond
		{healthy: 0, aggression: 1, min: 0, want: .0001, neverTicked: true},
		{healthy: 500 * time.Millisecond, aggression: 1, min: 10, want: .1},
		{healthy: 2500*time.Millisecond + 999*time.Microsecond, aggression: 1, min: 10, want: .25},
		{healthy: 2500 * time.Millisecond, aggression: 2, min: 10, want: .5},
		{healthy: 5 * time.Second, aggression: .5, min: 10, want: .25},
		{healthy: 9999 * time.Millisecond, aggression: 1, min: 10, want: .9999},
		{healthy: 10 * time.Second, aggression: .5, min: 10, want: 1},
	} {
		r := &ramp{now: int64(time.Hour + c.healthy)}
		since := int64(time.Hour)
		if c.neverTicked {
			since = 0
		}
		cfg := &resource.SlowStart{Window: testWindow, Aggression: c.aggression, MinWeightPercent: c.min}
		if got := r.factor(cfg, since); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%+v: factor %v, want %v", c, got, c.want)
		}
	}
}

// newcomers makes a cluster of old hosts that is joined by one more.
func newcomers(policy resource.LBPolicy, weights ...uint32) (c *Cluster, now int64) {
	now = int64(time.Hour)
	cfg := &resource.Cluster{LB: slowly(policy), Static: weighted(weights[:len(weights)-1]...)}
	c = NewCluster(cfg)
	c.Tick(now)
	now += int64(testWindow)
	c.Tick(now)
	c.Update(cfg, weighted(weights...))
	return c, now
}

func checkShares(t *testing.T, what string, c *Cluster, want ...float64) {
	t.Helper()
	const draws = 40000
	p, count, total := NewPicker(&c.View().cfg.LB, 5), map[*Host]int{}, 0.0
	rng := rand.New(rand.NewPCG(1, 2))
	for range draws {
		count[p.Pick(c.View(), &Request{Random: rng.Uint64()})]++
	}
	for _, w := range want {
		total += w
	}
	for i, h := range c.View().Hosts() {
		share, want := float64(count[h])/draws, want[i]/total
		if math.Abs(share-want) > 5*math.Sqrt(want*(1-want)/draws) {
			t.Errorf("%s: %s got %.4f of the requests, want %.4f", what, h, share, want)
		}
	}
}

func TestANewHostsShareGrowsOverTheWindow(t *testing.T) {
	for _, policy := range []resource.LBPolicy{resource.RoundRobin, resource.LeastRequest} {
		c, now := newcomers(policy, 1, 1, 1, 1)
		checkShares(t, "before the tick", c, 1, 1, 1, .1)
		for _, s := range []float64{0, .1, .3, .5, .75, .99} {
			c.Tick(now + int64(s*float64(testWindow)))
			checkShares(t, fmt.Sprintf("%s at %v of the window", policy, s), c, 1, 1, 1, max(.1, s))
		}
		c.Tick(now + int64(testWindow))
		checkShares(t, "behind the window", c, 1, 1, 1, 1)
		if s := &c.View().sets[0]; s.schedule != nil {
			t.Errorf("%s: equal hosts still have weights behind the window: %v", policy, s.schedule)
		}
		c, now = newcomers(policy, 2, 6, 4)
		c.Tick(now)
		c.Tick(now + int64(testWindow)/2)
		checkShares(t, "with weights", c, 2, 6, 2)
	}
}

func TestHostsThatFailChecksStartSlowlyAgainAndEjectedOnesDoNot(t *testing.T) {
	c, now := newcomers(resource.RoundRobin, 1, 1, 1, 1)
	h := c.View().Hosts()
	step := func() {
		c.HealthChanged()
		now += int64(testWindow)
		c.Tick(now)
	}
	step()
	step()
	checkShares(t, "all are old", c, 1, 1, 1, 1)
	h[0].SetEjected(true)
	h[1].SetFailed(true)
	step()
	checkShares(t, "two are out", c, 0, 0, 1, 1)
	h[0].SetEjected(false)
	h[1].SetFailed(false)
	c.HealthChanged()
	checkShares(t, "both are back", c, 1, .1, 1, 1)
	c.Tick(now)
	c.Tick(now + int64(testWindow)*6/10)
	checkShares(t, "after a while", c, 1, .6, 1, 1)

	sick := weighted(1, 1, 1, 1)
	sick.Localities[0].Endpoints[2].Health = resource.Unhealthy
	c.Update(c.View().cfg, sick)
	step()
	c.Update(c.View().cfg, weighted(1, 1, 1, 1))
	checkShares(t, "healthy again by EDS", c, 1, 1, .1, 1)
}

func TestTheClockOfSlowStartMovesInSteps(t *testing.T) {
	c, now := newcomers(resource.LeastRequest, 1, 1)
	c.Tick(now)
	v := c.View()
	c.Tick(now + int64(testWindow)/rampSteps - 1)
	if c.View() != v {
		t.Error("a view was made before its weights differ by one percent")
	}
	c.Tick(now + int64(testWindow)/rampSteps)
	if c.View() == v {
		t.Error("no view was made after one percent of the window")
	}
	now += int64(testWindow)
	c.Tick(now)
	v = c.View()
	c.Tick(now + int64(time.Hour))
	if c.View() != v {
		t.Error("views are made though no host is in slow start")
	}
	still := NewCluster(&resource.Cluster{Static: weighted(1, 1)})
	v = still.View()
	still.Tick(now)
	new(Cluster).Tick(now) // has no view yet
	if still.View() != v {
		t.Error("views are made of a cluster without slow start")
	}
}

// The schedule goes on while weights change: with a fresh one for each view a host
// could be drawn first several times in a row.
func TestRoundRobinStaysSmoothInSlowStart(t *testing.T) {
	c, now := newcomers(resource.RoundRobin, 1, 1, 1, 1)
	c.Tick(now)
	p := NewPicker(&c.View().cfg.LB, 3)
	var last *Host
	for i := range 2000 {
		c.Tick(now + int64(testWindow)*int64(i)/4000)
		h := p.Pick(c.View(), &Request{})
		if h == last && i > 20 {
			t.Fatalf("pick %d is %s twice in a row", i, h)
		}
		last = h
	}
}
