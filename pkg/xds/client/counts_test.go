// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"
	"time"
	"unique"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// There is one for each cluster with EDS.
func TestCountsOfASubscriptionAreSmall(t *testing.T) {
	if n := unsafe.Sizeof(counts{}); n > 48 {
		t.Errorf("%d bytes", n)
	}
}

func TestASubscriptionCountsWhatIsAboutItsName(t *testing.T) {
	at := time.UnixMilli(1_000)
	s := &source{src: decode.Source{Kind: decode.SourceGRPC}, stream: NewStream(StreamConfig{})}
	step := func(names ...string) { s.stream.Step(Subscribe{Kind: decode.Endpoints, Names: names}) }
	got := func(name string) counts {
		if n := s.stream.types[decode.Endpoints].names[name]; n != nil {
			return *n
		}
		return counts{}
	}
	step("a", "b")
	s.count(&Update{Kind: decode.Endpoints, Received: "v1", Accepted: true, Set: []Item{{Name: "a", Resource: &decode.Resource{}}, {Name: "other"}}}, true, at)
	if want := (counts{accepted: 1, changed: 1, version: unique.Make("v1"), updated: 1_000, reloaded: 1_000}); got("a") != want {
		t.Errorf("a is %+v, want %+v", got("a"), want)
	}
	if s.stream.types[decode.Endpoints].names["b"] != nil || s.stream.types[decode.Endpoints].asks("other") {
		t.Error("b or other has counts, and nothing has come for it")
	}
	// The good one of a response with a bad one is taken, with the response's version.
	s.count(&Update{Kind: decode.Endpoints, Version: "v1", Received: "v2", Set: []Item{{Name: "a"}}, Rejected: []Rejection{{Name: "b"}}}, true, at)
	if n := got("a"); n.accepted != 2 || n.changed != 1 || n.rejected != 0 || n.version != unique.Make("v2") {
		t.Errorf("a is %+v after a response that it was good in", n)
	}
	if n := got("b"); n != (counts{rejected: 1}) {
		t.Errorf("b is %+v", n)
	}
	// What has no name may have been any.
	s.count(&Update{Kind: decode.Endpoints, Received: "v3", Rejected: []Rejection{{Reason: "garbled"}}}, false, at)
	if got("a").rejected != 1 || got("b").rejected != 2 {
		t.Errorf("a %+v, b %+v after a response that could not be read", got("a"), got("b"))
	}
	// It is one response, with however many of those, and with one that has a name.
	s.count(&Update{Kind: decode.Endpoints, Received: "v3", Rejected: []Rejection{{Reason: "garbled"}, {Reason: "garbled, too"}, {Name: "b"}}}, false, at)
	if got("a").rejected != 2 || got("b").rejected != 3 {
		t.Errorf("a %+v, b %+v after a response with three bad ones", got("a"), got("b"))
	}
	s.count(&Update{Kind: decode.Endpoints, Received: "v3", Rejected: []Rejection{{Name: "b"}, {Name: "b", Reason: "is in the response twice"}}}, false, at)
	if got("a").rejected != 2 || got("b").rejected != 4 {
		t.Errorf("a %+v, b %+v after a response with a bad one twice", got("a"), got("b"))
	}
	// An empty response of a stream says nothing.
	s.count(&Update{Kind: decode.Endpoints, Received: "v4", Accepted: true}, false, at)
	if got("a").accepted != 2 {
		t.Errorf("a is %+v after a response that it was not in", got("a"))
	}
	s.count(&Update{Kind: decode.Endpoints, Received: "v5", Accepted: true, Removed: []string{"a"}}, false, at)
	if n := got("a"); n.accepted != 3 || n.empty != 1 {
		t.Errorf("a is %+v after it was removed", n)
	}
	// A later subscription has its own failures; the one before keeps its counts.
	s.stream.Step(Closed{})
	step("a", "c")
	if got("a").since != 0 || got("a").accepted != 3 || got("c") != (counts{since: 1}) || s.stream.types[decode.Endpoints].asks("b") {
		t.Errorf("a %+v, c %+v after a connection was lost", got("a"), got("c"))
	}
	// An empty file says that there is nothing.
	s.src.Kind = decode.SourcePath
	s.count(&Update{Kind: decode.Endpoints, Received: "v6", Accepted: true}, false, at)
	if got("a").empty != 2 || got("c").empty != 1 {
		t.Errorf("a %+v, c %+v after an empty file", got("a"), got("c"))
	}
}

// A wait that is given up counts where it was asked for: once, and not for clusters that
// routes name, which nobody asked for by name.
func TestAFirstResponseThatDoesNotComeIsCounted(t *testing.T) {
	c, s := bare(t)
	s.stream.Step(Subscribe{Kind: decode.Cluster, Wildcard: true})
	s.stream.Step(Subscribe{Kind: decode.Endpoints, Names: []string{"a", "b"}})
	waiting := &decode.Resource{Kind: decode.Cluster, Name: "x", Value: &resource.Cluster{Name: "x", Type: resource.EDS, EDSName: "a"}}
	waiting.Refs = []decode.Ref{{Kind: decode.Endpoints, Name: "a", Source: decode.Source{Kind: decode.SourceADS, InitialFetchTimeout: 15 * time.Second}}}
	c.store.put(&entry{kind: decode.Cluster, name: "x", res: waiting, source: s})
	now := time.Now()
	for _, at := range []time.Duration{0, 16 * time.Second, 17 * time.Second} {
		c.asm.round(now.Add(at), c)
		c.asm.expired = append(c.asm.expired, need{decode.Cluster, "named"})
		c.countExpired()
	}
	of := &s.stream.types
	if n := of[decode.Cluster].all.timeouts; n != 1 {
		t.Errorf("%d of clusters", n)
	}
	if n := of[decode.Endpoints].names["a"]; n == nil || n.timeouts != 1 || of[decode.Endpoints].names["b"] != nil {
		t.Errorf("%+v of endpoints, %+v of others", n, of[decode.Endpoints].names["b"])
	}
}
