// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestHotCountersHaveACacheLineOfTheirOwn(t *testing.T) {
	if size := unsafe.Sizeof(Host{}); size != 128 {
		t.Errorf("a host has %d bytes, want 128: two cache lines, and a size class of the allocator", size)
	}
	if off := unsafe.Offsetof(Host{}.Active); off != 64 {
		t.Errorf("the counters begin at byte %d, want 64", off)
	}
	hosts := make([]*Host, 50)
	for i := range hosts {
		hosts[i] = new(Host)
		if p := uintptr(unsafe.Pointer(hosts[i])); p%64 != 0 {
			t.Fatalf("host at %x does not begin a cache line", p)
		}
	}
	runtime.KeepAlive(hosts)
}

// A mesh has thousands of clusters; what the configuration itself takes is not
// counted here.
func TestAClusterOfTenEndpointsIsSmall(t *testing.T) {
	const clusters, limit = 1000, 1900
	cfg := make([]*resource.Cluster, clusters)
	for i := range cfg {
		a := &resource.Assignment{Localities: []resource.Locality{{}}}
		for j := range 10 {
			a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, resource.Endpoint{
				Address: resource.Address{Host: fmt.Sprintf("10.%d.%d.%d", i>>8, i&255, j), Port: 8080}, Weight: 1,
			})
		}
		cfg[i] = &resource.Cluster{Static: a, LB: resource.LoadBalancing{Policy: resource.LeastRequest}}
	}
	made := make([]*Cluster, clusters)
	before := heapBytes()
	for i := range made {
		made[i] = NewCluster(cfg[i])
	}
	each := (heapBytes() - before) / clusters
	runtime.KeepAlive(made)
	runtime.KeepAlive(cfg)
	t.Logf("%d bytes per cluster of 10 endpoints", each)
	if each > limit {
		t.Errorf("%d bytes per cluster of 10 endpoints, want at most %d", each, limit)
	}
}

func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAddressesHaveTheTextOfTheirKind(t *testing.T) {
	for _, tt := range []struct {
		address resource.Address
		text    string
		valid   bool
	}{
		{resource.Address{Host: "10.0.0.1", Port: 80}, "10.0.0.1:80", true},
		{resource.Address{Host: "::1", Port: 80}, "[::1]:80", true},
		{resource.Address{Path: "/run/a.sock"}, "/run/a.sock", false},
		{resource.Address{Path: "@abstract"}, "@abstract", false},
		{resource.Address{Host: "not-an-ip", Port: 1}, "not-an-ip:1", false},
	} {
		c := NewCluster(&resource.Cluster{Static: &resource.Assignment{
			Localities: []resource.Locality{{Endpoints: []resource.Endpoint{{Address: tt.address}}}},
		}})
		h := c.View().Hosts()[0]
		if h.Text() != tt.text || h.Addr().IsValid() != tt.valid || h.Path() != tt.address.Path || h.Weight() != 1 {
			t.Errorf("%+v became %q, valid %v, path %q, weight %d", tt.address, h.Text(), h.Addr().IsValid(), h.Path(), h.Weight())
		}
	}
}

func TestAnAddressListedTwiceIsOneHost(t *testing.T) {
	if n := NewCluster(&resource.Cluster{Static: numbered(1, 2, 1)}).View().Len(); n != 2 {
		t.Errorf("%d hosts, want 2", n)
	}
}

func TestANewHostNameMakesANewHost(t *testing.T) {
	c := NewCluster(&resource.Cluster{Static: numbered(1)})
	old, next := c.View().Hosts()[0], numbered(1)
	next.Localities[0].Endpoints[0].Hostname = "other.test"
	c.Update(c.View().Config(), next)
	if h := c.View().Hosts()[0]; h == old || !old.Gone() || h.Hostname() != "other.test" {
		t.Error("the host must be replaced, and the old one flagged")
	}
}

// The updater, outlier detection and health checks all publish views while
// workers pick; whatever wins, the last state of each must be seen in the end.
func TestUpdatesAndHealthChangesOfSeveralGoroutinesAllArrive(t *testing.T) {
	for _, name := range Policies() {
		cfg := &resource.Cluster{LB: resource.LoadBalancing{Policy: name, TableSize: 251, MinRingSize: 64}}
		lists := []*resource.Assignment{numbered(1, 2, 3, 4), numbered(2, 3, 4, 5, 6), weighted(1, 2, 3)}
		c := NewCluster(cfg)
		var work, pickers sync.WaitGroup
		var stop atomic.Bool
		for seed := range uint64(2) {
			pickers.Go(func() {
				p, r := NewPicker(&cfg.LB, seed), Request{HasHash: true}
				for !stop.Load() {
					r.Random, r.Hash = r.Random+0x9e3779b97f4a7c15, r.Random
					if h := p.Pick(c.View(), &r); h != nil {
						h.Active.Add(1)
						h.Active.Add(-1)
					}
				}
			})
		}
		work.Go(func() {
			for i := range 300 {
				c.Update(cfg, lists[i%3])
			}
			c.Update(cfg, lists[0])
		})
		work.Go(func() {
			for i := range 300 {
				for j, h := range c.View().Hosts() {
					h.SetEjected((i+j)%3 == 0)
				}
				c.HealthChanged()
			}
			for _, h := range c.View().Hosts() {
				h.SetEjected(false)
			}
			c.HealthChanged()
		})
		work.Wait()
		stop.Store(true)
		pickers.Wait()
		for _, h := range c.View().Hosts() {
			h.SetEjected(false)
		}
		c.HealthChanged()
		if v := c.View(); v.Len() != 4 || v.HealthyLen() != 4 {
			t.Errorf("%s: %d hosts, %d healthy, want 4 and 4", name, v.Len(), v.HealthyLen())
		}
	}
}
