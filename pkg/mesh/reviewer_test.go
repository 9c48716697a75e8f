// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// arbitrary makes objects of few names, so that many of them are in conflict.
type arbitrary struct{ *rand.Rand }

func (r arbitrary) one(of ...string) string { return of[r.IntN(len(of))] }

func (r arbitrary) maybe() bool { return r.IntN(2) == 0 }

func (r arbitrary) service() string { return r.one("a", "b", "c", "d", "nowhere") }

func (r arbitrary) header(kind string, at int) Header {
	h := Header{Kind: kind, Metadata: Metadata{Name: fmt.Sprintf("%s%d", r.one("m", "z", "k"), at)}}
	h.Metadata.CreatedAt = time.Unix(int64(r.IntN(6)), 0) // some are of the same age
	return h
}

func some[T any](r arbitrary, most int, make func() T) []T {
	out := []T{}
	for range 1 + r.IntN(most) {
		out = append(out, make())
	}
	return out
}

func (r arbitrary) parents() []ParentRef {
	return some(r, 2, func() ParentRef {
		return ParentRef{Name: r.service(), Port: []uint16{0, 0, 80, 81}[r.IntN(4)]}
	})
}

func (r arbitrary) names() []string {
	if r.maybe() {
		return nil
	}
	list := some(r, 2, func() string { return r.one("x.example", "y.example", "a") })
	slices.Sort(list)
	return slices.Compact(list)
}

func (r arbitrary) labels() map[string]string {
	if r.maybe() {
		return nil
	}
	return map[string]string{r.one("version", "stage"): r.one("v1", "v2", "v3")}
}

func (r arbitrary) headers() []ValueMatch {
	if r.IntN(3) > 0 {
		return nil
	}
	return []ValueMatch{{Name: "x", Value: r.one("1", "2")}}
}

func (r arbitrary) object(at int) Object {
	switch r.IntN(8) {
	case 0, 1:
		o := &HTTPRoute{Header: r.header(KindHTTPRoute, at), Spec: HTTPRouteSpec{ParentRefs: r.parents(), Hostnames: r.names()}}
		o.Spec.Rules = some(r, 3, func() HTTPRule {
			rule := HTTPRule{BackendRefs: some(r, 2, func() HTTPBackendRef { return HTTPBackendRef{Name: r.service(), Labels: r.labels()} })}
			if r.maybe() {
				rule.Matches = some(r, 2, func() HTTPMatch {
					return HTTPMatch{Path: &PathMatch{Type: MatchPathPrefix, Value: r.one("/", "/p", "/q")}, Headers: r.headers()}
				})
			}
			if r.IntN(4) == 0 {
				rule.Retry = &HTTPRetry{Attempts: new(uint32)}
			}
			return rule
		})
		return o
	case 2:
		o := &GRPCRoute{Header: r.header(KindGRPCRoute, at), Spec: GRPCRouteSpec{ParentRefs: r.parents(), Hostnames: r.names()}}
		o.Spec.Rules = some(r, 3, func() GRPCRule {
			rule := GRPCRule{BackendRefs: some(r, 2, func() GRPCBackendRef { return GRPCBackendRef{Name: r.service(), Labels: r.labels()} })}
			if r.maybe() {
				rule.Matches = []GRPCMatch{{Method: &GRPCMethodMatch{Service: r.one("S", "T")}, Headers: r.headers()}}
			}
			return rule
		})
		return o
	case 3:
		o := &TLSRoute{Header: r.header(KindTLSRoute, at), Spec: TLSRouteSpec{ParentRefs: r.parents(), Hostnames: r.names()}}
		o.Spec.Rules = []StreamRule{{BackendRefs: []StreamBackendRef{{Name: r.service()}}}}
		return o
	case 4:
		o := &TCPRoute{Header: r.header(KindTCPRoute, at), Spec: TCPRouteSpec{ParentRefs: r.parents()}}
		o.Spec.Rules = []StreamRule{{BackendRefs: []StreamBackendRef{{Name: r.service()}}}}
		return o
	case 5:
		o := &Telemetry{Header: r.header(KindTelemetry, at)}
		if r.maybe() {
			o.Spec.TargetRef = &TargetRef{Kind: "Service", Name: r.service()}
		}
		return o
	}
	o := &TrafficPolicy{Header: r.header(KindTrafficPolicy, at)}
	o.Spec.TargetRef.Name = r.service()
	if r.maybe() {
		o.Spec.Subsets = &Subsets{Selectors: []SubsetSelector{{Keys: []string{r.one("version", "stage")}, FallbackPolicy: r.one("", SubsetAnyEndpoint)}}, DefaultSubset: r.labels()}
	}
	if r.maybe() {
		o.Spec.SessionPersistence = &SessionPersistence{}
	}
	if r.maybe() {
		o.Spec.Hedging = &Hedging{}
	}
	return o
}

