// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// labelled makes an assignment of one endpoint per description, "stage=prod
// version=1.0"; endpoint n is 10.0.0.n:80, from 1 on.
func labelled(list ...string) *resource.Assignment {
	l := resource.Locality{Zone: "a", Weight: 1}
	for i, text := range list {
		e := resource.Endpoint{
			Address: resource.Address{Host: fmt.Sprintf("10.0.0.%d", i+1), Port: 80}, Weight: 1,
			Metadata: resource.Metadata{resource.LBNamespace: {}},
		}
		for _, f := range strings.Fields(text) {
			key, value, _ := strings.Cut(f, "=")
			if items := strings.Split(value, "|"); len(items) > 1 {
				o := resource.OtherLabel{Whole: "[" + value + "]", List: true}
				for _, item := range items {
					o.Items = append(o.Items, `"`+item)
				}
				if e.OtherLabels == nil {
					e.OtherLabels = map[string]resource.OtherLabel{}
				}
				e.OtherLabels[key] = o
				continue
			}
			e.Metadata[resource.LBNamespace][key] = value
		}
		l.Endpoints = append(l.Endpoints, e)
	}
	return &resource.Assignment{Localities: []resource.Locality{l}}
}

// asked makes the criteria of "stage=prod version=1.0"; "-" is a route without.
func asked(text string) *Criteria {
	if text == "-" {
		return nil
	}
	m := &resource.MetadataMatch{}
	for _, f := range strings.Fields(text) {
		key, value, _ := strings.Cut(f, "=")
		m.Labels = resource.MergeLabels(m.Labels, []resource.Label{resource.TextLabel(key, value)})
	}
	return NewCriteria(m)
}

func keys(list ...string) []resource.SubsetSelector {
	var out []resource.SubsetSelector
	for _, text := range list {
		k := strings.Fields(text)
		slices.Sort(k)
		out = append(out, resource.SubsetSelector{Keys: k, Fallback: resource.SubsetInherit})
	}
	return out
}

func labels(text string) []resource.Label { return asked(text).labels }

// reached are the numbers of the hosts that picks of the criteria lead to, "none"
// where there is none.
func reached(c *Cluster, criteria *Criteria) (hosts string, outcome SubsetOutcome) {
	p := NewPicker(&c.View().cfg.LB, 1)
	r := &Request{Criteria: criteria}
	var got []string
	for range 200 {
		r.Random += 0x9e3779b97f4a7c15
		h := p.Pick(c.View(), r)
		if h == nil {
			return "none", r.Subset
		}
		got = append(got, strings.TrimSuffix(strings.TrimPrefix(h.Text(), "10.0.0."), ":80"))
	}
	slices.Sort(got)
	return strings.Join(slices.Compact(got), " "), r.Subset
}

