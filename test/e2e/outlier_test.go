// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// outlierCase is a cluster with outlier detection, and what its endpoints answer:
// a status, "reset" or "hang", each list once for every endpoint.
type outlierCase struct {
	name     string
	detect   string // fields of outlier_detection
	http     string // fields of HttpProtocolOptions
	hosts    int
	nowhere  bool     // nothing listens at the endpoints
	send     []string // what the one endpoint answers, request by request
	share    []string // what each endpoint answers, over and over until one is ejected
	differs  string   // stats of ours that are meant to be other than Envoy's
	why      string
	anyCount bool // how often is not compared: the sidecar asks again what was surely not processed
}

const (
	slowInterval = "interval: 3600s, max_ejection_percent: 100, "
	fastInterval = "interval: 1s, max_ejection_percent: 20, consecutive_5xx: 1000000, consecutive_gateway_failure: 1000000, "
)

func repeat(n int, s ...string) []string { return slices.Repeat(s, n) }

var outlierCases = []outlierCase{
	{name: "five-errors", detect: slowInterval, send: repeat(5, "500")},
	{name: "a-success-between", detect: slowInterval, send: slices.Concat(repeat(4, "500"), repeat(1, "200"), repeat(4, "503"))},
	{name: "gateway", detect: slowInterval + "consecutive_5xx: 100, enforcing_consecutive_gateway_failure: 100", send: repeat(5, "502")},
	{name: "gateway-interrupted", detect: slowInterval + "consecutive_5xx: 100, consecutive_gateway_failure: 3, enforcing_consecutive_gateway_failure: 100", send: []string{"502", "503", "500", "504", "502"}},
	{name: "not-enforced", detect: slowInterval + "enforcing_consecutive_5xx: 0", send: repeat(5, "500")},
	{name: "too-many", detect: "interval: 3600s, max_ejection_percent: 0, enforcing_consecutive_5xx: 0", send: repeat(5, "500")},
	{name: "resets", detect: slowInterval + "consecutive_5xx: 100, enforcing_consecutive_gateway_failure: 100", send: repeat(5, "reset")},
	{name: "timeouts", detect: slowInterval + "consecutive_5xx: 100, enforcing_consecutive_gateway_failure: 100", send: repeat(5, "hang")},
	{name: "split-500", detect: slowInterval + "split_external_local_origin_errors: true, consecutive_5xx: 100, enforcing_consecutive_gateway_failure: 100", send: repeat(5, "500")},
	{name: "split-503", detect: slowInterval + "split_external_local_origin_errors: true", send: repeat(5, "503")},
	{name: "split-resets", detect: slowInterval + "split_external_local_origin_errors: true", send: repeat(5, "reset")},
	{name: "split-timeouts", detect: slowInterval + "split_external_local_origin_errors: true", send: repeat(5, "hang")},
	{name: "split-connect", detect: slowInterval + "split_external_local_origin_errors: true", nowhere: true, send: repeat(5, "200"), anyCount: true},
	{name: "matched", detect: slowInterval, http: errorMatcher("429", "430"), send: repeat(5, "429")},
	{name: "not-matched", detect: slowInterval, http: errorMatcher("429", "430"), send: repeat(5, "503")},
	{name: "matched-gateway", detect: slowInterval + "consecutive_5xx: 100, enforcing_consecutive_gateway_failure: 100", http: errorMatcher("500", "600"), send: repeat(5, "503")},

	{name: "success-rate", detect: fastInterval + "success_rate_request_volume: 10, failure_percentage_request_volume: 1000000", hosts: 6, share: []string{"503", "200", "200", "200", "200", "200"}, anyCount: true},
	{name: "success-rate-few-hosts", detect: fastInterval + "success_rate_request_volume: 10, success_rate_minimum_hosts: 7, failure_percentage_request_volume: 10, enforcing_failure_percentage: 100", hosts: 6, share: []string{"503", "200", "200", "200", "200", "200"}, anyCount: true},
	{name: "failure-percentage", detect: fastInterval + "enforcing_success_rate: 0, success_rate_minimum_hosts: 100, failure_percentage_request_volume: 10, enforcing_failure_percentage: 100", hosts: 5, share: []string{"200", "200", "500", "200", "200"}, anyCount: true},
	{name: "both", detect: fastInterval + "success_rate_request_volume: 10, failure_percentage_request_volume: 10, enforcing_failure_percentage: 100", hosts: 6, share: []string{"503", "200", "200", "200", "200", "200"}, anyCount: true,
		differs: "ejections_active ejections_detected_failure_percentage ejections_detected_success_rate ejections_enforced_success_rate ejections_enforced_total ejections_success_rate ejections_total out 0",
		why:     "an endpoint that its success rate has just ejected is not ejected once more, and so none is refused to be"},
	{name: "both-enforced", detect: slowInterval + "enforcing_consecutive_gateway_failure: 100", send: repeat(5, "503")},
	{name: "both-one-enforced", detect: slowInterval, send: repeat(5, "504")},
}

