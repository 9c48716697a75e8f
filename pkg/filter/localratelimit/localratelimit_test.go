// SPDX-License-Identifier: Apache-2.0

package localratelimit

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// rig is the filter on one worker, with one exchange at a time.
type rig struct {
	t    testing.TB
	spec filter.Spec
	f    *rateFilter
	x    *filter.Exchange
}

// editor writes constants.
type editor struct{ x *filter.Exchange }

func (e editor) AddRequestHeaders(list []resource.HeaderOption) {
	for _, o := range list {
		v, _ := o.Value.Constant()
		e.x.Request.AddString(o.Name, v)
	}
}

func (e editor) AddResponseHeaders(list []resource.HeaderOption) {
	for _, o := range list {
		v, _ := o.Value.Constant()
		e.x.Response.AddString(o.Name, v)
	}
}

func (e editor) AppendFormat(dst []byte, f *resource.Format) []byte {
	v, _ := f.Constant()
	return append(dst, v...)
}

var whole = resource.Percent{PerMillion: 1_000_000, Denominator: 100}

// limit is a bucket of n that fills by one an hour, in force.
func limit(n uint32) *resource.LocalRateLimit {
	return &resource.LocalRateLimit{
		StatPrefix: "rl", Status: 429, Enabled: whole, Enforced: whole, AlwaysDefault: true, MaxDynamic: 20,
		Bucket: bucket(n),
	}
}

func bucket(n uint32) *resource.TokenBucket {
	return &resource.TokenBucket{Max: n, PerFill: 1, Interval: time.Hour}
}

func newRig(t testing.TB, l *resource.LocalRateLimit) *rig {
	r := &rig{t: t, spec: Spec(), x: &filter.Exchange{Slots: make([]any, 1), Connection: new(filter.ConnectionState)}}
	r.x.Editor = editor{r.x}
	r.f = r.spec.New(r.spec.Build(l), filter.Worker{
		Name: "rate", Service: "web", Percent: func(p resource.Percent) uint32 { return p.PerMillion },
	}).(*rateFilter)
	return r
}

// request passes one by the filter, and tells what became of it.
func (r *rig) request(path string, headers ...string) string {
	x := r.x
	clear(x.Slots)
	x.Random = x.Random*6364136223846793005 + 1
	x.Request.Reset()
	x.Request.SetPath([]byte(path))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		x.Request.AddString(name, value)
	}
	x.Response.Reset()
	verdict := r.f.OnRequest(x)
	if verdict == filter.Reply {
		x.Response.Status = x.Local.Status
		r.f.OnReply(x)
		return fmt.Sprintf("%d %s", x.Local.Status, r.fields())
	}
	x.Response.Status = 200
	r.f.OnResponse(x)
	return "200 " + r.fields()
}

func (r *rig) fields() string {
	var list []string
	h := &r.x.Response.Header
	for i := range h.Slots() {
		if name, v, _, ok := h.At(i); ok {
			list = append(list, fmt.Sprintf("%s=%s", name, v))
		}
	}
	return strings.Join(list, " ")
}

// passed is how many of n requests are let through.
func (r *rig) passed(n int, path string, headers ...string) int {
	count := 0
	for range n {
		if strings.HasPrefix(r.request(path, headers...), "200") {
			count++
		}
	}
	return count
}

func (r *rig) counted() string {
	var list []string
	for _, c := range r.spec.Counts(0, nil) {
		if c.Value > 0 {
			list = append(list, fmt.Sprintf("%s.%s=%d", c.Scope, c.Name, c.Value))
		}
	}
	return strings.Join(list, " ")
}

func TestRequestsBeyondTheBucketAreRefused(t *testing.T) {
	r := newRig(t, limit(3))
	if n := r.passed(5, "/"); n != 3 {
		t.Errorf("%d requests passed of a bucket of 3", n)
	}
	l := r.x.Local
	if l.Status != 429 || string(l.Body) != "local_rate_limited" || l.Details != "local_rate_limited" || l.Flags != record.RL || l.GRPC != 0 {
		t.Errorf("the refusal is %+v", l)
	}
	want := "rl.http_local_rate_limit.enabled=5 rl.http_local_rate_limit.ok=3 rl.http_local_rate_limit.rate_limited=2 rl.http_local_rate_limit.enforced=2"
	if got := r.counted(); got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
	r.x.Now += int64(2 * time.Hour)
	if n := r.passed(5, "/"); n != 2 {
		t.Errorf("%d requests passed after two hours that fill a token each", n)
	}
}

