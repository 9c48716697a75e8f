// SPDX-License-Identifier: Apache-2.0

package dnscluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/dns"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// rig is a set with a clock of its own.
type rig struct {
	t    *testing.T
	set  *set
	now  time.Time
	draw float64
	open map[string]*name // lookups under way
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: time.Unix(1000, 0), draw: 0.5, open: map[string]*name{}}
	r.set = newSet(func() float64 { return r.draw })
	return r
}

// want sets the clusters and begins what is due.
func (r *rig) want(list ...*resource.Cluster) {
	r.set.want(list, r.now)
	r.begin()
}

func (r *rig) begin() (began []string) {
	for _, n := range r.set.begin(r.now) {
		r.open[n.text] = n
		began = append(began, n.text)
	}
	return began
}

// answer ends a lookup: with addresses, or with an error.
func (r *rig) answer(text string, ttl time.Duration, err error, list ...string) {
	r.t.Helper()
	n := r.open[text]
	if n == nil {
		r.t.Fatalf("%s is not being looked up", text)
	}
	delete(r.open, text)
	a := dns.Answer{TTL: ttl}
	for _, s := range list {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(s))
	}
	r.set.done(n, a, err, r.now)
}

// pause is how long there is nothing to do; it passes.
func (r *rig) pause() time.Duration {
	r.t.Helper()
	at, ok := r.set.next()
	if !ok {
		r.t.Fatal("nothing will be looked up again")
	}
	d := at.Sub(r.now)
	r.now = at
	r.begin()
	return d
}

// published are the addresses that were handed over since the last time; nil: nothing.
func (r *rig) published(key string) []string {
	a := r.set.take()[key]
	if a == nil {
		return nil
	}
	out := []string{}
	for _, l := range a.Localities {
		for _, e := range l.Endpoints {
			out = append(out, fmt.Sprintf("%s %s:%d", e.Hostname, e.Address.Host, e.Address.Port))
		}
	}
	return out
}

func (r *rig) expect(key string, want ...string) {
	r.t.Helper()
	if got := r.published(key); !slices.Equal(got, want) || (got == nil) != (want == nil) {
		r.t.Errorf("published %q, want %q", got, want)
	}
}

func cluster1(kind resource.ClusterType, names ...string) *resource.Cluster {
	a := &resource.Assignment{Cluster: "c", Localities: []resource.Locality{{}}}
	for _, n := range names {
		a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, resource.Endpoint{Address: resource.Address{Host: n, Port: 80}, Weight: 1})
	}
	return &resource.Cluster{Name: "c", Type: kind, DNS: &resource.DNSLookup{
		Key: "k", Names: a, Refresh: 5 * time.Second, MinRefresh: time.Second,
	}}
}

var errServer = errors.New("answers ServerFailure")

func TestAllAddressesOfANameAreEndpoints(t *testing.T) {
	r := newRig(t)
	c := cluster1(resource.StrictDNS, "x.test", "10.9.9.9")
	c.DNS.Names.Localities[0].Endpoints[1].Hostname = "fixed"
	r.want(c)
	r.expect("k")
	r.answer("x.test", 0, nil, "10.0.0.2", "10.0.0.1")
	r.expect("k", "x.test 10.0.0.1:80", "x.test 10.0.0.2:80", "fixed 10.9.9.9:80")
	if d := r.pause(); d != 5*time.Second {
		t.Errorf("looked up again after %s", d)
	}
	r.answer("x.test", 0, nil, "10.0.0.1", "10.0.0.2") // the resolver rotates its answers
	r.expect("k")
	r.pause()
	r.answer("x.test", 0, nil, "10.0.0.3")
	r.expect("k", "x.test 10.0.0.3:80", "fixed 10.9.9.9:80")
	if got, want := *r.set.counts["c"], (Counts{Attempt: 3, Success: 3, NoRebuild: 1}); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
}

func TestWithoutAnAnswerTheLastAddressesStay(t *testing.T) {
	r := newRig(t)
	c := cluster1(resource.StrictDNS, "x.test")
	c.DNS.FailureBase, c.DNS.FailureMax = time.Second, 3*time.Second
	r.want(c)
	r.answer("x.test", 0, nil, "10.0.0.1")
	r.expect("k", "x.test 10.0.0.1:80")
	r.pause()
	for _, want := range []time.Duration{500, 1000, 1500, 1500} { // half of what it grows to
		r.answer("x.test", 0, errServer)
		r.expect("k")
		if d := r.pause(); d != want*time.Millisecond {
			t.Errorf("pause of %s after a failure, want %s", d, want*time.Millisecond)
		}
	}
	r.answer("x.test", 0, nil, "10.0.0.1")
	if d := r.pause(); d != 5*time.Second {
		t.Errorf("pause of %s after a success", d)
	}
	if got, want := *r.set.counts["c"], (Counts{Attempt: 7, Success: 2, Failure: 4, NoRebuild: 1}); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
}

