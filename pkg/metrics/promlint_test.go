// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestPromtoolAcceptsTheText(t *testing.T) {
	var b bytes.Buffer
	if err := WritePrometheus(&b, sampleList()); err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(bytes.NewReader(b.Bytes())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&b)
	if err != nil {
		t.Fatal(err)
	}
	if h := families["envoy_cluster_upstream_rq_time"].GetMetric()[0].GetHistogram(); h.GetSampleCount() != 5 || h.GetSampleSum() != 5043 {
		t.Errorf("histogram as read back: %v", h)
	}
	for _, m := range families["envoy_cluster_upstream_rq_total"].GetMetric() {
		if v := m.GetLabel()[0].GetValue(); v == "orders" && m.GetCounter().GetValue() != 42 {
			t.Errorf("merged counter as read back: %v", m)
		} else if v != "orders" && v != "a\"b\\c\nd\uFFFD" {
			t.Errorf("label as read back: %q", v)
		}
	}
}
