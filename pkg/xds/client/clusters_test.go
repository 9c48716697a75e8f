// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// randomUpdates are responses for a client, resource by resource.
type randomUpdates struct {
	rng     *rand.Rand
	version int
}

func (r *randomUpdates) name() string { return fmt.Sprintf("c%d", r.rng.IntN(8)) }

func (r *randomUpdates) refs(kind decode.Kind) (refs []decode.Ref, names []string) {
	for range r.rng.IntN(4) {
		names = append(names, r.name())
		refs = append(refs, decode.Ref{Kind: kind, Name: names[len(names)-1]})
	}
	return refs, names
}

func (r *randomUpdates) cluster(name string) *decode.Resource {
	ads := decode.Source{Kind: decode.SourceADS, InitialFetchTimeout: 15 * time.Second}
	if r.rng.IntN(4) == 0 {
		ads.Kind = decode.SourceSelf
	}
	c := &resource.Cluster{Name: name}
	out := &decode.Resource{Kind: decode.Cluster, Name: name, Value: c}
	switch r.rng.IntN(6) {
	case 0:
		c.Static = &resource.Assignment{Cluster: name}
	case 1:
		c.Type = resource.Aggregate
		out.Refs, c.Members = r.refs(decode.Cluster)
	case 2:
		c.Type, c.EDSName = resource.EDS, fmt.Sprintf("shared%d", r.rng.IntN(2))
	default:
		c.Type, c.EDSName = resource.EDS, name
	}
	if c.Type != resource.Aggregate && r.rng.IntN(3) == 0 {
		refs, _ := r.refs(decode.Cluster)
		out.Refs = append(out.Refs, refs...) // of a fallback
	}
	if c.EDSName != "" {
		out.Refs = append(out.Refs, decode.Ref{Kind: decode.Endpoints, Name: c.EDSName, Source: ads})
	}
	if r.rng.IntN(6) == 0 {
		out.Refs = append(out.Refs, decode.Ref{Kind: decode.Secret, Name: "secret", Source: ads})
	}
	return out
}

// next is an update that s may have: of endpoints only those that are subscribed to.
func (r *randomUpdates) next(s *source) *Update {
	r.version++
	u := &Update{Version: fmt.Sprint(r.version), Accepted: true}
	set := func(res *decode.Resource) {
		u.Set = append(u.Set, Item{Name: res.Name, Version: u.Version, Resource: res})
	}
	switch r.rng.IntN(6) {
	case 0, 1:
		u.Kind = decode.Endpoints
		for _, name := range slices.Sorted(maps.Keys(s.stream.types[decode.Endpoints].names)) {
			if r.rng.IntN(3) == 0 {
				set(&decode.Resource{Kind: u.Kind, Name: name, Value: &resource.Assignment{Cluster: name}})
			}
		}
	case 2:
		u.Kind = decode.Route
		res := &decode.Resource{Kind: u.Kind, Name: "r", Value: &resource.RouteConfig{Name: "r"}}
		res.Refs, _ = r.refs(decode.Cluster)
		set(res)
	case 3:
		u.Kind = decode.Secret
		if s.stream.types[decode.Secret].asks("secret") {
			set(&decode.Resource{Kind: u.Kind, Name: "secret", Value: &resource.Secret{Name: "secret"}})
		}
	default:
		u.Kind, u.Full = decode.Cluster, r.rng.IntN(10) == 0
		taken := map[string]bool{}
		for range r.rng.IntN(4) {
			name := r.name()
			if taken[name] {
				continue
			}
			taken[name] = true
			switch r.rng.IntN(5) {
			case 0:
				u.Removed = append(u.Removed, name)
			case 1:
				u.Set = append(u.Set, Item{Name: name, Version: u.Version}) // the same bytes
			default:
				set(r.cluster(name))
			}
		}
	}
	return u
}