func TestWhatIsNotEnabledIsFreeAndWhatIsNotEnforcedPasses(t *testing.T) {
	l := limit(1)
	l.Enabled.PerMillion, l.Enforced.PerMillion = 500_000, 500_000
	l.NotEnforcedAdd = []resource.HeaderOption{{Name: "x-limited", Value: text("yes")}}
	r := newRig(t, l)
	passed := r.passed(10_000, "/")
	c := *r.f.limits.counters.On(0)
	if c.ok != 1 || c.enabled != c.ok+c.limited || passed != 10_000-int(c.enforced) {
		t.Errorf("%d passed, %+v", passed, c)
	}
	for what, n := range map[string]uint64{"enabled": c.enabled, "enforced": 2 * c.enforced} {
		if n < 4700 || n > 5300 {
			t.Errorf("%s is %d where half is expected", what, n)
		}
	}
	for string(r.x.Request.Get("x-limited")) != "yes" { // sooner or later
		r.request("/")
	}
	r = newRig(t, &resource.LocalRateLimit{StatPrefix: "rl", Bucket: bucket(1)})
	if n := r.passed(10, "/"); n != 10 || r.counted() != "" {
		t.Errorf("the filter does something by default: %d passed, %s", n, r.counted())
	}
}

func text(s string) resource.Format {
	f, err := substitution.Parse(s)
	if err != nil {
		panic(err)
	}
	return f
}

func TestTheReplyIsWhatTheConfigurationSays(t *testing.T) {
	l := limit(2)
	l.Status, l.ResourceExhausted, l.XRateLimit, l.RetryAfter = 429, true, true, true
	l.ResponseAdd = []resource.HeaderOption{{Name: "x-a", Value: text("b")}}
	r := newRig(t, l)
	for i, want := range []string{
		"200 x-ratelimit-limit=2 x-ratelimit-remaining=1 x-ratelimit-reset=0",
		"200 x-ratelimit-limit=2 x-ratelimit-remaining=0 x-ratelimit-reset=3600",
		"429 x-a=b retry-after=3600 x-ratelimit-limit=2 x-ratelimit-remaining=0 x-ratelimit-reset=3600",
	} {
		if got := r.request("/"); got != want {
			t.Errorf("request %d: got %s, want %s", i, got, want)
		}
	}
	if r.x.Local.GRPC != grpc.ResourceExhausted {
		t.Errorf("calls get the status %d", r.x.Local.GRPC)
	}
}

