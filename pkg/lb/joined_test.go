// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// memberView is a view of priorities, each as "healthy of total".
func memberView(priorities ...[2]int) *View {
	a := &resource.Assignment{}
	n := 0
	for level, p := range priorities {
		l := resource.Locality{Priority: uint32(level)}
		for i := range p[1] {
			n++
			e := resource.Endpoint{Address: resource.Address{Host: fmt.Sprintf("10.0.0.%d", n), Port: 80}, Weight: 1}
			if i >= p[0] {
				e.Health = resource.Unhealthy
			}
			l.Endpoints = append(l.Endpoints, e)
		}
		a.Localities = append(a.Localities, l)
	}
	c := new(Cluster)
	c.Update(&resource.Cluster{LB: resource.LoadBalancing{Policy: resource.RoundRobin}}, a)
	return c.View()
}

func TestRequestsSpillFromMemberToMemberByHealth(t *testing.T) {
	for _, tt := range []struct {
		name  string
		views []*View
		want  []float64 // percent; nil: nobody
		panic bool
	}{
		{"all healthy", []*View{memberView([2]int{2, 2}), memberView([2]int{2, 2})}, []float64{100, 0}, false},
		{"half of the first", []*View{memberView([2]int{5, 10}), memberView([2]int{2, 2})}, []float64{70, 30}, false},
		{"the first dead", []*View{memberView([2]int{0, 2}), memberView([2]int{2, 2})}, []float64{0, 100}, false},
		{"priorities of the first before the second", []*View{memberView([2]int{1, 4}, [2]int{4, 4}), memberView([2]int{2, 2})}, []float64{100, 0}, false},
		{"three", []*View{memberView([2]int{1, 4}), memberView([2]int{1, 4}), memberView([2]int{3, 3})}, []float64{35, 35, 30}, false},
		{"the first is not there", []*View{nil, memberView([2]int{1, 1})}, []float64{0, 100}, false},
		{"the first has nobody", []*View{memberView(), memberView([2]int{1, 1})}, []float64{0, 100}, false},
		{"all dead", []*View{memberView([2]int{0, 3}), memberView([2]int{0, 1})}, []float64{75, 25}, true},
		{"nobody", []*View{memberView(), nil}, nil, false},
	} {
		var j Joined
		cfg := &resource.Cluster{}
		counts := make([]float64, len(tt.views))
		const n = 100_000
		for key := range uint64(n) {
			i, inPanic := j.Choose(tt.views, cfg, key)
			if (i < 0) != (tt.want == nil) || inPanic != tt.panic {
				t.Fatalf("%s: member %d, panic %t", tt.name, i, inPanic)
			}
			if i >= 0 {
				counts[i]++
			}
		}
		for i, want := range tt.want {
			if got := counts[i] / n * 100; math.Abs(got-want) > 1 {
				t.Errorf("%s: member %d gets %.1f%%, want %.0f%%", tt.name, i, got, want)
			}
		}
	}
}

func TestSharesFollowHealth(t *testing.T) {
	c := new(Cluster)
	c.Update(&resource.Cluster{LB: resource.LoadBalancing{Policy: resource.RoundRobin}}, memberView([2]int{1, 1}).Assignment())
	other := memberView([2]int{1, 1})
	var j Joined
	choose := func() int {
		i, _ := j.Choose([]*View{c.View(), other}, &resource.Cluster{}, 7)
		return i
	}
	if i := choose(); i != 0 {
		t.Errorf("member %d while all are healthy", i)
	}
	c.View().Hosts()[0].SetEjected(true)
	c.HealthChanged()
	if i := choose(); i != 1 {
		t.Errorf("member %d after the host of the first was ejected", i)
	}
	views := []*View{c.View(), other}
	if n := testing.AllocsPerRun(1000, func() { j.Choose(views, views[0].Config(), 7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAPickInPanicThatIsToBeSoundStaysInItsSubsetAndAmongUntriedHosts(t *testing.T) {
	pool := &resource.Subsets{Selectors: keys("pool")}
	for _, tt := range []struct {
		name   string
		pools  string // by host
		health string // by host: h, d or u
		tried  string // by host: +
		want   string // by host: + where picks may lead
	}{
		{"the healthy one", "aaaa", "uuuh", "....", "...+"},
		{"degraded where none is healthy", "aaaa", "uudu", "....", "..+."},
		{"none is sound", "aaaa", "uuuu", "....", "++++"},
		{"the sound one was tried", "aaaa", "uuuh", "...+", "+++."},
		{"of two the one that was not tried", "aaaaa", "uuuhh", "...+.", "....+"},
		{"not the other pool's", "aabb", "uuhh", "....", "++.."},
		{"the pool's own", "aaab", "uuhh", "....", "..+."},
	} {
		a := &resource.Assignment{Localities: []resource.Locality{{}}}
		l := &a.Localities[0]
		for i := range tt.health {
			h := map[byte]resource.HealthStatus{'h': resource.Healthy, 'd': resource.Degraded, 'u': resource.Unhealthy}[tt.health[i]]
			l.Endpoints = append(l.Endpoints, resource.Endpoint{
				Address: resource.Address{Host: fmt.Sprintf("10.0.0.%d", i+1), Port: 80}, Weight: 1, Health: h,
				Metadata: resource.Metadata{resource.LBNamespace: {"pool": tt.pools[i : i+1]}},
			})
		}
		for _, p := range Policies() {
			cfg := &resource.Cluster{Static: a, LB: resource.LoadBalancing{Policy: p, Subsets: pool}}
			v := NewCluster(cfg).View()
			picker := NewPicker(&cfg.LB, 1)
			r := Request{Sound: true, Criteria: asked("pool=a"), HostAttempts: 1}
			for i, h := range v.Hosts() {
				if tt.tried[i] == '+' {
					r.Tried = append(r.Tried, h)
				}
			}
			for r.Random = range 100 {
				if h := picker.Pick(v, &r); h == nil || tt.want[slices.Index(v.Hosts(), h)] != '+' {
					t.Errorf("%s, %s: %v", tt.name, p, h)
					break
				}
			}
		}
	}
}