func (r arbitrary) model() *Model {
	var changes []Change
	for _, name := range []string{"a", "b", "c"} {
		s := &Service{Header: Header{Kind: KindService, Metadata: Metadata{Name: name}}}
		for _, port := range []uint16{80, 81} {
			if r.maybe() {
				s.Spec.Ports = append(s.Spec.Ports, Port{Port: port, Protocol: r.one("", ProtocolHTTP, ProtocolGRPC, ProtocolTCP, ProtocolTLS)})
			}
		}
		changes = append(changes, Change{Put: s})
		for id := range r.IntN(3) {
			changes = append(changes, Change{PutInstance: &Instance{Service: name, ID: fmt.Sprint(id), Version: r.one("", "v1", "v2"), Metadata: r.labels()}})
		}
	}
	for at := range 2 + r.IntN(40) {
		changes = append(changes, Change{Put: r.object(at)})
	}
	return Empty().Apply(changes...)
}

func all(m *Model) []Object {
	var out []Object
	for _, kind := range slices.Sorted(maps.Keys(m.Objects)) {
		for _, name := range slices.Sorted(maps.Keys(m.Objects[kind])) {
			out = append(out, m.Objects[kind][name])
		}
	}
	return out
}

// staleOf is an object that a route of HTTP may have replaced, or nil.
func staleOf(m *Model, o Object) Object {
	r, ok := o.(*HTTPRoute)
	if !ok {
		return nil
	}
	for _, other := range all(m) {
		if other, ok := other.(*HTTPRoute); ok && other != r {
			return &HTTPRoute{Header: r.Header, Spec: other.Spec}
		}
	}
	return nil
}

func TestAReviewWithIndexesFindsWhatOneWithoutDoes(t *testing.T) {
	reasons := map[string]int{}
	for seed := range uint64(1000) {
		m := arbitrary{rand.New(rand.NewPCG(seed, 1))}.model()
		x := NewReviewer(m)
		for _, o := range all(m) {
			got, want := x.Review(o), simplyReviewed(m, o)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, %s:\ngot  %+v\nwant %+v", seed, o.Key(), got, want)
			}
			if once := Review(m, o); !reflect.DeepEqual(once, want) {
				t.Fatalf("seed %d, %s alone:\ngot  %+v\nwant %+v", seed, o.Key(), once, want)
			}
			if stale := staleOf(m, o); stale != nil { // an event may be of a version that has been replaced
				if got, want := x.Review(stale), simplyReviewed(m, stale); !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d, %s as it was:\ngot  %+v\nwant %+v", seed, o.Key(), got, want)
				}
			}
			for _, c := range got.Conditions {
				reasons[c.Type+"="+c.Reason]++
			}
		}
	}
	// The models are worth the comparison: each finding that there is comes up.
	for _, reason := range []string{
		"Accepted=Conflicted", "Accepted=NoMatchingParent", "Conflicted=PortTaken", "Conflicted=MatchShadowed", "Conflicted=HostnameTaken",
		"Conflicted=Contested", "Conflicted=NoSessions", "Conflicted=NotHedged", "ResolvedRefs=BackendNotFound", "ResolvedRefs=PortNotFound",
		"ResolvedRefs=UnsupportedProtocol", "ResolvedRefs=" + ReasonNoSuchLabels,
	} {
		if reasons[reason] < 20 {
			t.Errorf("%s came up %d times: %v", reason, reasons[reason], reasons)
		}
	}
}