// The examples of Envoy's documentation of its subset load balancer: the page
// "Load balancer subsets" and the design note that it refers to.
func TestSubsetsAreThoseOfEnvoysExamples(t *testing.T) {
	page := labelled("v=1.0 stage=prod", "v=1.0 stage=prod", "v=1.1 stage=canary", "v=1.2-pre stage=dev")
	note := labelled("stage=prod version=1.0 type=std xlarge=true", "stage=prod version=1.0 type=std", "stage=prod version=1.1 type=std",
		"stage=prod version=1.1 type=std", "stage=prod version=1.0 type=bigmem", "stage=prod version=1.1 type=bigmem", "stage=dev version=1.2-pre type=std")
	tests := []struct {
		name    string
		hosts   *resource.Assignment
		subsets resource.Subsets
		want    map[string]string // hosts by criteria; "!" before those of a fallback
	}{
		{"page", page, resource.Subsets{Selectors: keys("v stage", "stage"), Fallback: resource.SubsetDefault, Default: labels("stage=prod")}, map[string]string{
			"stage=canary": "3", "v=1.2-pre stage=dev": "4", "v=1.0": "!1 2", "other=x": "!1 2", "-": "!1 2", "": "!1 2", "stage=prod": "1 2", "v=1.0 stage=dev": "!1 2",
		}},
		{"no fallback", page, resource.Subsets{Selectors: keys("v stage", "stage")}, map[string]string{
			"stage=canary": "3", "v=1.0": "none", "-": "none", "stage=nowhere": "none",
		}},
		{"any endpoint", page, resource.Subsets{Selectors: keys("stage"), Fallback: resource.SubsetAny}, map[string]string{
			"stage=dev": "4", "stage=nowhere": "!1 2 3 4", "-": "!1 2 3 4",
		}},
		{"default that nobody is in", page, resource.Subsets{Selectors: keys("stage"), Fallback: resource.SubsetDefault, Default: labels("stage=test")}, map[string]string{
			"stage=dev": "4", "stage=nowhere": "none",
		}},
		{"default of no labels", page, resource.Subsets{Selectors: keys("stage"), Fallback: resource.SubsetDefault}, map[string]string{"-": "!1 2 3 4"}},
		{"note", note, resource.Subsets{
			Selectors: keys("stage type", "stage version", "version", "xlarge version"),
			Fallback:  resource.SubsetDefault, Default: labels("stage=prod version=1.0 type=std"),
		}, map[string]string{
			"stage=prod type=std": "1 2 3 4", "stage=prod type=bigmem": "5 6", "stage=dev type=std": "7",
			"stage=prod version=1.0": "1 2 5", "stage=prod version=1.1": "3 4 6", "stage=dev version=1.2-pre": "7",
			"version=1.0": "1 2 5", "version=1.1": "3 4 6", "version=1.2-pre": "7", "version=1.0 xlarge=true": "1",
			"-": "!1 2", "version=1.1 xlarge=true": "!1 2", "stage=prod": "!1 2", "stage=prod type=std version=1.0": "!1 2",
		}},
		{"lists as any", labelled("v=1|2 zone=x|y", "v=2", "v=3|3"), resource.Subsets{Selectors: keys("v", "v zone"), ListAsAny: true}, map[string]string{
			"v=1": "1", "v=2": "1 2", "v=3": "3", "v=1 zone=y": "1", "v=2 zone=x": "1", "v=2 zone=z": "none",
		}},
		{"lists as lists", labelled("v=1|2", "v=2"), resource.Subsets{Selectors: keys("v")}, map[string]string{"v=1": "none", "v=2": "2"}},
		{"default with lists as any", labelled("v=1|2", "v=2"), resource.Subsets{
			Selectors: keys("x"), ListAsAny: true, Fallback: resource.SubsetDefault, Default: labels("v=2"),
		}, map[string]string{"-": "!1 2"}},
		{"redundant keys", page, resource.Subsets{Selectors: keys("v stage", "stage"), RedundantKeys: true}, map[string]string{
			"stage=canary other=x": "3", "v=1.0 stage=prod other=x": "1 2", "other=x": "none", "v=1.1 stage=dev": "none",
		}},
		{"single host", page, resource.Subsets{Selectors: []resource.SubsetSelector{{Keys: []string{"stage"}, SingleHost: true}}}, map[string]string{
			"stage=prod": "1", "stage=dev": "4", "stage=nowhere": "none",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCluster(&resource.Cluster{Static: tt.hosts, LB: resource.LoadBalancing{Policy: resource.Random, Subsets: &tt.subsets}})
			for text, want := range tt.want {
				got, outcome := reached(c, asked(text))
				if outcome == SubsetFellBack {
					got = "!" + got
				}
				if got != want {
					t.Errorf("requests for {%s} reached %s, want %s", text, got, want)
				}
			}
		})
	}
}

func TestSelectorsHaveFallbacksOfTheirOwn(t *testing.T) {
	hosts := labelled("v=1 stage=prod", "v=2 stage=prod", "v=1 stage=dev")
	s := keys("a", "b", "c", "v", "stage v", "region stage v")
	s[0].Fallback, s[1].Fallback, s[2].Fallback = resource.SubsetAny, resource.SubsetNoFallback, resource.SubsetDefault
	s[4].Fallback, s[4].FallbackKeys = resource.SubsetKeys, []string{"v"}
	s[5].Fallback, s[5].FallbackKeys = resource.SubsetKeys, []string{"stage", "v"}
	c := NewCluster(&resource.Cluster{Static: hosts, LB: resource.LoadBalancing{Policy: resource.RoundRobin, Subsets: &resource.Subsets{
		Selectors: s, Fallback: resource.SubsetDefault, Default: labels("v=2"),
	}}})
	for text, want := range map[string]string{
		"a=1": "1 2 3", "b=1": "none", "c=1": "2", "v=9": "2", "x=1": "2",
		"stage=dev v=2": "2", "stage=dev v=1": "3", "stage=test v=1": "1 3", // fewer keys
		"stage=dev v=1 region=eu": "3", "stage=dev v=2 region=eu": "2", "stage=dev v=9 region=eu": "2", // and fewer still
	} {
		if got, _ := reached(c, asked(text)); got != want {
			t.Errorf("requests for {%s} reached %s, want %s", text, got, want)
		}
	}
}

