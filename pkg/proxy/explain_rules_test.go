// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/adaptiveconcurrency"
	"github.com/outrigger-mesh/outrigger/pkg/filter/fault"
	"github.com/outrigger-mesh/outrigger/pkg/filter/localratelimit"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// settings are those of the first step of a stage, as -o json shows them; "" without one.
func (r *rig) settings(q Query, stage string) string {
	r.t.Helper()
	q.Authority = "x"
	e, err := r.p.Explain(q)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range e.Steps {
		if s.Stage == stage {
			text, err := json.Marshal(s.Settings)
			if err != nil {
				r.t.Fatal(err)
			}
			return string(text)
		}
	}
	return ""
}

func TestWhatTheRouteSaysOfARequestIsExplained(t *testing.T) {
	grpcCall := [][2]string{{"content-type", "application/grpc"}, {"grpc-timeout", "300m"}}
	const safe = "; once more what surely was not processed, or is idempotent and had no answer\n"
	for _, tt := range []struct {
		name     string
		query    Query
		edit     func(*resource.RouteAction)
		stage    string
		want     string
		settings string
	}{
		{
			"the timeouts", Query{}, func(a *resource.RouteAction) {
				a.Timeout, a.HasIdleTimeout, a.IdleTimeout, a.MaxDuration = 3*time.Second, true, time.Minute, time.Hour
				a.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 2, PerTryTimeout: time.Second, PerTryIdleTimeout: 100 * time.Millisecond}
			}, "timeouts", "default: 3s in all, 1s for each try, 100ms of silence in a try, 1m0s of silence, 1h0m0s from begin to end\nc: 5s to connect\n",
			`{"requestMillis":3000,"perTryMillis":1000,"perTryIdleMillis":100,"idleMillis":60000,"maxDurationMillis":3600000}`,
		},
		{
			"no timeout", Query{}, func(a *resource.RouteAction) { a.Timeout, a.HasIdleTimeout = 0, true }, "timeouts",
			"default: no limit in all\nc: 5s to connect\n", "{}",
		},
		{
			"those that the request asks for", Query{Headers: [][2]string{{"x-envoy-upstream-rq-timeout-ms", "700"}, {"x-envoy-upstream-rq-per-try-timeout-ms", "200"}}},
			func(a *resource.RouteAction) { a.Timeout, a.HasIdleTimeout = 3*time.Second, true }, "timeouts",
			"default: 700ms in all, 200ms for each try\nc: 5s to connect\n", `{"requestMillis":700,"perTryMillis":200}`,
		},
		{
			"those that it may not ask for", Query{Headers: [][2]string{{"x-envoy-upstream-rq-timeout-ms", "700"}, {"x-forwarded-for", "192.0.2.9, 127.0.0.1"}}},
			func(a *resource.RouteAction) { a.Timeout, a.HasIdleTimeout = 3*time.Second, true }, "timeouts",
			"default: 3s in all\nc: 5s to connect\n", `{"requestMillis":3000}`,
		},
		{
			"the time that a call has", Query{Method: "POST", Headers: grpcCall}, func(a *resource.RouteAction) {
				a.Timeout, a.HasIdleTimeout = 3*time.Second, true
				a.GRPCTimeout = resource.GRPCTimeout{Kind: resource.GRPCTimeoutRoute, Max: time.Second}
			}, "timeouts", "default: 300ms in all, as a call of gRPC\nc: 5s to connect\n", `{"deadlineMillis":300}`,
		},
		{
			"the retries", Query{}, func(a *resource.RouteAction) {
				a.Retry = &resource.RetryPolicy{
					On: resource.RetryReset | resource.RetryConnectFailure | resource.RetryStatusCodes, NumRetries: 2,
					StatusCodes: []int{429, 503}, BaseInterval: 10 * time.Millisecond, MaxInterval: 40 * time.Millisecond,
				}
			}, "retries", "default: up to 2 on reset, connect-failure, retriable-status-codes [429 503], after up to 10ms at first and 40ms at most, of bodies up to 65536 bytes" + safe,
			`{"retryOn":["reset","connect-failure","retriable-status-codes"],"numRetries":2,"retriableStatusCodes":[429,503],"backOffMillis":10,"maxBackOffMillis":40,"maxBodyBytes":65536}`,
		},
		{
			"no retries", Query{}, func(*resource.RouteAction) {}, "retries", "default: by policy none" + safe,
			`{"retryOn":[],"numRetries":0,"backOffMillis":0,"maxBackOffMillis":0,"maxBodyBytes":65536}`,
		},
		{
			"retries of other requests", Query{}, func(a *resource.RouteAction) {
				a.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 2, RequestHeaders: []resource.HeaderMatch{{Name: "x-again", Present: true}}}
			}, "retries", "default: none by the policy, which asks for headers that the request has not" + safe, "",
		},
		{
			"retries that the request asks for", Query{Headers: [][2]string{{"x-envoy-retry-on", "5xx"}, {"x-envoy-max-retries", "4"}}}, func(*resource.RouteAction) {},
			"retries", "default: up to 4 on 5xx, after up to 25ms at first and 250ms at most, of bodies up to 65536 bytes" + safe, "",
		},
		{
			"hedging", Query{}, func(a *resource.RouteAction) {
				a.Hedge = &resource.HedgePolicy{OnPerTryTimeout: true}
				a.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 2, PerTryTimeout: 50 * time.Millisecond}
			}, "hedging", "default: another attempt beside the one under way after 50ms, 2 at most\n", `{"afterMillis":50,"numHedges":2}`,
		},
		{
			"hedging that there is none of", Query{}, func(a *resource.RouteAction) { a.Hedge = &resource.HedgePolicy{OnPerTryTimeout: true} },
			"hedging", "default: none: there is no timeout of a try\n", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(s *resource.Snapshot) {
				withCluster(s, "c", "192.0.2.1:80").ConnectTimeout = 5 * time.Second
				tt.edit(s.Routes["r"].VirtualHosts[0].Routes[0].Action)
			})
			if got, want := r.stages(tt.query, tt.stage), tt.want+"c, the only endpoint"; got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if got := r.settings(tt.query, tt.stage); tt.settings != "" && got != tt.settings {
				t.Errorf("settings are\n%s\nwant\n%s", got, tt.settings)
			}
		})
	}
}

