// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
)

func someSamples() []metrics.Sample {
	scope := metrics.NewScope("cluster.orders", "cluster", metrics.Tag{Name: "envoy_cluster_name", Value: "orders"})
	h := new(metrics.Histogram)
	for v := range uint64(100) {
		h.Record(v * 1000)
	}
	return []metrics.Sample{
		{Scope: scope, Name: "membership_total", Kind: metrics.KindGauge, Value: 2},
		{Scope: scope, Name: "upstream_rq_retry", Value: 0},
		{Scope: scope, Name: "upstream_rq_time", Kind: metrics.KindHistogram, Unit: metrics.Micros, Histogram: h},
		{Scope: scope, Name: "upstream_rq_total", Value: 7},
		{Scope: scope, Name: "upstream_wait", Kind: metrics.KindHistogram, Unit: metrics.Micros},
	}
}

func TestTextsAreShownFirstAndNotToPrometheus(t *testing.T) {
	p := open(t, func(c *Config) {
		c.Samples = func() []metrics.Sample {
			return []metrics.Sample{
				{Name: "cluster.a", Value: 1}, {Name: "cluster.b.version_text", Kind: metrics.KindText, Text: "v\"1\n"}, {Name: "cluster.c.version_text", Kind: metrics.KindText},
			}
		}
	})
	const texts = "cluster.b.version_text: \"v\\\"1\\n\"\ncluster.c.version_text: \"\"\n"
	p.want("GET", "/stats?filter=^cluster.[abc]", 200, texts+"cluster.a: 1\n")
	p.want("GET", "/stats?type=TextReadouts", 200, texts)
	p.want("GET", "/stats?type=TextReadouts&usedonly", 200, strings.SplitAfter(texts, "\n")[0])
	p.want("GET", "/stats?type=TextReadouts&format=json", 200, `{"stats":[{"name":"cluster.b.version_text","value":"v\"1\n"},{"name":"cluster.c.version_text","value":""}]}`)
	if _, body := p.do("GET", "/stats?format=prometheus"); strings.Contains(body, "version_text") {
		t.Errorf("shown to Prometheus: %s", body)
	}
}

func TestStatsAreShownAsTextJSONAndPrometheus(t *testing.T) {
	p := open(t, nil)
	p.want("GET", "/stats?filter=^cluster", 200, `cluster.orders.membership_total: 2
cluster.orders.upstream_rq_retry: 0
cluster.orders.upstream_rq_total: 7
cluster.orders.upstream_rq_time: P0(nan,0) P25(nan,28.671) P50(nan,57.343) P75(nan,81.919) P90(nan,98.303) P95(nan,98.303) P99(nan,114.687) P99.5(nan,114.687) P99.9(nan,114.687) P100(nan,114.687)
cluster.orders.upstream_wait: No recorded values
`)
	p.want("GET", "/stats?filter=^cluster&usedonly&type=Counters", 200, "cluster.orders.upstream_rq_total: 7\n")
	p.want("GET", "/stats?filter=^cluster&type=Gauges", 200, "cluster.orders.membership_total: 2\n")
	_, body := p.do("GET", "/stats?filter=rq_time&histogram_buckets=disjoint")
	if want := "cluster.orders.upstream_rq_time: B0.5(nan,1) B1(nan,"; !strings.HasPrefix(body, want) || strings.Count(body, "B") != len(metrics.Bounds) {
		t.Errorf("buckets: %s", body)
	}
	var out struct {
		Stats []struct {
			Name       string
			Value      uint64
			Histograms struct {
				Supported []float64 `json:"supported_quantiles"`
				Computed  []struct {
					Name   string
					Values []struct{ Cumulative, Interval *float64 }
				} `json:"computed_quantiles"`
			}
		}
	}
	_, body = p.do("GET", "/stats?format=json&filter=^cluster")
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if len(out.Stats) != 4 || out.Stats[2].Value != 7 {
		t.Fatalf("stats as JSON: %s", body)
	}
	h := out.Stats[3].Histograms
	if len(h.Supported) != 10 || len(h.Computed) != 2 || len(h.Computed[0].Values) != 10 ||
		h.Computed[0].Values[9].Cumulative == nil || h.Computed[1].Values[0].Cumulative != nil {
		t.Errorf("histograms as JSON: %s", body)
	}
	_, body = p.do("GET", "/stats?format=json&histogram_buckets=cumulative&type=Histograms")
	if !json.Valid([]byte(body)) || !strings.Contains(body, `{"upper_bound":50,"interval":null,"cumulative":`) {
		t.Errorf("buckets as JSON: %s", body)
	}
	for _, path := range []string{"/stats/prometheus?usedonly", "/stats?format=prometheus&usedonly"} {
		resp, body := p.do("GET", path)
		if resp.Header.Get("Content-Type") != metrics.PrometheusType ||
			!strings.Contains(body, "\nenvoy_cluster_upstream_rq_total{envoy_cluster_name=\"orders\"} 7\n") ||
			!strings.Contains(body, "\nenvoy_server_live 1\n") || !strings.Contains(body, "\nenvoy_server_concurrency 2\n") ||
			strings.Contains(body, "upstream_rq_retry") {
			t.Errorf("%s: %s", path, body)
		}
	}
	for _, c := range []string{
		"/stats?filter=[", "/stats?format=html", "/stats?type=x", "/stats?histogram_buckets=detailed", "/clusters?format=x",
		"/clusters?filter=(", "/stats?filter=" + strings.Repeat("a", 2000), "/stats?a=%zz",
	} {
		if resp, body := p.do("GET", c); resp.StatusCode != 400 || body == "" {
			t.Errorf("%.60s: got %d %q, want 400 with a reason", c, resp.StatusCode, body)
		}
	}
}

func TestResetCountersCountFromZeroAndGaugesStay(t *testing.T) {
	var total atomic.Uint64
	total.Store(7)
	p := open(t, func(c *Config) {
		c.Proxy = &fixed{samples: func() []metrics.Sample {
			return []metrics.Sample{
				{Name: "x.counter", Value: total.Load() - 1}, {Name: "x.gauge", Kind: metrics.KindGauge, Value: 3},
				{Name: "x.counter", Value: 1}, // the same name twice
			}
		}}
	})
	shows := func(n int) {
		t.Helper()
		p.want("GET", "/stats?filter=^x", 200, fmt.Sprintf("x.counter: %d\nx.gauge: 3\n", n))
	}
	shows(7)
	p.want("POST", "/reset_counters", 200, "OK\n")
	shows(0)
	total.Store(9)
	shows(2)
	total.Store(1) // began anew with its cluster
	shows(1)
}

func TestStatsOfAProxyThatDoesNotAnswerAreAnError(t *testing.T) {
	p := open(t, func(c *Config) { c.Proxy = &fixed{err: errors.New("worker 1 did not answer")} })
	for _, path := range []string{"/stats", "/stats/prometheus"} {
		if resp, body := p.do("GET", path); resp.StatusCode != 503 || !strings.Contains(body, "worker 1") {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
	p.want("GET", "/ready", 200, "LIVE\n")
}
