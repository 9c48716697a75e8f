// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestPromtoolAcceptsTheMetricsOfARunningProxy(t *testing.T) {
	b := backend(t, func(http.ResponseWriter, *http.Request) {})
	r := statusRig(t, 2, func(s *resource.Snapshot) {
		c := withCluster(s, "c", b)
		c.Default.TrackRemaining, c.Outlier = true, &resource.OutlierDetection{Consecutive5xx: 5, Interval: time.Second}
		c.Breaker = &resource.CircuitBreaker{Enabled: true, Window: time.Second, Buckets: 10}
		withCluster(s, "outbound|80||a.example")
	})
	r.get("/")
	var all []metrics.Sample
	for _, s := range r.stats() {
		all = append(all, s)
	}
	var out bytes.Buffer
	if err := metrics.WritePrometheus(&out, all); err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(&out).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