func TestANameThatEndsHasNoEndpoints(t *testing.T) {
	r := newRig(t)
	r.want(cluster1(resource.StrictDNS, "x.test"))
	r.answer("x.test", 0, nil, "10.0.0.1")
	r.expect("k", "x.test 10.0.0.1:80")
	r.pause()
	r.answer("x.test", 0, fmt.Errorf("x.test: %w", dns.ErrNone))
	r.expect("k", []string{}...)
	if got := r.set.counts["c"]; got.Success != 2 || got.Empty != 1 || got.Failure != 0 {
		t.Errorf("counts %+v", *got)
	}
}

func TestALogicalClusterHasTheFirstAddressAndKeepsTheLast(t *testing.T) {
	r := newRig(t)
	r.want(cluster1(resource.LogicalDNS, "x.test"))
	r.answer("x.test", 0, nil, "10.0.0.2", "10.0.0.1")
	r.expect("k", "x.test 10.0.0.2:80")
	r.pause()
	r.answer("x.test", 0, dns.ErrNone)
	r.expect("k")
	if got := r.set.counts["c"]; got.Failure != 1 || got.Success != 1 {
		t.Errorf("counts %+v: no address is a failure", *got)
	}
	r.pause()
	r.answer("x.test", 0, nil, "10.0.0.1", "10.0.0.2")
	r.expect("k", "x.test 10.0.0.1:80")
}

func TestAClusterStartsWithTheFirstAddressesOrWhenThereAreNone(t *testing.T) {
	r := newRig(t)
	r.want(cluster1(resource.StrictDNS, "a.test", "b.test", "c.test"))
	r.answer("a.test", 0, errServer)
	r.expect("k")
	r.answer("b.test", 0, nil, "10.0.0.1")
	r.expect("k", "b.test 10.0.0.1:80")
	r.answer("c.test", 0, nil, "10.0.0.2")
	r.expect("k", "b.test 10.0.0.1:80", "c.test 10.0.0.2:80")

	r = newRig(t)
	r.want(cluster1(resource.StrictDNS, "a.test"))
	r.answer("a.test", 0, errServer)
	if got := r.published("k"); got == nil || len(got) != 0 {
		t.Errorf("after the only lookup has failed: %v, want an assignment without endpoints", got)
	}

	r = newRig(t)
	c := cluster1(resource.StrictDNS, "a.test")
	c.DNS.StartsWithout = true
	r.want(c)
	if got := r.published("k"); got == nil || len(got) != 0 {
		t.Errorf("of a cluster that does not wait: %v, want an assignment without endpoints", got)
	}
}

func TestTTLsAreRespectedWithinBounds(t *testing.T) {
	for _, tt := range []struct{ ttl, want time.Duration }{
		{30 * time.Second, 30 * time.Second}, {0, 5 * time.Second}, {time.Millisecond, time.Second}, {1e6 * time.Second, mostTTL},
	} {
		r := newRig(t)
		c := cluster1(resource.StrictDNS, "x.test")
		c.DNS.RespectTTL, c.DNS.Jitter = true, 2*time.Second
		r.want(c)
		r.answer("x.test", tt.ttl, nil, "10.0.0.1")
		if d := r.pause(); d != tt.want+time.Second {
			t.Errorf("TTL %s: looked up after %s, want %s and half of the jitter", tt.ttl, d, tt.want)
		}
	}
}

func TestThousandsOfNamesAreNotAskedForAtOnce(t *testing.T) {
	r := newRig(t)
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("n%d.test", i))
	}
	other := cluster1(resource.StrictDNS, "other.test")
	other.Name, other.DNS.Key, other.DNS.Resolvers = "o", "o", []netip.AddrPort{netip.MustParseAddrPort("10.0.0.9:53")}
	many := cluster1(resource.StrictDNS, names...)
	r.want(many, other)
	if len(r.open) != lookupsAtATime+1 || r.open["other.test"] == nil {
		t.Fatalf("%d lookups under way, the other resolver's is among them: %t", len(r.open), r.open["other.test"] != nil)
	}
	for n := range 1000 {
		for text := range r.open {
			if text != "other.test" {
				r.answer(text, 0, nil, "10.0.0.1")
				break
			}
		}
		r.begin()
		if len(r.open) > lookupsAtATime+1 {
			t.Fatalf("after %d answers %d lookups are under way", n+1, len(r.open))
		}
	}
	if got := r.set.counts["c"].Success; got != 1000 {
		t.Errorf("%d names were looked up", got)
	}
}

func TestWhatIsNoLongerWantedEnds(t *testing.T) {
	r := newRig(t)
	a, b := cluster1(resource.StrictDNS, "a.test"), cluster1(resource.StrictDNS, "b.test")
	b.DNS.Key = "k2" // a newer version of the same cluster
	r.want(a)
	ended := false
	r.open["a.test"].cancel = func() { ended = true }
	r.want(a, b)
	r.want(b)
	if !ended {
		t.Error("the lookup goes on")
	}
	r.answer("a.test", 0, nil, "10.0.0.1")
	r.expect("k")
	r.answer("b.test", 0, nil, "10.0.0.2")
	r.expect("k2", "b.test 10.0.0.2:80")
	r.want()
	if _, more := r.set.next(); more || len(r.set.counts)+len(r.set.groups)+len(r.set.clusters) != 0 {
		t.Errorf("something is left of clusters that went: %+v", r.set)
	}
}
