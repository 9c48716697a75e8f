// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/orca"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func clientWeighted() resource.LoadBalancing {
	return resource.LoadBalancing{Policy: resource.ClientWeighted, ClientWeights: &resource.ClientWeights{
		Blackout: 10 * time.Second, Expiration: 3 * time.Minute, Update: time.Second, ErrorPenalty: 1,
	}}
}

func TestReportsBecomeWeights(t *testing.T) {
	for _, c := range []struct {
		name    string
		report  orca.Report
		penalty float64
		want    uint32
	}{
		{"what is asked for first", orca.Report{RPS: 100, Wanted: .5, Application: .1, CPU: .2}, 1, 200},
		{"then the application's", orca.Report{RPS: 100, Application: .25, CPU: .5}, 1, 400},
		{"then the CPU's", orca.Report{RPS: 100, CPU: .5}, 1, 200},
		{"errors", orca.Report{RPS: 100, EPS: 50, CPU: .5}, 1, 100},
		{"errors at a higher price", orca.Report{RPS: 100, EPS: 50, CPU: .5}, 3, 50},
		{"errors alone", orca.Report{RPS: 100, EPS: 50}, 1, 200},
		{"no requests", orca.Report{CPU: .5}, 1, 0},
		{"no utilization", orca.Report{RPS: 100}, 1, 0},
		{"hardly any", orca.Report{RPS: .1, CPU: 1}, 1, 1},
		{"more than fits", orca.Report{RPS: 1e12, CPU: 1e-9}, 1, 1<<32 - 1},
	} {
		if got := reportedWeight(&resource.ClientWeights{ErrorPenalty: c.penalty}, &c.report); got != c.want {
			t.Errorf("%s: weight %d, want %d", c.name, got, c.want)
		}
	}
}

func TestWeightsCountFromBlackoutToExpiration(t *testing.T) {
	lb := clientWeighted()
	cfg := &resource.Cluster{LB: lb, Static: weighted(7, 1, 1, 1)} // EDS weights are not asked for
	c := NewCluster(cfg)
	now := int64(time.Hour)
	report := func(host int, weight float64) {
		c.View().hosts[host].ReportLoad(lb.ClientWeights, &orca.Report{RPS: weight, CPU: 1}, now)
	}
	pass := func(d time.Duration) {
		now += int64(d)
		c.Tick(now)
	}
	pass(0)
	checkShares(t, "before reports", c, 1, 1, 1, 1)
	report(0, 300)
	report(1, 100)
	pass(9 * time.Second)
	report(0, 300)
	checkShares(t, "in the blackout period", c, 1, 1, 1, 1)
	pass(time.Second)
	checkShares(t, "with the median for the others", c, 300, 100, 200, 200)
	report(2, 600)
	pass(999 * time.Millisecond)
	checkShares(t, "another is in its blackout period", c, 300, 100, 200, 200)
	pass(10 * time.Second)
	checkShares(t, "three are known", c, 300, 100, 600, 300)
	joined := weighted(1, 1, 1, 1, 1)
	c.Update(cfg, joined)
	checkShares(t, "one has joined", c, 300, 100, 600, 300, 300)
	pass(165 * time.Second)
	report(0, 300)
	report(2, 600)
	pass(10 * time.Second)
	checkShares(t, "the second has expired", c, 300, 450, 600, 450, 450)
	report(1, 100)
	pass(9 * time.Second)
	checkShares(t, "it is in its blackout period again", c, 300, 450, 600, 450, 450)
	pass(time.Second)
	checkShares(t, "and behind it", c, 300, 100, 600, 300, 300)
	v := c.View()
	pass(time.Second)
	if c.View() != v {
		t.Error("a view was made though no weight has changed")
	}
	report(1, 900)
	pass(900 * time.Millisecond)
	if c.View() != v {
		t.Error("weights were calculated before the update period was over")
	}
	pass(100 * time.Millisecond)
	checkShares(t, "another report", c, 300, 900, 600, 600, 600)
	new(Host).ReportLoad(lb.ClientWeights, &orca.Report{RPS: 1, CPU: 1}, now) // of a cluster that has another policy
}

func TestReportedWeightsRampUp(t *testing.T) {
	lb := clientWeighted()
	lb.SlowStart = resource.SlowStart{Window: testWindow, Aggression: 1, MinWeightPercent: 10}
	lb.ClientWeights.Blackout = 0
	cfg := &resource.Cluster{LB: lb, Static: weighted(1, 1)}
	c, now := NewCluster(cfg), int64(time.Hour)
	c.Tick(now)
	now += int64(testWindow)
	for i, h := range c.View().hosts {
		h.ReportLoad(lb.ClientWeights, &orca.Report{RPS: float64(100 * (i + 1)), CPU: 1}, now)
	}
	c.Tick(now)
	c.Update(cfg, weighted(1, 1, 1))
	c.Tick(now)
	checkShares(t, "one has joined", c, 100, 200, 15)
	c.Tick(now + int64(testWindow)/2)
	checkShares(t, "half of the window later", c, 100, 200, 75)
}
