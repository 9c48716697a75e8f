// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// naming is a filter that names the endpoint of a header.
type naming struct{}

func (naming) OnRequest(x *filter.Exchange) filter.Verdict {
	if a, err := netip.ParseAddrPort(string(x.Request.Get("x-endpoint"))); err == nil {
		status, _ := strconv.Atoi(string(x.Request.Get("x-status")))
		x.Override = filter.Override{Address: a, Strict: x.Request.Get("x-strict") != nil, NotFound: status, Returns: x.Request.Get("x-returns") != nil}
	}
	return filter.Next
}

func TestAFilterNamesTheEndpoint(t *testing.T) {
	answers := func(text string, status int) string {
		return backend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		})
	}
	first, second, sick, failing := answers("first", 200), answers("second", 200), answers("sick", 200), answers("failing", 500)
	reg := filter.NewRegistry(filter.Spec{Name: "naming", TypeURL: "naming", New: func(any, filter.Worker) filter.Filter { return naming{} }})
	r := newRigWith(t, reg, func(s *resource.Snapshot) {
		withCluster(s, "c", first, second, sick, failing)
		s.Assignments["c"].Localities[0].Endpoints[2].Health = resource.Unhealthy
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 3, PreviousHosts: true}
		s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "n", TypeURL: "naming"}}
	})
	client := r.client()
	for _, tt := range []struct {
		endpoint, strict, status string
		want                     string // body, or a status; "any" for either of the first two
	}{
		{first, "", "", "first"}, {second, "", "", "second"}, {second, "yes", "", "second"},
		{"10.0.0.1:80", "", "", "any"}, {"10.0.0.1:80", "yes", "", "503"}, {"10.0.0.1:80", "yes", "410", "410"},
		{sick, "", "", "any"}, {sick, "yes", "410", "503"},
		{failing, "yes", "", "any"}, // a retry goes elsewhere
	} {
		for range 4 {
			q, err := http.NewRequest(http.MethodGet, "http://"+r.addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("X-Endpoint", tt.endpoint)
			if tt.strict != "" {
				q.Header.Set("X-Strict", tt.strict)
			}
			q.Header.Set("X-Status", tt.status)
			resp, err := client.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			got := string(body)
			if resp.StatusCode != http.StatusOK {
				got = strconv.Itoa(resp.StatusCode)
			}
			if got != tt.want && !(tt.want == "any" && (got == "first" || got == "second")) {
				t.Errorf("%+v was answered by %s", tt, got)
			}
		}
	}
	r.wantStats(map[string]uint64{"cluster.c.upstream_cx_none_healthy": 12})
}

// Of requests without a named endpoint 70 % go to the first member.
func TestTheEndpointThatAFilterNamesIsFoundInAnyMemberOfAnAggregate(t *testing.T) {
	first, sick, second := named(t, "first"), named(t, "sick"), named(t, "second")
	reg := filter.NewRegistry(filter.Spec{Name: "naming", TypeURL: "naming", New: func(any, filter.Worker) filter.Filter { return naming{} }})
	r := newRigWith(t, reg, func(s *resource.Snapshot) {
		withCluster(s, "a", first, sick)
		s.Assignments["a"].Localities[0].Endpoints[1].Health = resource.Unhealthy
		withCluster(s, "b", second)
		joinsClusters(s, "c", "a", "nowhere", "b")
		s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "n", TypeURL: "naming"}}
	})
	client := r.client()
	for _, tt := range []struct {
		endpoint string
		status   int
		body     string // "": any
	}{
		{first, 200, "first"}, {second, 200, "second"}, {sick, 503, ""}, {"10.0.0.1:80", 410, ""},
	} {
		for range 20 {
			q, err := http.NewRequest(http.MethodGet, "http://"+r.addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			q.Header = http.Header{"X-Endpoint": {tt.endpoint}, "X-Strict": {"yes"}, "X-Status": {"410"}}
			resp, err := client.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != tt.status || tt.body != "" && string(body) != tt.body {
				t.Errorf("%s was answered by %d %q, want %d %q", tt.endpoint, resp.StatusCode, body, tt.status, tt.body)
			}
		}
	}
}