func TestTheLimitsOfAClusterAreExplainedWithTheirUse(t *testing.T) {
	thresholds := resource.Thresholds{MaxConnections: 10, MaxPending: 20, MaxRequests: 2, MaxRetries: 3}
	r := newRig(t, func(s *resource.Snapshot) {
		c := withCluster(s, "c", "192.0.2.1:80")
		c.Default, c.High = thresholds, thresholds
		c.Default.RetryBudget, c.Default.BudgetPercent, c.Default.MinRetries, c.Default.MaxConnsPerHost = true, 20, 3, 5
		s.Assignments["c"].DropPerMillion = 50_000
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 1}
	})
	l := r.p.slots["c"].spec.Load().limits
	for range 3 { // one too many
		l.TryRequest()
	}
	if !l.TryRetry() || !l.SpendRetry() {
		t.Fatal("no retry")
	}
	const limits = "c: connections 0 of 10, waiting 0 of 20, requests 2 of 2, connections of one endpoint 5 at most; 1 refused so far; 5% of the requests are dropped (drop_overloads)\n"
	const budget = "c: 1 of 3 under way: 20% of the requests, at least 3; 29 of 30 in reserve\n"
	if got := r.stages(Query{}, "limits", "retry budget"); got != limits+budget+"c, the only endpoint" {
		t.Errorf("got\n%s", got)
	}
	for stage, want := range map[string]string{
		"limits": `{"priority":"default","connections":{"used":0,"max":10,"overflow":0},"pending":{"used":0,"max":20,"overflow":0},` +
			`"requests":{"used":2,"max":2,"overflow":1},"connectionsPerHost":5,"dropPercent":5}`,
		"retry budget": `{"used":1,"max":3,"overflow":0,"budgetPercent":20,"minRetryConcurrency":3,"reserve":29,"maxReserve":30}`,
	} {
		if got := r.settings(Query{}, stage); got != want {
			t.Errorf("%s: %s", stage, got)
		}
	}
	route := *r.snap.Routes["r"].VirtualHosts[0].Routes[0]
	action := *route.Action
	action.HighPriority, route.Action = true, &action
	r.route(&route)
	r.p.slots["c"].spec.Load().limits.High().TryRequest()
	const high = "c: connections 0 of 10, waiting 0 of 20, requests 1 of 2; 5% of the requests are dropped (drop_overloads)"
	if got := r.stages(Query{}, "limits"); !strings.Contains(got, "; of the high priority") || !strings.HasPrefix(got, strings.Split(high, ";")[0]) {
		t.Errorf("of the high priority: %s", got)
	}
	if got := r.stages(Query{}, "retry budget"); got != "c: 0 of 3 under way\nc, the only endpoint" {
		t.Errorf("without a budget: %s", got)
	}
}

