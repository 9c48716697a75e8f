// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/localratelimit"
	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// stat reads one number; it must be there.
func (r *rig) stat(name string) uint64 {
	r.t.Helper()
	list, err := r.p.Stats(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range list {
		if list[i].FullName() == name {
			return list[i].Value
		}
	}
	r.t.Fatalf("there is no %s", name)
	return 0
}

func rateLimit(n uint32) *resource.LocalRateLimit {
	all := resource.Percent{PerMillion: 1_000_000, Denominator: 100}
	return &resource.LocalRateLimit{
		StatPrefix: "rl", Status: 429, Enabled: all, Enforced: all, AlwaysDefault: true, MaxDynamic: 20, XRateLimit: true,
		Bucket: &resource.TokenBucket{Max: n, PerFill: 1, Interval: time.Hour},
	}
}

// rateRig is a proxy with two workers and the filter.
func rateRig(t *testing.T, l *resource.LocalRateLimit, edit func(*resource.Snapshot)) *rig {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.Header.Get("x-over")) })
	spec := localratelimit.Spec()
	return newRigOf(t, Options{Workers: 2, Filters: filter.NewRegistry(spec)}, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		m := s.Listeners["l"].FilterChains[0].HTTP
		m.Filters = append(m.Filters, resource.HTTPFilter{Name: spec.Name, TypeURL: spec.TypeURL, Config: spec.Build(l)})
		if edit != nil {
			edit(s)
		}
	})
}

func TestWorkersTogetherLetThroughExactlyWhatTheBucketHolds(t *testing.T) {
	r := rateRig(t, rateLimit(100), nil)
	var passed, refused atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		client := r.client()
		wg.Go(func() {
			for range 20 {
				resp, err := client.Get("http://" + r.addr + "/")
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				switch resp.StatusCode {
				case 200:
					passed.Add(1)
				case 429:
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != 100 || refused.Load() != 220 {
		t.Errorf("%d passed and %d were refused of 320, the bucket has 100", passed.Load(), refused.Load())
	}
	for name, want := range map[string]uint64{"enabled": 320, "ok": 100, "rate_limited": 220, "enforced": 220} {
		if got := r.stat("rl.http_local_rate_limit." + name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

func TestALimitedRequestIsToldSoOnBothSides(t *testing.T) {
	l := rateLimit(1)
	value, err := substitution.Parse("%PROTOCOL%")
	if err != nil {
		t.Fatal(err)
	}
	l.ResponseAdd = []resource.HeaderOption{{Name: "x-by", Value: value}}
	r := rateRig(t, l, nil)
	resp, _ := r.get("/")
	if resp.StatusCode != 200 || resp.Header.Get("x-ratelimit-limit") != "1" || resp.Header.Get("x-ratelimit-remaining") != "0" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	resp, body := r.get("/")
	if resp.StatusCode != 429 || body != "local_rate_limited" || resp.Header.Get("x-by") != "HTTP/1.1" || resp.Header.Get("x-ratelimit-reset") == "" {
		t.Errorf("got %d %q %v", resp.StatusCode, body, resp.Header)
	}
	l2 := rateLimit(1)
	l2.Enforced.PerMillion, l2.NotEnforcedAdd = 0, []resource.HeaderOption{{Name: "x-over", Value: value}}
	r = rateRig(t, l2, nil)
	r.get("/")
	if resp, body := r.get("/"); resp.StatusCode != 200 || body != "HTTP/1.1" {
		t.Errorf("the upstream was told %q, status %d", body, resp.StatusCode)
	}
}

func TestLimitsByRouteAndByConnection(t *testing.T) {
	spec := localratelimit.Spec()
	own := rateLimit(2)
	own.PerConnection = true
	r := rateRig(t, rateLimit(1), func(s *resource.Snapshot) {
		vh := s.Routes["r"].VirtualHosts[0]
		special := *vh.Routes[0]
		special.Match.Path = "/own"
		special.FilterConfig = map[string]any{spec.Name: spec.Build(own)}
		vh.Routes = append([]*resource.Route{&special}, vh.Routes...)
	})
	for range 3 {
		client := r.client()
		for i, want := range []int{200, 200, 429} {
			resp, err := client.Get("http://" + r.addr + "/own")
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("request %d of a connection: %d, want %d", i, resp.StatusCode, want)
			}
		}
	}
	if resp, _ := r.get("/"); resp.StatusCode != 200 {
		t.Errorf("the route took the chain's token: %d", resp.StatusCode)
	}
}

// What a mesh's limit by sourceIP comes to: naming other addresses is no way around it.
func TestALimitByTheConnectionsAddressIgnoresXForwardedFor(t *testing.T) {
	value, err := substitution.Parse("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%")
	if err != nil {
		t.Fatal(err)
	}
	l := rateLimit(1000)
	l.HasRateLimits = true
	l.RateLimits = []resource.RateLimit{{Hits: 1, Actions: []resource.RateAction{{Kind: resource.RateGenericKey, Key: "k", Value: value, Expect: true}}}}
	l.Descriptors = []resource.RateDescriptor{{Entries: []resource.RateEntry{{Key: "k"}}, Bucket: *rateLimit(2).Bucket}}
	r := rateRig(t, l, nil)
	client := r.client()
	for i, want := range []int{200, 200, 429} {
		q, err := http.NewRequest("GET", "http://"+r.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("X-Forwarded-For", "10.0.0."+strconv.Itoa(i))
		resp, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("request %d: %d, want %d", i, resp.StatusCode, want)
		}
	}
}

func TestAChainTakesNoMoreConnectionsThanItsRateAllows(t *testing.T) {
	rate := &resource.ConnectionRateLimit{
		StatPrefix: "cx", Bucket: resource.TokenBucket{Max: 3, PerFill: 1, Interval: time.Hour}, Enabled: resource.Percent{PerMillion: 1_000_000, Denominator: 1},
	}
	r := rateRig(t, rateLimit(1000), func(s *resource.Snapshot) {
		s.Listeners["l"].FilterChains[0].RateLimits = []*resource.ConnectionRateLimit{rate}
	})
	try := func() error {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
		resp, err := c.Get("http://" + r.addr + "/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for i := range 5 {
		if err := try(); (err == nil) != (i < 3) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	if n := r.stat("local_rate_limit.cx.rate_limited"); n != 2 {
		t.Errorf("rate_limited is %d", n)
	}
	// An update of something else leaves the bucket as it is; of the bucket makes a new one.
	l := *r.snap.Listeners["l"]
	l.StatPrefix = "other"
	r.snap.Listeners["l"] = &l
	r.apply(r.snap)
	if try() == nil {
		t.Error("the update has filled the bucket")
	}
	l2 := l
	fc, other := *l.FilterChains[0], *rate
	other.Bucket.Max = 1
	fc.RateLimits = []*resource.ConnectionRateLimit{&other}
	l2.FilterChains = []*resource.FilterChain{&fc}
	r.snap.Listeners["l"] = &l2
	r.apply(r.snap)
	if err := try(); err != nil {
		t.Errorf("the new bucket is not full: %v", err)
	}
	if try() == nil {
		t.Error("the new bucket has more than it holds")
	}
}