func TestFallbackListsAreTriedInOrder(t *testing.T) {
	hosts := labelled("v=1 stage=prod", "v=2 stage=prod", "v=1 stage=dev")
	match := &resource.MetadataMatch{
		Labels:    append(labels("fallback_list=x stage=dev")[:1:1], labels("stage=dev")...),
		Overrides: [][]resource.Label{labels("v=2"), labels("v=1 stage=prod")},
	}
	sub := &resource.Subsets{Selectors: keys("stage v"), FallbackList: true}
	c := NewCluster(&resource.Cluster{Static: hosts, LB: resource.LoadBalancing{Policy: resource.RoundRobin, Subsets: sub}})
	if got, outcome := reached(c, NewCriteria(match)); got != "1" || outcome != SubsetSelected {
		t.Errorf("reached %s, want 1: stage=dev v=2 is nobody, stage=prod v=1 is", got)
	}
	match.Overrides = nil // without the list, and so by stage alone
	sub.Selectors = keys("stage")
	c = NewCluster(&resource.Cluster{Static: hosts, LB: resource.LoadBalancing{Policy: resource.RoundRobin, Subsets: sub}})
	if got, _ := reached(c, NewCriteria(match)); got != "3" {
		t.Errorf("reached %s, want 3", got)
	}
	off := *sub
	off.FallbackList = false // then it is a label as any other
	c = NewCluster(&resource.Cluster{Static: hosts, LB: resource.LoadBalancing{Policy: resource.RoundRobin, Subsets: &off}})
	if got, _ := reached(c, NewCriteria(match)); got != "none" {
		t.Errorf("reached %s, want none", got)
	}
}

func TestASubsetHasItsOwnHealthAndPanic(t *testing.T) {
	hosts := labelled("v=1", "v=1", "v=1", "v=2", "v=2")
	sub := &resource.Subsets{Selectors: keys("v"), Fallback: resource.SubsetDefault, Default: labels("v=2"), PanicModeAny: true}
	cfg := resource.LoadBalancing{Policy: resource.RoundRobin, Subsets: sub}
	c := NewCluster(&resource.Cluster{Static: hosts, LB: cfg})
	h := c.View().Hosts()
	eject := func(numbers ...int) {
		for i := range h {
			h[i].SetEjected(slices.Contains(numbers, i+1))
		}
		c.HealthChanged()
	}
	eject(1)
	if got, _ := reached(c, asked("v=1")); got != "2 3" {
		t.Errorf("with one of three ejected: %s, want 2 3", got)
	}
	eject(1, 2) // a third is below the threshold of the subset, not of the cluster
	if got, _ := reached(c, asked("v=1")); got != "1 2 3" {
		t.Errorf("with two of three ejected: %s, want all of the subset in panic", got)
	}
	if got, _ := reached(c, asked("v=2")); got != "4 5" {
		t.Errorf("the other subset: %s, want 4 5", got)
	}
	// Without panic a subset whose hosts are all unhealthy has none for requests, and
	// is still the subset.
	off := cfg
	off.HasPanic = true
	c.Update(&resource.Cluster{Static: hosts, LB: off}, hosts)
	eject(1, 2, 3)
	if got, outcome := reached(c, asked("v=1")); got != "none" || outcome != SubsetSelected {
		t.Errorf("all unhealthy: %s (%d), want none of the subset", got, outcome)
	}
	// The fallback's endpoints are unhealthy: any that is healthy.
	eject(4, 5)
	if got, outcome := reached(c, asked("v=9")); got != "1 2 3" || outcome != SubsetFellToAny {
		t.Errorf("the fallback unhealthy: %s (%d), want any", got, outcome)
	}
}

// Localities weigh as they do in the cluster only where that is asked for, and
// then, when scaled, as far as the subset has their endpoints.
func TestLocalityWeightsOfSubsets(t *testing.T) {
	a := labelled("v=1", "v=2", "v=1", "v=1")
	ends := a.Localities[0].Endpoints
	a.Localities = []resource.Locality{
		{Zone: "x", Weight: 50, Endpoints: ends[:2]}, {Zone: "y", Weight: 50, Endpoints: ends[2:]},
	}
	for _, tt := range []struct {
		aware, scaled bool
		want          float64 // of the first host, for v=1
	}{{false, false, 1. / 3}, {true, false, .5}, {true, true, 25. / 75}, {false, true, 1. / 3}} {
		cfg := resource.LoadBalancing{Policy: resource.RoundRobin, LocalityWeighted: true, Subsets: &resource.Subsets{
			Selectors: keys("v"), LocalityWeightAware: tt.aware, ScaleLocalityWeight: tt.scaled,
		}}
		c := NewCluster(&resource.Cluster{Static: a, LB: cfg})
		p, r, first := NewPicker(&cfg, 1), &Request{Criteria: asked("v=1")}, 0
		const n = 30000
		for range n {
			r.Random += 0x9e3779b97f4a7c15
			if p.Pick(c.View(), r) == c.View().Hosts()[0] {
				first++
			}
		}
		if got := float64(first) / n; got < tt.want-.02 || got > tt.want+.02 {
			t.Errorf("aware %v, scaled %v: the first host got %.3f, want %.3f", tt.aware, tt.scaled, got, tt.want)
		}
	}
}

