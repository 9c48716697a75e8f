// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// sampleList has each kind of name and value once.
func sampleList() []Sample {
	orders := NewScope("cluster.orders", "cluster", Tag{"envoy_cluster_name", "orders"})
	odd := NewScope("cluster.a\"b", "cluster", Tag{"envoy_cluster_name", "a\"b\\c\nd\xff"})
	manager := NewScope("http.in", "http", Tag{"envoy_http_conn_manager_prefix", "in"})
	own := NewScope("outrigger.worker_0", "outrigger.worker", Tag{"envoy_worker_id", "0"})
	var h Histogram
	for _, micros := range []uint64{300, 700, 2000, 40000, 5_000_000} {
		h.Record(micros)
	}
	return []Sample{
		{Scope: orders, Name: "upstream_rq_total", Help: "Requests.", Value: 12},
		{Scope: odd, Name: "upstream_rq_total", Help: "Requests.", Value: 1},
		{Scope: orders, Name: "upstream_rq_2xx", Help: "Responses.", Value: 10},
		{Scope: orders, Name: "upstream_rq_5xx", Help: "Responses.", Value: 2},
		{Scope: orders, Name: "upstream_rq_503", Help: "Responses.", Value: 2},
		{Scope: manager, Name: "downstream_rq_2xx", Help: "Responses with a \\ and\na new line.", Value: 10},
		{Scope: orders, Name: "membership_total", Help: "Endpoints.", Kind: KindGauge, Value: 3},
		{Scope: orders, Name: "upstream_cx_connect_fail", Help: "Failures.", Value: 0},
		{Scope: orders, Name: "upstream_rq_time", Help: "Times.", Kind: KindHistogram, Unit: Micros, Histogram: &h},
		{Name: "server.live", Help: "Live.", Kind: KindGauge, Value: 1},
		{Name: "server.plain", Kind: KindHistogram, Histogram: &h},
		{Name: "outrigger.panics_total", Help: "Panics.", Value: 0},
		{Scope: own, Name: "open", Help: "Connections.", Kind: KindGauge, Value: 1 << 63},
		{Scope: orders, Name: "upstream_rq_total", Help: "Requests.", Value: 30}, // the same again
		{Scope: orders, Name: "upstream_rq-total", Kind: KindGauge, Value: 5},    // collides as a metric
	}
}

func TestPrometheusTextHasEnvoysNames(t *testing.T) {
	var b bytes.Buffer
	if err := WritePrometheus(&b, sampleList()); err != nil {
		t.Fatal(err)
	}
	const path = "testdata/prometheus.txt"
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s: got\n%s", path, b.Bytes())
	}
}

func TestLongLabelsAreCutAndStayApart(t *testing.T) {
	long := strings.Repeat("ü", 2000)
	var b bytes.Buffer
	err := WritePrometheus(&b, []Sample{
		{Scope: NewScope("cluster.1", "cluster", Tag{"envoy_cluster_name", long + "1"}), Name: "x", Value: 1},
		{Scope: NewScope("cluster.2", "cluster", Tag{"envoy_cluster_name", long + "2"}), Name: "x", Value: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("want two lines of comment and two of numbers, got\n%s", b.String())
	}
	for _, l := range lines {
		if len(l) > maxLabelBytes+100 {
			t.Errorf("a line of %d bytes", len(l))
		}
		if strings.ContainsRune(l, '\uFFFD') {
			t.Errorf("a rune was cut in two: %q", l)
		}
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestAnErrorOfTheWriterIsTold(t *testing.T) {
	if err := WritePrometheus(brokenPipe{}, sampleList()); err == nil {
		t.Error("no error")
	}
}

func TestResponseCodesBecomeLabels(t *testing.T) {
	for _, c := range []struct{ name, stem, label string }{
		{"upstream_rq_2xx", "upstream_rq_xx", `envoy_response_code_class="2"`},
		{"upstream_rq_503", "upstream_rq", `envoy_response_code="503"`},
		{"external.upstream_rq_200", "external.upstream_rq", `envoy_response_code="200"`},
		{"upstream_rq_time", "upstream_rq_time", ""},
		{"upstream_rq_50", "upstream_rq_50", ""},
		{"_rq_5x0", "_rq_5x0", ""},
		{"rq_200", "rq_200", ""},
		{"", "", ""},
	} {
		if stem, label := responseCode(c.name); stem != c.stem || label != c.label {
			t.Errorf("%q: got %q, %q; want %q, %q", c.name, stem, label, c.stem, c.label)
		}
	}
}
