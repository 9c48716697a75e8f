// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// subsetCluster has endpoints of the versions, each of which answers with its own.
func subsetCluster(t testing.TB, s *resource.Snapshot, name string, sub *resource.Subsets, versions ...string) {
	var addrs []string
	for _, v := range versions {
		addrs = append(addrs, backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, v) }))
	}
	withCluster(s, name, addrs...).LB.Subsets = sub
	for i, v := range versions {
		s.Assignments[name].Localities[0].Endpoints[i].Metadata = resource.Metadata{resource.LBNamespace: {"version": v}}
	}
}

func wants(version string) *resource.MetadataMatch {
	return &resource.MetadataMatch{Labels: []resource.Label{resource.TextLabel("version", version)}}
}

func byVersion(fallback resource.SubsetFallback) *resource.Subsets {
	return &resource.Subsets{Fallback: fallback, Selectors: []resource.SubsetSelector{{Keys: []string{"version"}, Fallback: resource.SubsetInherit}}}
}

func TestRequestsGoToTheSubsetOfTheirRoute(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) {
		subsetCluster(t, s, "c", byVersion(resource.SubsetNoFallback), "1", "2", "2")
		subsetCluster(t, s, "any", byVersion(resource.SubsetAny), "1", "2")
		subsetCluster(t, s, "copies", byVersion(resource.SubsetAny), "1")
		routes := &s.Routes["r"].VirtualHosts[0].Routes
		route := func(path string, clusters ...resource.WeightedCluster) *resource.Route {
			a := *(*routes)[len(*routes)-1].Action
			a.Clusters = clusters
			n := &resource.Route{Name: path, Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: path}, Action: &a}
			*routes = append([]*resource.Route{n}, *routes...)
			return n
		}
		route("/one", resource.WeightedCluster{Name: "c", Weight: 1, MetadataMatch: wants("1")})
		route("/two", resource.WeightedCluster{Name: "c", Weight: 0, MetadataMatch: wants("1")}, resource.WeightedCluster{Name: "c", Weight: 1, MetadataMatch: wants("2")})
		route("/nine", resource.WeightedCluster{Name: "c", Weight: 1, MetadataMatch: wants("9")})
		header := route("/header")
		header.Action.ClusterHeader, header.Action.MetadataMatch = "x-to", wants("2")
		route("/fallback", resource.WeightedCluster{Name: "any", Weight: 1, MetadataMatch: wants("9")}).
			Action.Mirrors = []resource.Mirror{{Cluster: "copies", Fraction: resource.Percent{PerMillion: 1e6}}}
	})
	client := r.client()
	ask := func(path string) string {
		t.Helper()
		q, err := http.NewRequest(http.MethodGet, "http://"+r.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("X-To", "c")
		resp, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			return resp.Status[:3]
		}
		return string(body)
	}
	for path, want := range map[string]string{"/one": "1", "/two": "2", "/nine": "503", "/header": "2", "/fallback": "1 2", "/": "503"} {
		var got []string
		for range 6 {
			got = append(got, ask(path))
		}
		slices.Sort(got)
		if text := strings.Join(slices.Compact(got), " "); text != want {
			t.Errorf("%s was answered by %s, want %s", path, text, want)
		}
	}
	r.wantStats(map[string]uint64{
		"cluster.c.lb_subsets_active": 2, "cluster.c.lb_subsets_created": 2, "cluster.c.lb_subsets_removed": 0,
		"cluster.c.lb_subsets_selected": 18, "cluster.c.lb_subsets_fallback": 0,
		"cluster.any.lb_subsets_fallback": 6, "cluster.any.lb_subsets_selected": 0, "cluster.any.lb_subsets_fallback_panic": 0,
		"outrigger.cluster.c.lb_subsets_omitted": 0,
	})
	for path, want := range map[string][2]string{
		"/one":      {"c, the only endpoint", "the subset that the route asks for"},
		"/two":      {"c, c, one of 2 endpoints", "the subset that the route asks for"},
		"/nine":     {"503: the subset version=9 of c has no endpoint", "no endpoint is in the subset that the route asks for (version=9), and there is no fallback"},
		"/fallback": {"any, one of 2 endpoints", "the subset of the fallback"},
	} {
		e, err := r.p.Explain(Query{Listener: "l", Path: path})
		if err != nil {
			t.Fatal(err)
		}
		told := slices.ContainsFunc(e.Steps, func(s ExplainStep) bool { return strings.HasSuffix(s.Reason, want[1]) })
		if path != "/two" && e.Outcome != want[0] || !told {
			t.Errorf("%s is explained by %q, %+v, want %q and %q", path, e.Outcome, e.Steps, want[0], want[1])
		}
	}
}

func TestDetailsNameTheSubsetThatIsEmpty(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) {
		subsetCluster(t, s, "c", byVersion(resource.SubsetNoFallback), "1")
		s.Listeners["l"].FilterChains[0].HTTP.LocalReplyFormat = &resource.LogFormat{JSON: []resource.LogField{
			{Name: "details", Format: &resource.Format{Parts: []substitution.Part{{Command: "RESPONSE_CODE_DETAILS"}}}},
		}}
		routes := &s.Routes["r"].VirtualHosts[0].Routes
		plain := *(*routes)[0].Action
		plain.Clusters = []resource.WeightedCluster{{Name: "c", Weight: 1}}
		*routes = append([]*resource.Route{{Name: "plain", Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: "/plain"}, Action: &plain}}, *routes...)
		to := &(*routes)[1].Action.Clusters[0]
		to.MetadataMatch = &resource.MetadataMatch{Labels: []resource.Label{resource.TextLabel("stage", "my own"), resource.TextLabel("version", "9")}}
	})
	if resp, body := r.get("/"); resp.StatusCode != 503 || body != `{"details":"no_healthy_upstream{empty_subset:stage=my_own,version=9}"}` {
		t.Errorf("answered %d %s", resp.StatusCode, body)
	}
	if _, body := r.get("/plain"); body != `{"details":"no_healthy_upstream"}` {
		t.Errorf("without labels: %s", body)
	}
}

func TestConnectionsGoToTheSubsetOfTheirCluster(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) {
		subsetCluster(t, s, "c", byVersion(resource.SubsetNoFallback), "1", "2", "1")
		s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
			StatPrefix: "t", MaxConnectAttempts: 1, IdleTimeout: time.Hour,
			Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1, MetadataMatch: wants("2")}},
		}}
	})
	for range 4 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		got, err := io.ReadAll(c)
		_ = c.Close()
		if err != nil || !strings.HasSuffix(string(got), "\r\n\r\n2") {
			t.Fatalf("answered %q, %v, want version 2", got, err)
		}
	}
	r.wantStats(map[string]uint64{"cluster.c.lb_subsets_selected": 4})
}
