// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// stages are the explained steps of some stages, a line each, and the outcome.
func (r *rig) stages(q Query, stages ...string) string {
	r.t.Helper()
	q.Authority = "x"
	e, err := r.p.Explain(q)
	if err != nil {
		r.t.Fatal(err)
	}
	data, err := json.Marshal(e) // what -o json shows
	if err != nil {
		r.t.Fatal(err)
	}
	var shown Explanation
	if err := json.Unmarshal(data, &shown); err != nil {
		r.t.Fatal(err)
	}
	out := ""
	for _, s := range shown.Steps {
		for _, stage := range stages {
			if s.Stage == stage {
				out += s.Name + ": " + s.Reason + "\n"
			}
		}
	}
	return out + shown.Outcome
}

func TestFallbacksAreExplained(t *testing.T) {
	all := &resource.Fallback{
		Cluster: "standby", Cached: &resource.CachedFallback{MaxAge: time.Minute},
		Static: &resource.DirectResponse{Status: 203, Body: []byte("ours")},
	}
	const when = ", where c does not answer (circuit, limits, no endpoint, connection, reset, timeout): "
	const kept = "last good answer: of c, then: the last good answer to the same request, of 1m0s at most, if there is one\n"
	const written = "203: of c, then: an answer of the sidecar itself, of 4 bytes\n"
	for _, tt := range []struct {
		name  string
		query Query
		edit  func(*resource.Snapshot)
		want  string
	}{
		{"none", Query{}, func(s *resource.Snapshot) { s.Clusters["c"].Fallback = nil }, "c, the only endpoint"},
		{"all parts", Query{}, nil, "standby: of c" + when + "gets the request, and its body is here; endpoints: 1\n" + kept + written + "c, the only endpoint"},
		{"of a POST", Query{Method: "POST"}, nil,
			"standby: of c" + when + "gets the request if it surely was not processed, and its body is here; endpoints: 1\n" +
				"last good answer: of c, then: nothing: none is kept of such a request\n" + written + "c, the only endpoint"},
		{"of who says who asks", Query{Headers: [][2]string{{"cookie", "a=b"}}}, nil,
			"standby: of c" + when + "gets the request, and its body is here; endpoints: 1\n" +
				"last good answer: of c, then: nothing: none is kept of such a request\n" + written + "c, the only endpoint"},
		{"the route's", Query{}, func(s *resource.Snapshot) {
			s.Routes["r"].VirtualHosts[0].Routes[0].Action.Fallback = &resource.Fallback{Static: &resource.DirectResponse{Status: 204}}
		}, "204: of the route" + when + "an answer of the sidecar itself, of 0 bytes\nc, the only endpoint"},
		{"the cluster has no endpoint", Query{}, func(s *resource.Snapshot) { s.Assignments["c"] = assignment("c") },
			"standby: of c" + when + "gets the request, and its body is here; endpoints: 1\n" + kept + written + "503: c has no endpoint; its fallback answers: standby"},
		{"nor has the other", Query{}, func(s *resource.Snapshot) {
			s.Assignments["c"], s.Assignments["standby"] = assignment("c"), assignment("standby")
		}, "standby: of c" + when + "gets the request, and its body is here; it has no endpoint\n" + kept + written + "503: c has no endpoint; its fallback answers: 203"},
		{"the other is not there", Query{}, func(s *resource.Snapshot) { delete(s.Clusters, "standby") },
			"standby: of c" + when + "nothing: it is not configured\n" + kept + written + "c, the only endpoint"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(s *resource.Snapshot) {
				withCluster(s, "c", "192.0.2.1:80").Fallback = all
				withCluster(s, "standby", "192.0.2.2:80")
				if tt.edit != nil {
					tt.edit(s)
				}
			})
			if got := r.stages(tt.query, "fallback"); got != tt.want {
				t.Errorf("\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// asSession stands for the configuration of a filter that names endpoints.
type asSession struct {
	by     string
	strict bool
}

func (s asSession) Overrides([]byte) (string, bool) { return s.by, s.strict }

func TestWhatDecidesBeforeBalancingIsExplained(t *testing.T) {
	var route *resource.Route
	r := newRigWith(t, filter.NewRegistry(filter.Spec{Name: "session", TypeURL: "t/session"}), func(s *resource.Snapshot) {
		withCluster(s, "c", "192.0.2.1:80", "192.0.2.2:80").LB.Named = &resource.NamedHosts{Headers: []string{"x-host"}}
		s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "session", TypeURL: "t/session", Config: asSession{"the cookie sid", false}}}
		route = s.Routes["r"].VirtualHosts[0].Routes[0]
	})
	const header = "x-host: the header decides first: the endpoints of c that it lists, whatever their health, one for each attempt; "
	for value, want := range map[string]string{
		"":                           "it is absent",
		"192.0.2.2:80, 192.0.2.1:80": `it is "192.0.2.2:80, 192.0.2.1:80", which is one`,
		"192.0.2.9:80":               `it is "192.0.2.9:80"`,
	} {
		q := Query{}
		if value != "" {
			q.Headers = [][2]string{{"x-host", value}}
		}
		want := "session: the cookie sid decides first: the endpoint that it names, if the cluster has it and it is not unhealthy\n" + header + want + "\nc, one of 2 endpoints"
		if got := r.stages(q, "session"); got != want {
			t.Errorf("\n%s\nwant\n%s", got, want)
		}
	}
	for _, tt := range []struct {
		own  asSession
		want string
	}{
		{asSession{"the header x-s", true}, "session: the header x-s decides first: the endpoint that it names, or 503 where that cannot be had\n"},
		{asSession{}, ""},
	} {
		own := *route
		own.FilterConfig = map[string]any{"session": tt.own}
		vh := *r.snap.Routes["r"].VirtualHosts[0]
		vh.Routes = []*resource.Route{&own}
		r.snap.Routes["r"] = &resource.RouteConfig{Name: "r", VirtualHosts: []*resource.VirtualHost{&vh}}
		r.apply(r.snap)
		if got := r.stages(Query{}, "session"); !strings.HasPrefix(got, tt.want+header) {
			t.Errorf("\n%s\nwant\n%s", got, tt.want)
		}
	}
}