// take does what Run does with an update; all has it look at everything anew.
func (c *Client) take(u *Update, s *source, now time.Time, all bool) {
	everything := func() {
		if !all {
			return
		}
		c.rewant = true
		for _, k := range []decode.Kind{decode.Cluster, decode.Endpoints} {
			if c.store.touched[k] == nil {
				c.store.touched[k] = map[string]bool{}
			}
			for _, set := range []map[string]*entry{c.store.latest[k], c.asm.active[k]} {
				for name := range set {
					c.store.touched[k][name] = true
				}
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if u != nil {
		c.update(u, s, now)
	}
	everything()
	c.subscribe(context.Background())
	everything()
	c.advance(now)
	everything()
	c.subscribe(context.Background())
	s.out.reset()
}

// stateOf is what a client has decided, as text.
func stateOf(c *Client, s *source) string {
	out := ""
	for _, kind := range []decode.Kind{decode.Cluster, decode.Route, decode.Endpoints} {
		for _, name := range slices.Sorted(maps.Keys(c.asm.active[kind])) {
			e := c.asm.active[kind][name]
			out += fmt.Sprintf("%s %s: %p version %s\n", kind, name, e.res, e.version)
		}
	}
	for _, kind := range []decode.Kind{decode.Endpoints, decode.Secret} {
		out += fmt.Sprintln("subscribed", kind, slices.Sorted(maps.Keys(s.stream.types[kind].names)), "held", slices.Sorted(maps.Keys(c.store.latest[kind])))
	}
	if c.snapshot == nil {
		out += "no snapshot\n"
	} else {
		for _, name := range slices.Sorted(maps.Keys(c.snapshot.Clusters)) {
			out += fmt.Sprintf("snapshot %s %p with %+v\n", name, c.snapshot.Clusters[name], c.snapshot.Assignments[name])
		}
		out += fmt.Sprintln(len(c.snapshot.Assignments), "assignments, version", c.snapshot.Version)
	}
	out += fmt.Sprintln("held", c.asm.held, "next", c.asm.next, "gone", c.asm.gone, "empty", slices.Sorted(maps.Keys(c.asm.empty)))
	for n, w := range c.asm.waits {
		w.mark = 0
		c.asm.waits[n] = w
	}
	return out + fmt.Sprintln("waits", c.asm.waits, "users", c.asm.users)
}

func TestARoundOfWhatWasTouchedDecidesAsOneOfAll(t *testing.T) {
	for seed := range uint64(150) {
		r := &randomUpdates{rng: rand.New(rand.NewPCG(seed, 1))}
		some, from := bare(t)
		all, fromAll := bare(t)
		now := some.bootTime
		all.bootTime = now
		listener := &Update{Kind: decode.Listener, Version: "0", Accepted: true, Set: []Item{{Name: "l", Version: "0", Resource: &decode.Resource{
			Kind: decode.Listener, Name: "l", Value: &resource.Listener{Name: "l"},
			Refs: []decode.Ref{{Kind: decode.Route, Name: "r", Source: decode.Source{Kind: decode.SourceADS}}},
		}}}}
		some.take(listener, from, now, false)
		all.take(listener, fromAll, now, true)
		for _, s := range []*source{from, fromAll} {
			s.stream.types[decode.Cluster].answered = true
		}
		for step := range 80 {
			var u *Update
			now = now.Add(time.Duration(r.rng.IntN(5000)) * time.Millisecond)
			if r.rng.IntN(6) > 0 { // else only time passes
				u = r.next(from)
			}
			before := some.snapshot
			some.take(u, from, now, false)
			all.take(u, fromAll, now, true)
			if got, want := stateOf(some, from), stateOf(all, fromAll); got != want {
				t.Fatalf("seed %d, step %d, after %+v:\n%s\nbut of all:\n%s", seed, step, u, got, want)
			}
			if after := some.snapshot; before != nil && after != before {
				var want []string
				for name, c := range after.Clusters {
					if before.Clusters[name] != c || before.Assignments[name] != after.Assignments[name] {
						want = append(want, name)
					}
				}
				for name := range before.Clusters {
					if after.Clusters[name] == nil {
						want = append(want, name)
					}
				}
				slices.Sort(want)
				if got := after.Changes; got.Since != before.Version || !slices.Equal(got.Clusters, want) {
					t.Fatalf("seed %d, step %d: says %+v, changed %q", seed, step, got, want)
				}
			}
		}
	}
}