func errorMatcher(from, to string) string {
	return fmt.Sprintf(`outlier_detection: {error_matcher: {http_response_headers_match: {headers: [{name: ":status", range_match: {start: %s, end: %s}}]}}},`, from, to)
}

// outlierRig is one proxy with a listener and a cluster for each case.
type outlierRig struct {
	endpoints []string
	t         *testing.T
	admin     string
	listen    map[string]string
	text      string
	client    *http.Client
	dir       string
}

// startAnswering starts an endpoint that answers what its request asks of it.
func startAnswering(t *testing.T, index int) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers := strings.Split(r.Header.Get("x-answers"), ",")
		switch a := answers[min(index, len(answers)-1)]; a {
		case "reset":
			panic(http.ErrAbortHandler)
		case "hang":
			<-r.Context().Done()
		default:
			var status int
			if _, err := fmt.Sscan(a, &status); err != nil {
				status = 299
			}
			w.WriteHeader(status)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func newOutlierRig(t *testing.T, endpoints []string) *outlierRig {
	r := &outlierRig{endpoints: endpoints, t: t, admin: mesh.FreeAddress(t), listen: map[string]string{}, dir: t.TempDir(), client: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(r.client.CloseIdleConnections)
	var listeners, clusters strings.Builder
	for i := range outlierCases {
		c := &outlierCases[i]
		r.listen[c.name] = mesh.FreeAddress(t)
		fmt.Fprintf(&listeners, `
  - {name: %[1]s, address: %[2]s, filter_chains: [{filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h,
      route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: %[1]s, timeout: 0.1s}}]}]},
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}`, c.name, mesh.SocketAddress(r.listen[c.name]))
		list := ""
		for h := range max(c.hosts, 1) {
			a := endpoints[h]
			if c.nowhere {
				a = "127.0.0.1:1"
			}
			list += fmt.Sprintf("{endpoint: {address: %s}},", mesh.SocketAddress(a))
		}
		fmt.Fprintf(&clusters, `
  - {name: %[1]s, type: STATIC, connect_timeout: 1s, lb_policy: ROUND_ROBIN, common_lb_config: {healthy_panic_threshold: {value: 50}},
     load_assignment: {cluster_name: %[1]s, endpoints: [{lb_endpoints: [%[2]s]}]}, outlier_detection: {%[3]s},
     typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, %[4]s explicit_http_config: {http_protocol_options: {}}}}}`,
			c.name, list, c.detect, c.http)
	}
	r.text = fmt.Sprintf("node: {id: o, cluster: o}\nadmin: {address: %s}\nstatic_resources:\n  listeners:%s\n  clusters:%s\n", mesh.SocketAddress(r.admin), listeners.String(), clusters.String())
	return r
}

// send sends one request, by a method that nobody repeats.
func (r *outlierRig) send(c *outlierCase, answers string) {
	r.t.Helper()
	q, err := http.NewRequest(http.MethodPost, "http://"+r.listen[c.name]+"/", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	q.Header.Set("x-answers", answers)
	a, err := r.client.Do(q)
	if err != nil {
		r.t.Fatalf("%s: %v", c.name, err)
	}
	_ = a.Body.Close()
}

// stats are those of the case's outlier detection that are not 0, and which
// endpoints are out.
func (r *outlierRig) stats(c *outlierCase) (map[string]int, error) {
	body, err := mesh.Get("http://" + r.admin + "/stats?filter=outlier_detection")
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		name, ours := strings.CutPrefix(name, "cluster."+c.name+".outlier_detection.")
		var n int
		if _, err := fmt.Sscan(value, &n); err != nil || !ours || n == 0 {
			continue
		}
		out[name] = n
	}
	clusters, err := mesh.Get("http://" + r.admin + "/clusters")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(clusters) {
		if strings.HasPrefix(line, c.name+"::") && strings.Contains(line, "/failed_outlier_check") {
			out[fmt.Sprint("out ", slices.Index(r.endpoints, strings.Split(line, "::")[1]))] = 1
		}
	}
	return out, nil
}

// run plays the case and returns what was counted.
func (r *outlierRig) run(c *outlierCase, done func(map[string]int) bool) (got map[string]int) {
	r.t.Helper()
	for _, a := range c.send {
		r.send(c, a)
	}
	return r.await(c, done)
}

// await goes on with what the endpoints share until done.
func (r *outlierRig) await(c *outlierCase, done func(map[string]int) bool) (got map[string]int) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		for range 100 * min(len(c.share), 1) {
			r.send(c, strings.Join(c.share, ","))
		}
		var err error
		if got, err = r.stats(c); err != nil {
			r.t.Fatalf("%s: %v", c.name, err)
		}
		if done(got) || time.Now().After(deadline) {
			return got
		}
	}
}