func TestDescriptorsHaveBucketsOfTheirOwn(t *testing.T) {
	entry := func(kv ...string) (list []resource.RateEntry) {
		for i := 0; i < len(kv); i += 2 {
			list = append(list, resource.RateEntry{Key: kv[i], Value: kv[i+1]})
		}
		return list
	}
	header := func(name string) resource.HeaderMatch {
		return resource.HeaderMatch{Name: name, Kind: resource.HeaderPresent, Present: true}
	}
	remote := netip.MustParseAddrPort("10.1.2.3:5000")
	for _, c := range []struct {
		name    string
		actions []resource.RateAction
		entries []resource.RateEntry
		path    string
		headers []string
		limited bool // by the descriptor, not by the default bucket
	}{
		{name: "a constant", actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "generic_key", Value: text("a")}}, entries: entry("generic_key", "a"), limited: true},
		{name: "another constant", actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "generic_key", Value: text("b")}}, entries: entry("generic_key", "a")},
		{name: "an empty value with a default", actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "generic_key", Default: "d"}}, entries: entry("generic_key", "d"), limited: true},
		{name: "a header", actions: []resource.RateAction{{Kind: resource.RateRequestHeader, Key: "u", Name: "x-u"}}, entries: entry("u", "me"), headers: []string{"x-u: me"}, limited: true},
		{name: "the first of several headers", actions: []resource.RateAction{{Kind: resource.RateRequestHeader, Key: "u", Name: "x-u"}}, entries: entry("u", "me"), headers: []string{"x-u: me", "x-u: you"}, limited: true},
		{name: "no header, no descriptor", actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "k", Value: text("v")}, {Kind: resource.RateRequestHeader, Key: "u", Name: "x-u"}}, entries: entry("k", "v")},
		{name: "no header, skipped", actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "k", Value: text("v")}, {Kind: resource.RateRequestHeader, Key: "u", Name: "x-u", SkipIfAbsent: true}}, entries: entry("k", "v"), limited: true},
		{name: "a header of the head", actions: []resource.RateAction{{Kind: resource.RateRequestHeader, Key: "p", Name: ":path"}}, entries: entry("p", "/a"), path: "/a", limited: true},
		{name: "a parameter with escapes", actions: []resource.RateAction{{Kind: resource.RateQueryParameter, Key: "q", Name: "id"}}, entries: entry("q", "a b"), path: "/?x&%69d=a%20b", limited: true},
		{name: "the caller", actions: []resource.RateAction{{Kind: resource.RateRemoteAddress, Key: "remote_address"}}, entries: entry("remote_address", "10.1.2.3"), limited: true},
		{name: "the caller's network", actions: []resource.RateAction{{Kind: resource.RateMaskedRemoteAddress, Key: "masked_remote_address", V4: 16, V6: 64}}, entries: entry("masked_remote_address", "10.1.0.0/16"), limited: true},
		{name: "the clusters", actions: []resource.RateAction{{Kind: resource.RateSourceCluster, Key: "source_cluster"}, {Kind: resource.RateDestinationCluster, Key: "destination_cluster"}}, entries: entry("source_cluster", "web", "destination_cluster", "orders"), limited: true},
		{name: "in another order", actions: []resource.RateAction{{Kind: resource.RateDestinationCluster, Key: "destination_cluster"}, {Kind: resource.RateSourceCluster, Key: "source_cluster"}}, entries: entry("source_cluster", "web", "destination_cluster", "orders")},
		{name: "headers that match", actions: []resource.RateAction{{Kind: resource.RateHeaderMatch, Key: "header_match", Value: text("v"), Expect: true, Headers: []resource.HeaderMatch{header("a"), header("b")}}}, entries: entry("header_match", "v"), headers: []string{"a: 1", "b: 1"}, limited: true},
		{name: "headers of which one does not", actions: []resource.RateAction{{Kind: resource.RateHeaderMatch, Key: "header_match", Value: text("v"), Expect: true, Headers: []resource.HeaderMatch{header("a"), header("b")}}}, entries: entry("header_match", "v"), headers: []string{"a: 1"}},
		{name: "which is expected", actions: []resource.RateAction{{Kind: resource.RateHeaderMatch, Key: "header_match", Value: text("v"), Headers: []resource.HeaderMatch{header("a"), header("b")}}}, entries: entry("header_match", "v"), headers: []string{"a: 1"}, limited: true},
		{name: "parameters that match", actions: []resource.RateAction{{Kind: resource.RateQueryMatch, Key: "query_match", Value: text("v"), Expect: true, Query: []resource.QueryMatch{{Name: "a", Present: true}}}}, entries: entry("query_match", "v"), path: "/?a=1", limited: true},
		{name: "an address in a range", actions: []resource.RateAction{{Kind: resource.RateRemoteAddressMatch, Key: "r", Value: text("v"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}, entries: entry("r", "v"), limited: true},
		{name: "an address outside of it", actions: []resource.RateAction{{Kind: resource.RateRemoteAddressMatch, Key: "r", Value: text("v"), Invert: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}, entries: entry("r", "v")},
		{name: "one entry of two", actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "k", Value: text("v")}}, entries: entry("k", "v", "u", "")},
		{name: "a value left open", actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "k", Value: text("v")}, {Kind: resource.RateRequestHeader, Key: "u", Name: "x-u"}}, entries: entry("k", "v", "u", ""), headers: []string{"x-u: anybody"}, limited: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := limit(5)
			l.RateLimits, l.HasRateLimits = []resource.RateLimit{{Actions: c.actions, Hits: 1}}, true
			l.Descriptors = []resource.RateDescriptor{{Entries: c.entries, Bucket: *bucket(2)}}
			r := newRig(t, l)
			r.x.Record.Cluster, r.x.Record.Remote = "orders", remote
			path := c.path
			if path == "" {
				path = "/"
			}
			want := 5
			if c.limited {
				want = 2
			}
			if n := r.passed(10, path, c.headers...); n != want {
				t.Errorf("%d requests passed, want %d", n, want)
			}
		})
	}
}

