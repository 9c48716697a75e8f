// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"testing"

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

func BenchmarkPick(b *testing.B) {
	for _, name := range Policies() {
		for _, hosts := range []int{10, 1000} {
			for _, differ := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/hosts=%d/weights=%v", name, hosts, differ), func(b *testing.B) {
					cfg := resource.LoadBalancing{Policy: name, ActiveRequestBias: 1}
					v := NewCluster(&resource.Cluster{LB: cfg, Static: manyHosts(hosts, differ)}).View()
					p, r := NewPicker(&cfg, 1), &Request{HasHash: true}
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
