// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/orca"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func manyHosts(n int, differ bool) *resource.Assignment {
	a := &resource.Assignment{Localities: []resource.Locality{{}}}
	for i := range n {
		w := uint32(1)
		if differ {
			w += uint32(i % 7)
		}
		a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, resource.Endpoint{
			Address: resource.Address{Host: fmt.Sprintf("10.0.%d.%d", i>>8, i&255), Port: 80}, Weight: w,
		})
	}
	return a
}

// benched are the policies with what makes them cost more.
func benched() map[string]resource.LoadBalancing {
	cfgs := map[string]resource.LoadBalancing{}
	for _, name := range Policies() {
		cfgs[string(name)] = resource.LoadBalancing{
			Policy: name, ActiveRequestBias: 1,
			ClientWeights: &resource.ClientWeights{Expiration: time.Hour},
			PeakEWMA:      resource.LatencyEstimate{Decay: 10 * time.Second, DefaultRTT: 10 * time.Millisecond, Penalty: 1e6},
		}
	}
	slow := resource.SlowStart{Window: time.Minute, Aggression: 1, MinWeightPercent: 10}
	cfgs["round_robin,slow_start"] = resource.LoadBalancing{Policy: resource.RoundRobin, SlowStart: slow}
	cfgs["least_request,slow_start"] = resource.LoadBalancing{Policy: resource.LeastRequest, ActiveRequestBias: 1, SlowStart: slow}
	cfgs["least_request,full_scan"] = resource.LoadBalancing{Policy: resource.LeastRequest, ActiveRequestBias: 1, FullScan: true}
	for _, name := range []resource.LBPolicy{resource.RingHash, resource.Maglev} {
		cfgs[string(name)+",bounded"] = resource.LoadBalancing{Policy: name, HashBalanceFactor: 150}
	}
	return cfgs
}

// BenchmarkPick is the cost of a pick: at most 100 ns, but for full scans.
func BenchmarkPick(b *testing.B) {
	cfgs := benched()
	for _, name := range slices.Sorted(maps.Keys(cfgs)) {
		for _, hosts := range []int{10, 1000, 10000} {
			for _, differ := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/hosts=%d/weights=%v", name, hosts, differ), func(b *testing.B) {
					cfg := cfgs[name]
					v := settled(&resource.Cluster{LB: cfg, Static: manyHosts(hosts, differ)}).View()
					p, r := NewPicker(&cfg, 1), &Request{HasHash: true, Now: int64(3 * time.Hour)}
					p.Pick(v, r) // adopts the view
					b.ReportAllocs()
					for b.Loop() {
						r.Random += 0x9e3779b97f4a7c15
						r.Hash = r.Random
						p.Pick(v, r)
					}
				})
			}
		}
	}
}

// settled makes a cluster in the middle of its life: a tenth of the hosts are new.
func settled(cfg *resource.Cluster) *Cluster {
	c, now := NewCluster(cfg), int64(time.Hour)
	c.Tick(now)
	for i, h := range c.View().Hosts() {
		h.SetFailed(i%10 == 0)
	}
	c.HealthChanged()
	now += int64(time.Hour)
	c.Tick(now)
	for i, h := range c.View().Hosts() {
		h.SetFailed(false)
		h.ReportLoad(cfg.LB.ClientWeights, &orca.Report{RPS: 100, CPU: float64(1 + i%7)}, now)
		h.ObserveRTT(&cfg.LB.PeakEWMA, int64(i%10)*int64(time.Millisecond), now-int64(i)*int64(time.Millisecond))
	}
	c.HealthChanged()
	c.Tick(now)
	c.Tick(now + int64(30*time.Second))
	return c
}

// BenchmarkUpdate is the cost of building a view with its tables, off the loop.
func BenchmarkUpdate(b *testing.B) {
	for _, name := range Policies() {
		for _, hosts := range []int{10, 5000} {
			b.Run(fmt.Sprintf("%s/hosts=%d", name, hosts), func(b *testing.B) {
				cfg := &resource.Cluster{LB: resource.LoadBalancing{Policy: name}}
				lists := []*resource.Assignment{manyHosts(hosts, true), manyHosts(hosts, false)}
				c := NewCluster(cfg)
				i := 0
				for b.Loop() {
					c.Update(cfg, lists[i&1])
					i++
				}
			})
		}
	}
}

func BenchmarkHostCounters(b *testing.B) {
	h := new(Host)
	for b.Loop() {
		h.Active.Add(1)
		h.Stats.RqTotal.Add(1)
		h.Active.Add(-1)
	}
}