// byUser limits by the header x-u, each value for itself.
func byUser(each uint32) *resource.LocalRateLimit {
	l := limit(1000)
	l.HasRateLimits = true
	l.RateLimits = []resource.RateLimit{{Hits: 1, Actions: []resource.RateAction{{Kind: resource.RateRequestHeader, Key: "u", Name: "x-u"}}}}
	l.Descriptors = []resource.RateDescriptor{{Entries: []resource.RateEntry{{Key: "u"}}, Bucket: *bucket(each)}}
	return l
}

func TestEachValueLeftOpenHasItsBucketAndThereAreNotTooMany(t *testing.T) {
	l := byUser(2)
	l.MaxDynamic = 3
	r := newRig(t, l)
	for i := range 3 {
		if n := r.passed(5, "/", fmt.Sprint("x-u: ", i)); n != 2 {
			t.Errorf("%d of user %d passed", n, i)
		}
		r.x.Now++
	}
	r.passed(5, "/", "x-u: 0")
	for i := range 100 {
		r.x.Now++
		r.request("/", fmt.Sprint("x-u: new", i))
	}
	if n := r.f.limits.keys(r.f.limits.shared); n != 3 {
		t.Errorf("%d values are kept", n)
	}
}

func TestTheDefaultBucketMayBeForWhatHasNoDescriptor(t *testing.T) {
	for always, want := range map[bool]int{true: 3, false: 4} {
		l := byUser(100)
		l.Bucket, l.AlwaysDefault = bucket(3), always
		r := newRig(t, l)
		r.passed(3, "/", "x-u: me")
		if n := r.passed(4, "/", "x-u: me"); (n == 4) != !always {
			t.Errorf("always %v: %d passed, want %d", always, n, want)
		}
	}
	l := byUser(1)
	l.Bucket = nil
	if n := newRig(t, l).passed(10, "/"); n != 10 {
		t.Errorf("%d passed where there is no bucket for them", n)
	}
}

// The slowest bucket is asked first: what it refuses costs the others nothing.
func TestARefusedRequestSparesFasterBuckets(t *testing.T) {
	l := byUser(1)
	l.RateLimits = append(l.RateLimits, resource.RateLimit{Hits: 2, Actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "k", Value: text("v")}}})
	l.Descriptors = append(l.Descriptors, resource.RateDescriptor{
		Entries: []resource.RateEntry{{Key: "k", Value: "v"}}, Bucket: resource.TokenBucket{Max: 4, PerFill: 2, Interval: time.Hour},
	})
	r := newRig(t, l)
	r.passed(10, "/", "x-u: a")
	if n := r.passed(10, "/", "x-u: b"); n != 1 {
		t.Errorf("%d of b passed, a's refusals took its tokens", n)
	}
	if n := r.passed(10, "/", "x-u: c"); n != 0 {
		t.Errorf("%d of c passed: a request that takes 2 tokens took fewer", n)
	}
}

func TestADescriptorInShadowModeOnlyCounts(t *testing.T) {
	l := byUser(1)
	l.Bucket, l.Descriptors[0].Shadow = bucket(5), true
	r := newRig(t, l)
	if n := r.passed(10, "/", "x-u: a"); n != 5 {
		t.Errorf("%d passed, the default bucket has 5", n)
	}
	if c := r.f.limits.counters.On(0); c.shadow != 9 || c.limited != 5 {
		t.Errorf("%+v", *c)
	}
}

func TestEachConnectionHasItsBuckets(t *testing.T) {
	l := limit(2)
	l.PerConnection = true
	r := newRig(t, l)
	first := r.x.Connection
	if n := r.passed(5, "/"); n != 2 {
		t.Errorf("%d passed on the first connection", n)
	}
	r.x.Connection = new(filter.ConnectionState)
	if n := r.passed(5, "/"); n != 2 {
		t.Errorf("%d passed on the second connection", n)
	}
	r.x.Connection = first
	if n := r.passed(5, "/"); n != 0 {
		t.Errorf("%d passed on the first connection again", n)
	}
}

// keys is how many values of the first rule left open have buckets.
func (l *limits) keys(b *buckets) int { return b.of[l.open[0]].table.Keys() }