func TestASubsetPicksByItsPolicyWithItsOwnCursors(t *testing.T) {
	hosts := labelled("v=1", "v=1", "v=1", "v=2", "v=2")
	for _, name := range Policies() {
		if name == resource.PickFirst {
			continue // takes one host of each
		}
		cfg := resource.LoadBalancing{Policy: name, TableSize: 251, MinRingSize: 64, Subsets: &resource.Subsets{Selectors: keys("v")}}
		c := NewCluster(&resource.Cluster{Static: hosts, LB: cfg})
		p := NewPicker(&cfg, 1)
		one, two := &Request{Criteria: asked("v=1"), HasHash: true}, &Request{Criteria: asked("v=2"), HasHash: true}
		got := map[*Host]int{}
		for range 6000 {
			for _, r := range []*Request{one, two} {
				r.Random += 0x9e3779b97f4a7c15
				r.Hash = mix(r.Random)
				got[p.Pick(c.View(), r)]++
			}
		}
		for i, h := range c.View().Hosts() {
			want := []int{2000, 2000, 2000, 3000, 3000}[i]
			if n := got[h]; n < want*8/10 || n > want*12/10 || name == resource.RoundRobin && n != want {
				t.Errorf("%s: host %d got %d of the requests for its subset, want %d", name, i+1, n, want)
			}
		}
	}
}

func TestSubsetsComeAndGoWithTheirEndpoints(t *testing.T) {
	cfg := &resource.Cluster{LB: resource.LoadBalancing{Subsets: &resource.Subsets{Selectors: keys("v"), Fallback: resource.SubsetAny}}}
	c := NewCluster(cfg)
	check := func(what string, active int, created, removed uint64) {
		t.Helper()
		st, _ := c.View().SubsetStats()
		if st.Active != active || st.Created != created || st.Removed != removed {
			t.Errorf("%s: %+v, want %d active, %d created, %d removed", what, st, active, created, removed)
		}
	}
	check("none", 0, 0, 0)
	c.Update(cfg, labelled("v=1", "v=2"))
	check("two", 2, 2, 0)
	c.View().Hosts()[0].SetEjected(true)
	c.HealthChanged()
	check("health changed", 2, 2, 0)
	c.Update(cfg, labelled("v=1", "v=3")) // the same address with other metadata
	check("one went", 2, 3, 1)
	if got, _ := reached(c, asked("v=3")); got != "2" {
		t.Errorf("v=3 reached %s, want 2", got)
	}
	off := &resource.Cluster{}
	c.Update(off, labelled("v=1"))
	check("off", 0, 3, 3)
	if got, outcome := reached(c, asked("v=3")); got != "1" || outcome != SubsetsOff {
		t.Errorf("without subsets v=3 reached %s", got)
	}
}

func TestSubsetsAreBounded(t *testing.T) {
	var list []string
	for i := range 3000 {
		list = append(list, fmt.Sprintf("v=%d", i))
	}
	cfg := resource.LoadBalancing{Policy: resource.Maglev, Subsets: &resource.Subsets{Selectors: keys("v"), Fallback: resource.SubsetAny}}
	a := &resource.Assignment{Localities: []resource.Locality{{}}}
	for i, text := range list {
		e := labelled(text).Localities[0].Endpoints[0]
		e.Address.Host = fmt.Sprintf("10.1.%d.%d", i>>8, i&255)
		a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, e)
	}
	c := NewCluster(&resource.Cluster{Static: a, LB: cfg})
	st, _ := c.View().SubsetStats()
	if st.Active < 100 || st.Active > maxSubsetBytes/(2*defaultTableSize) || st.Active+st.Omitted != 3000 {
		t.Errorf("%+v of 3000 subsets with a table each", st)
	}
	r := &Request{Criteria: asked("v=2999"), HasHash: true, Hash: 1}
	if h := NewPicker(&cfg, 1).Pick(c.View(), r); h == nil || r.Subset != SubsetFellBack {
		t.Errorf("a request for an omitted subset: host %v, outcome %d, want the fallback's", h, r.Subset)
	}
	many := labelled("v=" + strings.Repeat("1|", 10)) // and a list of many combinations
	o := resource.OtherLabel{List: true}
	for i := range 1000 {
		o.Items = append(o.Items, fmt.Sprint(i))
	}
	many.Localities[0].Endpoints[0].OtherLabels["v"] = o
	cfg.Policy, cfg.Subsets = resource.RoundRobin, &resource.Subsets{Selectors: keys("v"), ListAsAny: true}
	c = NewCluster(&resource.Cluster{Static: many, LB: cfg})
	if st, _ := c.View().SubsetStats(); st.Active != maxCombinations || st.Omitted != 1000-maxCombinations {
		t.Errorf("%+v of 1000 values of a list", st)
	}
}