func TestAnOpenCircuitIsExplained(t *testing.T) {
	b := backend(t, answering(500, ""))
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b).Breaker = circuitOf(func(c *resource.CircuitBreaker) { c.SlowDuration, c.SlowPercent = time.Minute, 80 })
	})
	const rule = "; opens at 50% errors of at least 4 requests in 10s, or 80% slower than 1m0s, for 1h0m0s: "
	if got := r.stages(Query{}, "circuit"); !strings.HasPrefix(got, "c: closed"+rule+"0 of 0 failed, 0 were slow\n") {
		t.Errorf("closed: %s", got)
	}
	eventually(t, "the circuit refuses", func() bool {
		resp, _ := r.get("/")
		return refusal(resp)
	})
	got := r.stages(Query{}, "circuit")
	if !strings.HasPrefix(got, "c: open for ") || !strings.Contains(got, ", tested in ") || !strings.Contains(got, rule) || !strings.HasSuffix(got, "; it has opened once so far\nc, the only endpoint, but 503 for now: the circuit of c is open") {
		t.Errorf("open: %s", got)
	}
	var s CircuitSettings
	if err := json.Unmarshal([]byte(r.settings(Query{}, "circuit")), &s); err != nil {
		t.Fatal(err)
	}
	if s.State != "open" || s.Openings != 1 || s.TestIn <= 0 || s.TestIn > 3600_000 || s.Window != 10_000 || s.ErrorThreshold != 50 || s.Volume != 4 || s.SlowAfter != 60_000 || s.Errors < 4 {
		t.Errorf("settings %+v", s)
	}
}

// Of several clusters the others get their requests.
func TestAnOpenCircuitOfOneOfTwoClustersIsExplained(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", "192.0.2.1:80")
		withCluster(s, "d", "192.0.2.2:80").Breaker = circuitOf(func(c *resource.CircuitBreaker) { c.ForceOpen = true })
	})
	route := *r.snap.Routes["r"].VirtualHosts[0].Routes[0]
	action := *route.Action
	action.Clusters = []resource.WeightedCluster{{Name: "c", Weight: 19}, {Name: "d", Weight: 1}}
	route.Action = &action
	r.route(&route)
	if got := r.stages(Query{}, "nothing"); got != "c, d, one of 2 endpoints; what goes to d gets 503 for now: the circuit is open" {
		t.Errorf("one of two: %s", got)
	}
	action.Clusters = []resource.WeightedCluster{{Name: "d", Weight: 1}}
	r.route(&route)
	if got := r.stages(Query{}, "nothing"); got != "d, the only endpoint, but 503 for now: the circuit of d is open" {
		t.Errorf("the only one: %s", got)
	}
}

