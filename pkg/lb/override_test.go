// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"net/netip"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestHostsAreFoundByAddress(t *testing.T) {
	for _, n := range []int{0, 1, 5, fewHosts, fewHosts + 1, 1000} {
		c := NewCluster(&resource.Cluster{Static: manyHosts(n, false)})
		for _, v := range []*View{c.View(), func() *View { c.HealthChanged(); return c.View() }()} {
			for _, h := range v.Hosts() {
				if v.Find(h.Addr()) != h {
					t.Fatalf("%d hosts: %s is not found", n, h)
				}
			}
			for _, other := range []string{"10.0.0.0:81", "9.9.9.9:80", "11.0.0.0:80", "[::1]:80"} {
				if h := v.Find(netip.MustParseAddrPort(other)); h != nil {
					t.Errorf("%d hosts: %s is %s", n, other, h)
				}
			}
		}
		if n > 0 {
			h := c.View().Hosts()[n-1]
			mapped := netip.AddrPortFrom(netip.AddrFrom16(h.Addr().Addr().As16()), 80)
			if c.View().Find(mapped) != h {
				t.Errorf("%s is not found", mapped)
			}
			c.Update(c.View().Config(), manyHosts(n-1, false)) // the last one goes
			if c.View().Find(h.Addr()) != nil {
				t.Errorf("%d hosts: one that has gone is found", n)
			}
		}
	}
	v := NewCluster(&resource.Cluster{Static: manyHosts(1000, false)}).View()
	a := v.Hosts()[321].Addr()
	if n := testing.AllocsPerRun(100, func() { v.Find(a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTheStatusOfAHostDecidesWhetherItMayBeNamed(t *testing.T) {
	a := manyHosts(7, false)
	for i := range a.Localities[0].Endpoints {
		a.Localities[0].Endpoints[i].Health = resource.HealthStatus(min(i, 5))
	}
	for _, tt := range []struct {
		set  resource.StatusSet
		want string // of unknown, healthy, unhealthy, draining, timeout, degraded, and one ejected
	}{
		{0, "++...+."}, {resource.NoStatus, "......."},
		{resource.NoStatus | resource.Draining.Bit() | resource.Healthy.Bit(), ".+.+..."},
		{resource.NoStatus | resource.Unhealthy.Bit(), "..+...+"},
	} {
		v := NewCluster(&resource.Cluster{Static: a, LB: resource.LoadBalancing{OverrideStatus: tt.set}}).View()
		v.Hosts()[6].SetEjected(true)
		got := ""
		for _, h := range v.Hosts() {
			if v.MayOverride(h) {
				got += "+"
			} else {
				got += "."
			}
		}
		if got != tt.want {
			t.Errorf("%08b: %s, want %s", tt.set, got, tt.want)
		}
	}
}

func TestAHostStraysFromASubsetThatHasAHealthyOne(t *testing.T) {
	for _, tt := range []struct {
		name    string
		subsets *resource.Subsets
		hosts   []string
		asked   string
		sick    []int
		want    string // hosts that stray, from 1 on
	}{
		{"no subsets", nil, []string{"v=1", "v=2"}, "v=1", nil, ""},
		{"no labels", &resource.Subsets{Selectors: keys("v")}, []string{"v=1", "v=2"}, "-", nil, ""},
		{"others", &resource.Subsets{Selectors: keys("v")}, []string{"v=1", "v=2", "w=1"}, "v=1", nil, "23"},
		{"nobody is in it", &resource.Subsets{Selectors: keys("v")}, []string{"v=1", "v=2"}, "v=3", nil, ""},
		{"no selector", &resource.Subsets{Selectors: keys("w")}, []string{"v=1", "v=2"}, "v=1", nil, ""},
		{"unhealthy ones", &resource.Subsets{Selectors: keys("v")}, []string{"v=1", "v=2"}, "v=1", []int{0}, ""},
		{"one of them healthy", &resource.Subsets{Selectors: keys("v")}, []string{"v=1", "v=1", "v=2"}, "v=1", []int{0}, "3"},
		{"two labels", &resource.Subsets{Selectors: keys("s v")}, []string{"v=1 s=a", "v=1 s=b", "v=1"}, "v=1 s=a", nil, "23"},
		{"lists", &resource.Subsets{Selectors: keys("v"), ListAsAny: true}, []string{"v=1|2", "v=2", "v=3"}, "v=1", nil, "23"},
		{"redundant keys", &resource.Subsets{Selectors: keys("v"), RedundantKeys: true}, []string{"v=1", "v=2"}, "v=1 x=y", nil, "2"},
		{"a single host", &resource.Subsets{Selectors: []resource.SubsetSelector{{Keys: []string{"v"}, SingleHost: true}}}, []string{"v=1", "v=2"}, "v=1", nil, "2"},
		{"a single host, unhealthy", &resource.Subsets{Selectors: []resource.SubsetSelector{{Keys: []string{"v"}, SingleHost: true}}}, []string{"v=1", "v=2"}, "v=1", []int{0}, ""},
	} {
		a := labelled(tt.hosts...)
		for _, i := range tt.sick {
			a.Localities[0].Endpoints[i].Health = resource.Unhealthy
		}
		v := NewCluster(&resource.Cluster{Static: a, LB: resource.LoadBalancing{Subsets: tt.subsets}}).View()
		c, got := asked(tt.asked), ""
		for i, h := range v.Hosts() {
			if v.Strays(h, c) {
				got += string(rune('1' + i))
			}
			if n := testing.AllocsPerRun(10, func() { v.Strays(h, c) }); n != 0 {
				t.Errorf("%s: %v allocations", tt.name, n)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q stray, want %q", tt.name, got, tt.want)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	v := NewCluster(&resource.Cluster{Static: manyHosts(10_000, false)}).View()
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % 10_000
		if v.Find(v.hosts[i].Addr()) == nil {
			b.Fatal("not found")
		}
	}
}