// As in Envoy.
func TestTheEndpointThatAFilterNamesMayBeOutsideOfTheRoutesSubset(t *testing.T) {
	reg := filter.NewRegistry(filter.Spec{Name: "naming", TypeURL: "naming", New: func(any, filter.Worker) filter.Filter { return naming{} }})
	var two resource.Address
	r := newRigWith(t, reg, func(s *resource.Snapshot) {
		subsetCluster(t, s, "c", byVersion(resource.SubsetNoFallback), "1", "2")
		two = s.Assignments["c"].Localities[0].Endpoints[1].Address
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Clusters[0].MetadataMatch = wants("1")
		s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "n", TypeURL: "naming"}}
	})
	if _, body := r.get("/"); body != "1" {
		t.Errorf("of the route's subset: %q", body)
	}
	q, err := http.NewRequest(http.MethodGet, "http://"+r.addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("X-Endpoint", two.Host+":"+strconv.Itoa(int(two.Port)))
	resp, err := r.client().Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "2" {
		t.Errorf("named: %q", body)
	}
}

func TestHeadersNameTheEndpointsOfAllAttempts(t *testing.T) {
	answers := func(text string, status int) string {
		return backend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		})
	}
	first, second, sick, failing := answers("first", 200), answers("second", 200), answers("sick", 200), answers("failing", 500)
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", first, second, sick, failing).LB.Named = &resource.NamedHosts{Headers: []string{"x-to", "x-more"}}
		s.Assignments["c"].Localities[0].Endpoints[2].Health = resource.Unhealthy
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 3, PreviousHosts: true}
	})
	client := r.client()
	for _, tt := range []struct{ to, more, want string }{
		{first, "", "first"}, {"", second, "second"}, {sick, "", "sick"}, {first + "," + second, "", "first"},
		{"10.0.0.1:80, nonsense ,, " + second, first, "second"},
		{failing + ", " + second, "", "second"}, {failing, "10.0.0.1:80," + sick, "sick"},
		{failing, "", "any"}, {"10.0.0.1:80", "", "any"}, {"", "", "any"},
	} {
		for range 4 {
			q, err := http.NewRequest(http.MethodGet, "http://"+r.addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("X-To", tt.to)
			q.Header.Set("X-More", tt.more)
			resp, err := client.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if got := string(body); got != tt.want && !(tt.want == "any" && (got == "first" || got == "second")) {
				t.Errorf("%+v was answered by %s", tt, got)
			}
		}
	}
}

// A session that a fallback has put into another subset comes back.
func TestTheEndpointThatAFilterNamesIsLeftForTheRoutesSubset(t *testing.T) {
	reg := filter.NewRegistry(filter.Spec{Name: "naming", TypeURL: "naming", New: func(any, filter.Worker) filter.Filter { return naming{} }})
	for _, tt := range []struct {
		name, asked string
		headers     []string
		sick        bool // all of the subset that is asked for
		want        string
	}{
		{"there is one", "1", []string{"X-Returns"}, false, "1"},
		{"it is unhealthy", "1", []string{"X-Returns"}, true, "2"},
		{"there is none", "9", []string{"X-Returns"}, false, "2"},
		{"the endpoint is of it", "2", []string{"X-Returns"}, false, "2"},
		{"strict", "1", []string{"X-Returns", "X-Strict"}, false, "2"},
		{"not to return", "1", nil, false, "2"},
	} {
		var two resource.Address
		r := newRigWith(t, reg, func(s *resource.Snapshot) {
			subsetCluster(t, s, "c", byVersion(resource.SubsetAny), "1", "2")
			two = s.Assignments["c"].Localities[0].Endpoints[1].Address
			if tt.sick {
				s.Assignments["c"].Localities[0].Endpoints[0].Health = resource.Unhealthy
			}
			s.Routes["r"].VirtualHosts[0].Routes[0].Action.Clusters[0].MetadataMatch = wants(tt.asked)
			s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "n", TypeURL: "naming"}}
		})
		for range 4 {
			q, err := http.NewRequest(http.MethodGet, "http://"+r.addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("X-Endpoint", two.Host+":"+strconv.Itoa(int(two.Port)))
			for _, h := range tt.headers {
				q.Header.Set(h, "yes")
			}
			resp, err := r.client().Do(q)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if string(body) != tt.want {
				t.Errorf("%s: answered by %d %q, want %q", tt.name, resp.StatusCode, body, tt.want)
			}
		}
	}
}