func TestAReviewerIsSharedByGoroutines(t *testing.T) {
	m := arbitrary{rand.New(rand.NewPCG(1, 2))}.model()
	x := NewReviewer(m)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, o := range all(m) {
				x.Review(o)
			}
		})
	}
	wg.Wait()
}

// shapes are what a mesh of n routes may look like.
var shapes = []struct {
	name string
	make func(n int) Object
}{
	{"each of a service", func(n int) Object { return numbered(n, fmt.Sprint("s", n), "/") }},
	{"all of one service", func(n int) Object { return numbered(n, "s", fmt.Sprint("/", n)) }},
	{"all the same", func(n int) Object { return numbered(n, "s", "/") }},
	{"all of one server name", func(n int) Object {
		return &TLSRoute{Header: headerOf(KindTLSRoute, n), Spec: TLSRouteSpec{ParentRefs: []ParentRef{{Name: "s"}}, Hostnames: []string{"x.example"}, Rules: []StreamRule{{BackendRefs: []StreamBackendRef{{Name: "s"}}}}}}
	}},
	{"policies", func(n int) Object {
		p := &TrafficPolicy{Header: headerOf(KindTrafficPolicy, n)}
		p.Spec.TargetRef.Name = "s"
		return p
	}},
}

func headerOf(kind string, n int) Header {
	return Header{Kind: kind, Metadata: Metadata{Name: fmt.Sprintf("o%d", n), CreatedAt: time.Unix(int64(n), 0)}}
}

func numbered(n int, service, path string) *HTTPRoute {
	return &HTTPRoute{Header: headerOf(KindHTTPRoute, n), Spec: HTTPRouteSpec{
		ParentRefs: []ParentRef{{Name: service}},
		Rules: []HTTPRule{{
			Matches:     []HTTPMatch{{Path: &PathMatch{Type: MatchPathPrefix, Value: path}}},
			BackendRefs: []HTTPBackendRef{{Name: service, Labels: map[string]string{"version": "v1"}}},
		}},
	}}
}

func shaped(make func(n int) Object, n int) *Model {
	var changes []Change
	for i := range n {
		o := make(i)
		changes = append(changes, Change{Put: o}, Change{PutInstance: &Instance{Service: Concerns(o)[0], ID: fmt.Sprint(i % 10), Version: "v1"}})
	}
	return Empty().Apply(changes...)
}

// TestAReviewOfAllObjectsIsNotQuadratic counts the bytes that are allocated, which grow with
// the objects that are listed and hardly depend on the machine.
func TestAReviewOfAllObjectsIsNotQuadratic(t *testing.T) {
	for _, shape := range shapes {
		cost := func(n int) uint64 {
			m := shaped(shape.make, n)
			objects := all(m)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			x := NewReviewer(m)
			for _, o := range objects {
				x.Review(o)
			}
			runtime.ReadMemStats(&after)
			return after.TotalAlloc - before.TotalAlloc
		}
		if few, many := cost(100), cost(1600); many > 40*few { // of 16 times as many; squared it is 256 times
			t.Errorf("%s: %d bytes for 1600 objects, %d for 100", shape.name, many, few)
		}
	}
}

func BenchmarkReviewOfAllObjects(b *testing.B) {
	for _, shape := range shapes {
		for _, n := range []int{100, 1000, 10000} {
			m := shaped(shape.make, n)
			objects := all(m)
			name := fmt.Sprintf("%s/%d", strings.ReplaceAll(shape.name, " ", "-"), n)
			b.Run("indexed/"+name, func(b *testing.B) {
				for b.Loop() {
					x := NewReviewer(m)
					for _, o := range objects {
						x.Review(o)
					}
				}
			})
			if n > 1000 {
				continue // it takes minutes
			}
			b.Run("simple/"+name, func(b *testing.B) {
				for b.Loop() {
					for _, o := range objects {
						simplyReviewed(m, o)
					}
				}
			})
		}
	}
}
