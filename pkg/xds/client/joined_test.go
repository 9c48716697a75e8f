// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// naming scripts what a server sends of clusters that name others.
type naming struct {
	t    *testing.T
	c    *Client
	from *source
	now  time.Time
}

func newNaming(t *testing.T) *naming {
	c, from := bare(t)
	from.stream.types[decode.Cluster].answered = true
	return &naming{t, c, from, c.bootTime}
}

// clusters sends clusters: "a" has endpoints of its own, "a=" has them by EDS, "a=>b" falls
// back to b, "g:a,b" is an aggregate, "-a" is gone.
func (n *naming) clusters(list ...string) {
	u := &Update{Kind: decode.Cluster, Version: "1", Accepted: true}
	for _, text := range list {
		if name, gone := strings.CutPrefix(text, "-"); gone {
			u.Removed = append(u.Removed, name)
			continue
		}
		text, fallback, _ := strings.Cut(text, ">")
		name, eds := strings.CutSuffix(text, "=")
		name, members, aggregate := strings.Cut(name, ":")
		c := &resource.Cluster{Name: name, Static: &resource.Assignment{Cluster: name}}
		r := &decode.Resource{Kind: decode.Cluster, Name: name, Value: c}
		switch {
		case aggregate:
			c.Type, c.Members = resource.Aggregate, strings.Split(members, ",")
			for _, m := range c.Members {
				r.Refs = append(r.Refs, decode.Ref{Kind: decode.Cluster, Name: m})
			}
		case eds:
			c.Type, c.EDSName, c.Static = resource.EDS, name, nil
			r.Refs = append(r.Refs, decode.Ref{Kind: decode.Endpoints, Name: name, Source: decode.Source{Kind: decode.SourceADS, InitialFetchTimeout: time.Minute}})
		}
		if fallback != "" {
			c.Fallback = &resource.Fallback{Cluster: fallback}
			r.Refs = append(r.Refs, decode.Ref{Kind: decode.Cluster, Name: fallback})
		}
		u.Set = append(u.Set, Item{Name: name, Version: u.Version, Resource: r})
	}
	n.c.take(u, n.from, n.now, false)
}

func (n *naming) endpoints(cluster string) {
	n.c.take(&Update{Kind: decode.Endpoints, Version: "1", Accepted: true, Set: []Item{{Name: cluster, Version: "1", Resource: &decode.Resource{
		Kind: decode.Endpoints, Name: cluster, Value: &resource.Assignment{Cluster: cluster},
	}}}}, n.from, n.now, false)
}

// later lets time pass.
func (n *naming) later(d time.Duration) {
	n.now = n.now.Add(d)
	n.c.take(nil, n.from, n.now, false)
}

// inUse checks which clusters are in use, with the clusters that they fall back to, and
// whether the latest version of all is.
func (n *naming) inUse(want string, settled bool) {
	n.t.Helper()
	var got []string
	for _, name := range slices.Sorted(maps.Keys(n.c.asm.active[decode.Cluster])) {
		if f := n.c.asm.active[decode.Cluster][name].res.Value.(*resource.Cluster).Fallback; f != nil {
			name += ">" + f.Cluster
		}
		got = append(got, name)
	}
	if text := strings.Join(got, " "); text != want || (n.c.asm.held == 0) != settled {
		n.t.Errorf("%q is in use, and %d are held; want %q", text, n.c.asm.held, want)
	}
}

func TestAClusterComesIntoUseWithThatOfItsFallback(t *testing.T) {
	for _, tt := range []struct {
		name        string
		clusters    []string
		without     string // before the endpoints of z have come
		with, never string // after, and if they do not come
	}{
		{"one", []string{"a>z", "b", "z="}, "b", "a>z b z", "a>z b"},
		{"that has a fallback as well", []string{"a>b", "b>z", "c", "z="}, "c", "a>b b>z c z", "a>b b>z c"},
		{"each other's", []string{"a>z", "b>a", "z=>b"}, "", "a>z b>a z>b", "a>z b>a"},
		{"one that waits itself", []string{"a=>b", "b", "z="}, "b", "b z", "b"},
		{"an aggregate", []string{"a>g", "b", "g:b,z", "z="}, "b", "a>g b g z", "a>g b g"},
		{"an aggregate of itself", []string{"a>g", "b>z", "g:a,b", "z="}, "", "a>g b>z g z", "a>g b>z g"},
		{"a member's", []string{"b>z", "g:b", "z="}, "", "b>z g z", "b>z g"},
		{"a cluster that never comes", []string{"a>n", "b>a", "z="}, "", "z", "a>n b>a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNaming(t)
			n.clusters(tt.clusters...)
			n.inUse(tt.without, false)
			n.endpoints("z")
			n.inUse(tt.with, !strings.Contains(tt.name, "never") && !strings.Contains(tt.name, "waits"))

			n = newNaming(t)
			n.clusters(tt.clusters...)
			n.later(defaultHold - time.Second)
			n.inUse(tt.without, false)
			n.later(time.Second)
			n.inUse(tt.never, false) // z waits for its endpoints, longer
		})
	}
}

func TestClustersThatFallBackToEachOtherNeedNotWait(t *testing.T) {
	n := newNaming(t)
	n.clusters("a>b", "b>c", "c>a", "d>g", "g:d")
	n.inUse("a>b b>c c>a d>g g", true)
}

func TestTheVersionBeforeStaysWhileTheFallbacksClusterIsAwaited(t *testing.T) {
	n := newNaming(t)
	n.clusters("a", "b>a")
	n.clusters("a>z", "b>a", "c>a")
	n.inUse("a b>a c>a", false) // who names a has what it names
	n.clusters("z=")
	n.inUse("a b>a c>a", false)
	n.endpoints("z")
	n.inUse("a>z b>a c>a z", true)
}

func TestAClusterThatAFallbackNamesIsKeptForATime(t *testing.T) {
	n := newNaming(t)
	n.clusters("a>z", "b", "z")
	n.clusters("-z")
	n.inUse("a>z b z", true)
	n.later(defaultHold - time.Second)
	n.inUse("a>z b z", true)
	n.later(time.Second)
	n.inUse("a>z b", true)

	n = newNaming(t)
	n.clusters("a>z", "b", "z")
	n.clusters("-z", "a")
	n.inUse("a b", true)

	n = newNaming(t)
	n.clusters("a>z", "b", "z")
	n.clusters("-z")
	n.later(time.Second)
	n.clusters("a>b") // it was what z was kept for
	n.inUse("a>b b", true)
}

// The time for a chain grows with its length, and not with its square: that would be minutes
// here, in each round.
func TestALongChainOfFallbacksIsFollowedOnce(t *testing.T) {
	n := newNaming(t)
	const length = 60_000
	list := make([]string, length)
	for i := range list {
		list[i] = fmt.Sprintf("c%06d>c%06d", i, i+1) // the last one names nobody that is there
	}
	done := make(chan struct{})
	go func() { // ends with the rounds
		defer close(done)
		n.clusters(list...)
		n.inUse("", false)
		n.clusters(fmt.Sprintf("c%06d", length))
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it takes more than 30 s")
	}
	if got := len(n.c.asm.active[decode.Cluster]); got != length+1 || n.c.asm.held != 0 {
		t.Errorf("%d clusters are in use, %d are held", got, n.c.asm.held)
	}
}