// There may be many connections, and few of them use every descriptor.
func TestAConnectionHoldsNoMoreBucketsThanItUses(t *testing.T) {
	l := byUser(1)
	l.PerConnection, l.MaxDynamic = true, 10_000
	for i := range 1000 {
		l.Descriptors = append(l.Descriptors, resource.RateDescriptor{Entries: []resource.RateEntry{{Key: "u", Value: fmt.Sprint("known", i)}}, Bucket: *bucket(1)})
	}
	r := newRig(t, l)
	r.request("/")
	b := r.f.limits.in(r.x)
	if len(b.of) != 0 {
		t.Errorf("a request without a descriptor made %d", len(b.of))
	}
	if n := r.passed(3, "/", "x-u: known7"); n != 1 || len(b.of) != 1 {
		t.Errorf("%d passed of a bucket of 1, and %d are held", n, len(b.of))
	}
	for i := range 10 * connectionKeys {
		r.x.Now++
		r.request("/", fmt.Sprint("x-u: new", i))
	}
	if n := r.f.limits.keys(b); n != connectionKeys || len(b.of) != 2 {
		t.Errorf("%d values and %d descriptors are held", n, len(b.of))
	}
}

func TestARoutesLimitsTakeThePlaceOfTheFilters(t *testing.T) {
	r := newRig(t, limit(1))
	own := limit(3)
	own.StatPrefix = "route"
	r.x.Route = &resource.Route{FilterConfig: map[string]any{"rate": r.spec.Build(own)}}
	if n := r.passed(10, "/"); n != 3 {
		t.Errorf("%d passed, want the route's 3", n)
	}
	r.x.ClusterConfig = map[string]any{"rate": r.spec.Build(limit(2))}
	if n := r.passed(10, "/"); n != 2 {
		t.Errorf("%d passed, want the weighted cluster's 2", n)
	}
	r.x.Route, r.x.ClusterConfig = nil, nil
	if n := r.passed(10, "/"); n != 1 {
		t.Errorf("%d passed, want the filter's 1", n)
	}
}

func TestARoutesDescriptorsJoinThoseOfItsHost(t *testing.T) {
	generic := func(v string) []resource.RateLimit {
		return []resource.RateLimit{{Hits: 1, Actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "k", Value: text(v)}}}}
	}
	for _, c := range []struct {
		name    string
		route   []resource.RateLimit
		include bool
		vh      resource.VHRateLimits
		stage   uint32
		want    int
	}{
		{"the host's where the route has none", nil, false, resource.VHOverride, 0, 2},
		{"the route's alone", generic("route"), false, resource.VHOverride, 0, 5},
		{"both, by the filter", generic("route"), false, resource.VHInclude, 0, 2},
		{"both, by the route", generic("route"), true, resource.VHOverride, 0, 2},
		{"none of the host", nil, false, resource.VHIgnore, 0, 7},
		{"of another stage", generic("route"), true, resource.VHInclude, 1, 7},
	} {
		l := limit(7)
		l.VHRateLimits, l.Stage = c.vh, c.stage
		l.Descriptors = []resource.RateDescriptor{
			{Entries: []resource.RateEntry{{Key: "k", Value: "host"}}, Bucket: *bucket(2)},
			{Entries: []resource.RateEntry{{Key: "k", Value: "route"}}, Bucket: *bucket(5)},
		}
		r := newRig(t, l)
		r.x.Route = &resource.Route{RateLimits: c.route, HostRateLimits: generic("host"), IncludeHostRateLimits: c.include}
		if n := r.passed(10, "/"); n != c.want {
			t.Errorf("%s: %d passed, want %d", c.name, n, c.want)
		}
	}
}

func TestARequestAllocatesNothing(t *testing.T) {
	l := byUser(1)
	l.XRateLimit, l.Bucket = true, bucket(1)
	r := newRig(t, l)
	run := func() {
		clear(r.x.Slots)
		r.x.Response.Reset()
		r.f.OnRequest(r.x)
		r.f.OnResponse(r.x)
		r.f.OnReply(r.x)
	}
	r.request("/", "x-u: somebody")
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequestByUser(b *testing.B) {
	r := newRig(b, byUser(1<<20))
	r.request("/", "x-u: somebody")
	for range b.N {
		r.f.OnRequest(r.x)
	}
}