func (c *outlierCase) text(m map[string]int) string {
	list := []string{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if c.anyCount {
			list = append(list, name)
		} else {
			list = append(list, fmt.Sprint(name, "=", m[name]))
		}
	}
	return strings.Join(list, " ")
}

// TestOutliersAreEnvoys: the same answers lead to the same ejections and the same
// stats, of the sidecar and of Envoy.
func TestOutliersAreEnvoys(t *testing.T) {
	mesh.NeedPeers(t)
	var endpoints []string
	for i := range 6 {
		endpoints = append(endpoints, startAnswering(t, i))
	}
	envoy, sidecar := newOutlierRig(t, endpoints), newOutlierRig(t, endpoints)
	e := mesh.StartEnvoy(t, envoy.dir, envoy.text, envoy.admin)
	mesh.StartFile(t, sidecar.dir, sidecar.text, sidecar.admin)
	same := 0
	for i := range outlierCases {
		c := &outlierCases[i]
		// What Envoy does is over when some looks, of which each comes later than the one
		// before, see the same of it: its main thread ejects after the answers.
		const looks = 8
		last, alike := "", 0
		want := c.text(envoy.run(c, func(m map[string]int) bool {
			if now := c.text(m); now != last {
				last, alike = now, 0
			}
			alike++
			return alike >= looks && (len(c.share) == 0 || m["ejections_active"] > 0)
		}))
		expect := want
		if c.differs != "" {
			expect = c.differs
		}
		got := c.text(sidecar.run(c, func(m map[string]int) bool { return c.text(m) == expect }))
		if got != expect && c.differs == "" { // its main thread was later than all looks
			want = c.text(envoy.await(c, func(m map[string]int) bool { return c.text(m) == got }))
			expect = want
		}
		switch {
		case got != expect && c.differs == "":
			t.Errorf("%s:\n envoy   %s\n sidecar %s", c.name, want, got)
		case got != expect:
			t.Errorf("%s:\n meant   %s (%s)\n sidecar %s", c.name, c.differs, c.why, got)
		case c.differs != "" && got == want:
			t.Errorf("%s: is listed as a difference, and is none: %s", c.name, got)
		case c.differs == "":
			same++
		}
	}
	if !e.Alive() {
		t.Error(errors.New("Envoy has ended"))
	}
	t.Logf("%d of %d sequences lead to Envoy's ejections and stats, %d differ as meant", same, len(outlierCases), len(outlierCases)-same)
}