func TestOutlierDetectionIsExplained(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", "192.0.2.1:80", "192.0.2.2:80").Outlier = &resource.OutlierDetection{
			Consecutive5xx: 3, Enforcing5xx: 100, ConsecutiveGateway: 4, EnforcingGateway: 50, ConsecutiveLocal: 5, EnforcingLocal: 100,
			SuccessRate: resource.SuccessRate{Volume: 100, Stdev: 1.9, Enforcing: 100}, Failure: resource.FailurePercentage{Threshold: 85, Volume: 50},
			Interval: 10 * time.Second, BaseEjection: 30 * time.Second, MaxEjection: 5 * time.Minute, MaxEjectionPercent: 10,
		}
	})
	const want = "c: ejects for 3 errors in a row, or 4 gateway failures in a row (50% of the times), or successes 1.9 deviations below the others', of 100 requests in 10s; " +
		"for 30s and longer each time, 5m0s at most, 10% of the endpoints at most: 0 of 2 ejected now\nc, one of 2 endpoints"
	if got := r.stages(Query{}, "outlier detection"); got != want {
		t.Errorf("got %s", got)
	}
	const settings = `{"consecutive5xx":3,"consecutiveGatewayFailure":4,"successRate":true,"intervalMillis":10000,"baseEjectionMillis":30000,"maxEjectionMillis":300000,"maxEjectionPercent":10,"ejectedEndpoints":0,"endpoints":2}`
	if got := r.settings(Query{}, "outlier detection"); got != settings {
		t.Errorf("settings %s", got)
	}
}

