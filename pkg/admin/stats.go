// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
)

// selection says which numbers are shown.
type selection struct {
	filter   func(string) bool // nil: all
	usedOnly bool
	kind     metrics.Kind
	anyKind  bool
}

func (r *request) selection() (sel selection, ok bool) {
	re, ok := r.regexp("filter")
	if !ok {
		return sel, false
	}
	if re != nil {
		sel.filter = re.MatchString
	}
	sel.usedOnly = r.query.Has("usedonly")
	switch t := r.query.Get("type"); t {
	case "", "All":
		sel.anyKind = true
	case "Counters":
		sel.kind = metrics.KindCounter
	case "Gauges":
		sel.kind = metrics.KindGauge
	case "Histograms":
		sel.kind = metrics.KindHistogram
	case "TextReadouts":
		sel.kind = metrics.KindText
	default:
		r.fail(http.StatusBadRequest, fmt.Sprintf("type %q: want All, Counters, Gauges, Histograms or TextReadouts", t))
		return sel, false
	}
	return sel, true
}

func (sel *selection) holds(s *metrics.Sample) bool {
	return (sel.anyKind || s.Kind == sel.kind) && (!sel.usedOnly || s.Used()) &&
		(sel.filter == nil || sel.filter(s.FullName()))
}

// samples collects all numbers.
func (s *Server) samples(ctx context.Context) ([]metrics.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	list, err := s.config.Proxy.Stats(ctx)
	if err != nil {
		return nil, err
	}
	list = s.appendServer(list)
	if s.config.Samples != nil {
		list = append(list, s.config.Samples()...)
	}
	return s.withInherited(list), nil
}

// appendServer adds Envoy's stats of the process.
func (s *Server) appendServer(list []metrics.Sample) []metrics.Sample {
	m, st := readMemory(), s.state()
	live := uint64(0)
	if st == Live {
		live = 1
	}
	for _, g := range [...]struct {
		name, help string
		value      uint64
	}{
		{"server.live", "1 while the process is ready for traffic.", live},
		{"server.state", "0 live, 1 draining, 2 pre-initializing, 3 initializing.", uint64(st)},
		{"server.uptime", "Age of the process in whole seconds.", uint64(time.Since(s.config.Started) / time.Second)},
		{"server.concurrency", "Workers.", uint64(max(s.config.Concurrency, 0))},
		{"server.memory_allocated", "Bytes of live and not yet collected objects.", m.allocated},
		{"server.memory_heap_size", "Bytes taken from the system and not given back.", m.heap},
		{"server.memory_physical_size", "Bytes that are resident.", m.physical},
		{"server.hot_restart_epoch", "How many processes have handed over before this one.", uint64(max(s.config.Epoch, 0))},
		{"outrigger.goroutines", "Goroutines.", uint64(runtime.NumGoroutine())},
	} {
		list = append(list, metrics.Sample{Name: g.name, Help: g.help, Kind: metrics.KindGauge, Value: g.value})
	}
	return list
}

// sinceReset takes from counters what they were at the last reset. A counter
// that is below that began anew, with its cluster for example.
func (s *Server) sinceReset(list []metrics.Sample) []metrics.Sample {
	base := s.baseline.Load()
	if base == nil {
		return list
	}
	list = metrics.Sort(list) // adds up what has one name
	for i := range list {
		if list[i].Kind != metrics.KindCounter {
			continue
		}
		if b := (*base)[list[i].FullName()]; b <= list[i].Value {
			list[i].Value -= b
		}
	}
	return list
}

// selected answers with an error itself where it returns false.
func (s *Server) selected(r *request) ([]metrics.Sample, bool) {
	sel, ok := r.selection()
	if !ok {
		return nil, false
	}
	list, err := s.samples(r.Context())
	if err != nil {
		r.fail(http.StatusServiceUnavailable, err.Error())
		return nil, false
	}
	list = s.sinceReset(list)
	kept := list[:0]
	for i := range list {
		if sel.holds(&list[i]) {
			kept = append(kept, list[i])
		}
	}
	return kept, true
}

func runPrometheus(s *Server, r *request) {
	list, ok := s.selected(r)
	if !ok {
		return
	}
	r.ResponseWriter.Header().Set("Content-Type", metrics.PrometheusType)
	if err := metrics.WritePrometheus(r.ResponseWriter, list); err != nil {
		s.log.Debug("metrics not written", "error", err)
	}
}

// buckets says how histograms are shown.
type buckets uint8

const (
	quantiles buckets = iota
	cumulative
	disjoint
)

func runStats(s *Server, r *request) {
	var how buckets
	switch b := r.query.Get("histogram_buckets"); b {
	case "", "none", "summary":
	case "cumulative":
		how = cumulative
	case "disjoint":
		how = disjoint
	default:
		r.fail(http.StatusBadRequest, fmt.Sprintf("histogram_buckets %q: want none, cumulative or disjoint", b))
		return
	}
	format := r.query.Get("format")
	switch format {
	case "prometheus":
		runPrometheus(s, r)
		return
	case "", "text", "json":
	default:
		r.fail(http.StatusBadRequest, fmt.Sprintf("format %q: want text, json or prometheus", format))
		return
	}
	list, ok := s.selected(r)
	if !ok {
		return
	}
	list = metrics.Sort(list)
	r.setType(format == "json")
	w := &statsWriter{Writer: bufio.NewWriterSize(r.ResponseWriter, 16<<10), how: how}
	if format == "json" {
		w.json(list)
	} else {
		w.text(list)
	}
	if err := w.Flush(); err != nil {
		s.log.Debug("stats not written", "error", err)
	}
}