func TestPicksOfSubsetsAllocateNothing(t *testing.T) {
	s := keys("v", "stage v", "x")
	s[1].Fallback, s[1].FallbackKeys = resource.SubsetKeys, []string{"v"}
	s[2].Fallback = resource.SubsetAny
	for _, redundant := range []bool{false, true} {
		cfg := resource.LoadBalancing{Policy: resource.LeastRequest, Subsets: &resource.Subsets{Selectors: s, RedundantKeys: redundant, Fallback: resource.SubsetAny}}
		v := NewCluster(&resource.Cluster{Static: labelled("v=1", "v=1", "v=2"), LB: cfg}).View()
		for _, text := range []string{"v=1", "v=1 stage=prod", "x=1", "-", "v=1 y=2", "z=1"} {
			p, r := NewPicker(&cfg, 1), &Request{Criteria: asked(text)}
			p.Pick(v, r)
			if n := testing.AllocsPerRun(1000, func() { p.Pick(v, r) }); n != 0 {
				t.Errorf("{%s}: %v allocations per pick", text, n)
			}
		}
	}
}

// A picker remembers searches; what it remembers must not outlive the view, nor be
// taken for that of other criteria.
func TestSearchesAmongSubsetsAreRememberedForOneView(t *testing.T) {
	s := keys("v", "stage v")
	s[1].Fallback, s[1].FallbackKeys = resource.SubsetKeys, []string{"v"}
	cfg := resource.LoadBalancing{Subsets: &resource.Subsets{Selectors: s}}
	cluster := &resource.Cluster{LB: cfg}
	c, p := NewCluster(cluster), NewPicker(&cfg, 1)
	var list []*Criteria
	for i := range 9 { // more than it remembers
		list = append(list, asked(fmt.Sprintf("stage=prod v=%d", i)))
	}
	for round := range 4 {
		labels := make([]string, len(list))
		for i := range labels {
			labels[i] = fmt.Sprintf("v=%d", (i+round)%(len(list)+1)) // one version has no endpoint
		}
		c.Update(cluster, labelled(labels...))
		for _, step := range []int{-1, 1} { // begins with what the view before had last
			for k := range list {
				i := (k*step + len(list)) % len(list)
				for range 2 {
					h := p.Pick(c.View(), &Request{Criteria: list[i]})
					at := slices.Index(labels, fmt.Sprintf("v=%d", i))
					if at < 0 && h != nil || at >= 0 && (h == nil || h != c.View().hosts[at]) {
						t.Fatalf("round %d, version %d: picked %v, want endpoint %d", round, i, h, at)
					}
				}
			}
		}
	}
}

func BenchmarkPickOfSubset(b *testing.B) {
	for _, n := range []int{10, 1000} {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("version=%d stage=prod", i%10))
		}
		a := labelled(list...)
		for i := range a.Localities[0].Endpoints {
			a.Localities[0].Endpoints[i].Address.Host = fmt.Sprintf("10.0.%d.%d", i>>8, i&255)
		}
		s := keys("version", "stage version region")
		s[1].Fallback, s[1].FallbackKeys = resource.SubsetKeys, []string{"version"}
		cfg := resource.LoadBalancing{Policy: resource.RoundRobin, Subsets: &resource.Subsets{Selectors: s, Fallback: resource.SubsetAny}}
		v := NewCluster(&resource.Cluster{Static: a, LB: cfg}).View()
		for name, text := range map[string]string{"selected": "version=3", "fallback": "version=77", "fewer-keys": "version=3 stage=prod region=eu"} {
			b.Run(fmt.Sprintf("%s/hosts=%d", name, n), func(b *testing.B) {
				p, r := NewPicker(&cfg, 1), &Request{Criteria: asked(text)}
				b.ReportAllocs()
				for b.Loop() {
					r.Random += 0x9e3779b97f4a7c15
					p.Pick(v, r)
				}
			})
		}
	}
}