func TestWhatFiltersDoToARequestIsExplained(t *testing.T) {
	all := resource.Percent{PerMillion: 1_000_000, Denominator: 100}
	tenth := resource.Percent{PerMillion: 100_000, Denominator: 100}
	rate, faults, adaptive := localratelimit.Spec(), fault.Spec(), adaptiveconcurrency.Spec()
	limits := rateLimit(5)
	limits.Descriptors = []resource.RateDescriptor{
		{Entries: []resource.RateEntry{{Key: "user", Value: "7"}}, Bucket: resource.TokenBucket{Max: 9, PerFill: 1, Interval: time.Minute}},
		{Entries: []resource.RateEntry{{Key: "user"}}, Bucket: resource.TokenBucket{Max: 2, PerFill: 1, Interval: time.Minute}, Shadow: true},
	}
	b := backend(t, answering(200, ""))
	var route *resource.Route
	r := newRigOf(t, Options{Workers: 2, Filters: filter.NewRegistry(rate, faults, adaptive)}, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		withCluster(s, "d", b)
		m := s.Listeners["l"].FilterChains[0].HTTP
		config, err := adaptive.Parse([]byte("\x0a\x0c\x12\x04\x1a\x02\x08\x01\x1a\x04\x0a\x02\x08\x3c")) // every second, the least time each minute
		if err != nil {
			t.Fatal(err)
		}
		m.Filters = append(m.Filters,
			resource.HTTPFilter{Name: rate.Name, TypeURL: rate.TypeURL, Config: rate.Build(limits)},
			resource.HTTPFilter{Name: faults.Name, TypeURL: faults.TypeURL, Config: &resource.Fault{MaxActive: -1}},
			resource.HTTPFilter{Name: adaptive.Name, TypeURL: adaptive.TypeURL, Config: config})
		route = s.Routes["r"].VirtualHosts[0].Routes[0]
	})
	const bucket = "envoy.filters.http.local_ratelimit: 1 in 3600000ms, 5 at once: "
	const rest = " left; user=7 1 in 60000ms, 9 at once: 9 left; each user 1 in 60000ms, 2 at once (0 known), counted only; those beyond it get 429\n"
	if got := r.stages(Query{}, "rate limit", "fault"); got != bucket+"5"+rest+"c, the only endpoint" {
		t.Errorf("before a request: %s", got)
	}
	r.get("/")
	if got := r.stages(Query{}, "rate limit", "fault"); got != bucket+"4"+rest+"c, the only endpoint" {
		t.Errorf("behind a request: %s", got)
	}
	const settings = `{"enabledPercent":100,"enforcedPercent":100,"status":429,"bucket":{"maxTokens":5,"tokensPerFill":1,"fillIntervalMillis":3600000,"tokens":4},"descriptors":[` +
		`{"entries":{"user":"7"},"maxTokens":9,"tokensPerFill":1,"fillIntervalMillis":60000,"tokens":9},` +
		`{"entries":{"user":""},"shadow":true,"maxTokens":2,"tokensPerFill":1,"fillIntervalMillis":60000,"tokens":2}]}`
	if got := r.settings(Query{}, "rate limit"); got != settings {
		t.Errorf("settings %s", got)
	}
	if got := r.stages(Query{}, "limits"); !strings.Contains(got, "envoy.filters.http.adaptive_concurrency: requests 0 of 3, which adapts between 3 and 1000; those beyond it get 503; the least round-trip time is measured now\n") {
		t.Errorf("adaptive concurrency: %s", got)
	}

	aborts := &resource.Fault{
		Delay: &resource.FaultDelay{Percent: tenth, Fixed: 2 * time.Second}, Abort: &resource.FaultAbort{Percent: all, HTTP: 503},
		Slow: &resource.FaultRate{Percent: tenth, Fixed: 64}, MaxActive: 7, Headers: []resource.HeaderMatch{{Name: "x-try", Kind: resource.HeaderPresent, Present: true}},
	}
	changed := *route
	changed.FilterConfig = map[string]any{faults.Name: aborts}
	r.route(&changed)
	try := Query{Headers: [][2]string{{"x-try", "1"}}}
	const faulty = "envoy.filters.http.fault: delays 10% by 2s, answers 100% with 503, slows the responses of 10% to 64 KiB a second: 0 have one now, 7 at most\n"
	if got := r.stages(try, "fault"); got != faulty+"c, the only endpoint" {
		t.Errorf("by the route: %s", got)
	}
	if got := r.settings(try, "fault"); got != `{"delayPercent":10,"delayMillis":2000,"abortPercent":100,"httpStatus":503,"responseRatePercent":10,"kibPerSecond":64,"active":0,"maxActive":7}` {
		t.Errorf("settings %s", got)
	}
	none := *aborts
	none.MaxActive = 0 // no fault at all, which is not any number of them
	changed.FilterConfig = map[string]any{faults.Name: &none}
	r.route(&changed)
	if got := r.settings(try, "fault"); !strings.HasSuffix(got, `"active":0,"maxActive":0}`) {
		t.Errorf("at most none: %s", got)
	}
	if got := r.stages(Query{}, "fault"); got != "envoy.filters.http.fault: none: it asks for another x-try\nc, the only endpoint" {
		t.Errorf("of another request: %s", got)
	}

	split := *route
	action := *route.Action
	action.Clusters = []resource.WeightedCluster{{Name: "c", Weight: 1}, {Name: "d", Weight: 1, FilterConfig: map[string]any{faults.Name: aborts}}}
	split.Action = &action
	r.route(&split)
	if got := r.stages(try, "fault"); got != strings.Replace(faulty, "fault: ", "fault: of what goes to d: ", 1)+"c, d, one of 2 endpoints" {
		t.Errorf("of one of two clusters: %s", got)
	}
}

// route puts another route in the place of the first one.
func (r *rig) route(route *resource.Route) {
	r.t.Helper()
	table := *r.snap.Routes["r"]
	host := *table.VirtualHosts[0]
	host.Routes = []*resource.Route{route}
	table.VirtualHosts = []*resource.VirtualHost{&host}
	r.snap.Routes["r"] = &table
	r.apply(r.snap)
}