// statsWriter writes Envoy's forms of /stats; Flush tells errors.
type statsWriter struct {
	*bufio.Writer
	how buckets
}

func (w *statsWriter) put(parts ...string) {
	for _, p := range parts {
		_, _ = w.WriteString(p)
	}
}

// text writes texts, then counters and gauges, and after them histograms, as Envoy does.
func (w *statsWriter) text(list []metrics.Sample) {
	for i := range list {
		if s := &list[i]; s.Kind == metrics.KindText {
			w.put(s.FullName(), `: "`, escaped(s.Text), "\"\n")
		}
	}
	for i := range list {
		if s := &list[i]; s.Kind != metrics.KindHistogram && s.Kind != metrics.KindText {
			w.put(s.FullName(), ": ", strconv.FormatUint(s.Value, 10), "\n")
		}
	}
	for i := range list {
		if s := &list[i]; s.Kind == metrics.KindHistogram {
			w.put(s.FullName(), ": ", w.histogram(s), "\n")
		}
	}
}

// shownQuantiles are the percentages that Envoy shows.
var shownQuantiles = [...]float64{0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100}

// histogram shows pairs of the last interval and of all time. There is no
// interval here, because nothing is flushed: it is nan.
func (w *statsWriter) histogram(s *metrics.Sample) string {
	if !s.Used() {
		return "No recorded values"
	}
	var b []byte
	if w.how == quantiles {
		for _, q := range shownQuantiles {
			b = fmt.Appendf(b, "P%s(nan,%s) ", metrics.FormatFloat(q), shown(s, q))
		}
	} else {
		for _, k := range w.bucketsOf(s) {
			b = fmt.Appendf(b, "B%s(nan,%d) ", metrics.FormatFloat(k.Upper), k.Cumulative)
		}
	}
	return string(b[:len(b)-1])
}

func shown(s *metrics.Sample, percent float64) string {
	return metrics.FormatFloat(s.Unit.Shown(s.Histogram.Quantile(percent / 100)))
}

type bucketJSON struct {
	Upper      float64 `json:"upper_bound"`
	Interval   *uint64 `json:"interval"`
	Cumulative uint64  `json:"cumulative"`
}

func (w *statsWriter) bucketsOf(s *metrics.Sample) []bucketJSON {
	list := make([]bucketJSON, 0, len(metrics.Bounds))
	below := uint64(0)
	for _, bound := range metrics.Bounds {
		n := uint64(0)
		if s.Histogram != nil {
			n = s.Histogram.Below(bound / s.Unit.Shown(1))
		}
		k := bucketJSON{Upper: bound, Cumulative: n}
		if w.how == disjoint {
			k.Cumulative, below = n-below, n
		}
		list = append(list, k)
	}
	return list
}

func (w *statsWriter) json(list []metrics.Sample) {
	w.put(`{"stats":[`)
	comma := ""
	var histograms []*metrics.Sample
	for i := range list {
		if s := &list[i]; s.Kind == metrics.KindText {
			w.put(comma, `{"name":`, quote(s.FullName()), `,"value":`, quote(s.Text), "}")
			comma = ","
		}
	}
	for i := range list {
		s := &list[i]
		switch s.Kind {
		case metrics.KindText:
			continue
		case metrics.KindHistogram:
			histograms = append(histograms, s)
			continue
		}
		w.put(comma, `{"name":`, quote(s.FullName()), `,"value":`, strconv.FormatUint(s.Value, 10), "}")
		comma = ","
	}
	if len(histograms) > 0 {
		w.put(comma, `{"histograms":`)
		w.histograms(histograms)
		w.put("}")
	}
	w.put("]}")
}

func (w *statsWriter) histograms(list []*metrics.Sample) {
	if w.how == quantiles {
		w.put(`{"supported_quantiles":[`)
		for i, q := range shownQuantiles {
			w.put(separator(i), metrics.FormatFloat(q))
		}
		w.put(`],"computed_quantiles":[`)
	} else {
		w.put("[")
	}
	for i, s := range list {
		w.put(separator(i), `{"name":`, quote(s.FullName()))
		if w.how != quantiles {
			b, _ := json.Marshal(w.bucketsOf(s)) // numbers cannot fail
			w.put(`,"buckets":`, string(b), "}")
			continue
		}
		w.put(`,"values":[`)
		for j, q := range shownQuantiles {
			v := "null"
			if s.Used() {
				v = shown(s, q)
			}
			w.put(separator(j), `{"cumulative":`, v, `,"interval":null}`)
		}
		w.put("]}")
	}
	w.put("]")
	if w.how == quantiles {
		w.put("}")
	}
}

// escaped is a text that stays on its line, and within its quotes.
func escaped(s string) string {
	q := quote(s)
	return q[1 : len(q)-1]
}

func separator(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

func quote(s string) string {
	b, _ := json.Marshal(s) // text cannot fail
	return string(b)
}

// runResetCounters remembers where counters are: those of the workers count on,
// because they belong to the loops.
func runResetCounters(s *Server, r *request) {
	if !r.only() {
		return
	}
	list, err := s.samples(r.Context())
	if err != nil {
		r.fail(http.StatusServiceUnavailable, err.Error())
		return
	}
	base := map[string]uint64{}
	list = metrics.Sort(list)
	for i := range list {
		if list[i].Kind == metrics.KindCounter && list[i].Value > 0 {
			base[list[i].FullName()] = list[i].Value
		}
	}
	s.baseline.Store(&base)
	r.ok()
}
