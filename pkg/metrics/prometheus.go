// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bufio"
	"cmp"
	"hash/fnv"
	"io"
	"slices"
	"strconv"
	"strings"
)

// PrometheusType is the content type of what WritePrometheus writes.
const PrometheusType = "text/plain; version=0.0.4; charset=utf-8"

// maxLabelBytes bounds a label's value. A longer one is cut and gets a hash of
// the whole, so that two of them stay apart.
const maxLabelBytes = 512

// Bounds are the upper bounds of the buckets that histograms are shown with, in
// milliseconds for Micros. They are Envoy's.
var Bounds = [...]float64{
	0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000,
}

// WritePrometheus writes samples in the text format 0.0.4 under the names that
// Envoy gives them: envoy_cluster_upstream_rq_total{envoy_cluster_name="orders"}.
// Families are in the order of their names and series in that of their labels.
// Texts are left out.
//
// A type is stated only where Prometheus' naming rules allow it: Envoy has
// counters without "_total" and gauges with it (membership_total), which are
// written as untyped, because dashboards need the names and queries do not look
// at the type.
func WritePrometheus(w io.Writer, samples []Sample) error {
	out := bufio.NewWriterSize(w, 16<<10)
	for _, f := range families(samples) {
		f.write(out)
	}
	return out.Flush()
}

// family is one metric with all its series.
type family struct {
	name, help string
	kind       Kind
	series     []series
}

type series struct {
	labels string
	sample *Sample
}

// familyKey is what the name of a metric is made of: thousands of samples have
// the same.
type familyKey struct{ family, name string }

// place is where samples of a key belong.
type place struct {
	f    *family
	code string // label of the response code in the stat's name
}

func families(samples []Sample) []*family {
	byName, byKey := map[string]*family{}, map[familyKey]place{}
	var list []*family
	for i := range samples {
		s := &samples[i]
		if s.Kind == KindText {
			continue
		}
		key := familyKey{name: s.Name}
		if s.Scope != nil {
			key.family = s.Scope.family
		}
		at, known := byKey[key]
		if !known {
			stem, code := responseCode(s.Name)
			name := metricName(key.family, stem)
			if byName[name] == nil {
				byName[name] = &family{name: name, help: s.help(name), kind: s.Kind}
				list = append(list, byName[name])
			}
			at = place{byName[name], code}
			byKey[key] = at
		}
		if at.f.kind != s.Kind {
			continue // two stats that differ only in characters that names cannot have
		}
		at.f.series = append(at.f.series, series{s.labels(at.code), s})
	}
	slices.SortFunc(list, func(a, b *family) int { return cmp.Compare(a.name, b.name) })
	for _, f := range list {
		f.join()
	}
	return list
}

func (s *Sample) help(name string) string {
	if s.Help != "" {
		return s.Help
	}
	return "The stat " + strings.TrimPrefix(name, "envoy_") + "."
}

// labels are the scope's behind the response code, as Envoy orders them.
func (s *Sample) labels(code string) string {
	switch {
	case s.Scope == nil || s.Scope.tags == "":
		return code
	case code == "":
		return s.Scope.tags
	}
	return code + "," + s.Scope.tags
}

// join sorts the series and adds up those with the same labels.
func (f *family) join() {
	slices.SortStableFunc(f.series, func(a, b series) int { return cmp.Compare(a.labels, b.labels) })
	out := f.series[:0]
	for _, s := range f.series {
		if n := len(out); n > 0 && out[n-1].labels == s.labels {
			sum := *out[n-1].sample // the samples are the caller's
			sum.add(s.sample)
			out[n-1].sample = &sum
			continue
		}
		out = append(out, s)
	}
	f.series = out
}

// responseCode takes the code out of names that end with one: upstream_rq_2xx is
// upstream_rq_xx of a class, upstream_rq_200 is upstream_rq of a code.
func responseCode(name string) (stem, label string) {
	n := len(name)
	if n < 7 || name[n-7:n-3] != "_rq_" || !digit(name[n-3]) {
		return name, ""
	}
	switch {
	case name[n-2:] == "xx":
		return name[:n-3] + "xx", `envoy_response_code_class="` + name[n-3:n-2] + `"`
	case digit(name[n-2]) && digit(name[n-1]):
		return name[:n-4], `envoy_response_code="` + name[n-3:] + `"`
	}
	return name, ""
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// ownFamily is what our own stats begin with; they are not Envoy's.
const ownFamily = "outrigger"

func metricName(family, stem string) string {
	full := stem
	if family != "" {
		full = family + "." + stem
	}
	if full != ownFamily && !strings.HasPrefix(full, ownFamily+".") {
		full = "envoy." + full
	}
	return strings.Map(func(r rune) rune {
		if r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, full)
}

func (f *family) write(out *bufio.Writer) {
	put := func(parts ...string) {
		for _, p := range parts {
			_, _ = out.WriteString(p) // Flush tells
		}
	}
	put("# HELP ", f.name, " ", escapeHelp(f.help), "\n# TYPE ", f.name, " ", f.typeName(), "\n")
	for i := range f.series {
		s := &f.series[i]
		if f.kind == KindHistogram {
			f.writeHistogram(put, s)
			continue
		}
		put(f.name)
		if s.labels != "" {
			put("{", s.labels, "}")
		}
		put(" ", strconv.FormatUint(s.sample.Value, 10), "\n")
	}
}

// typeName is the type where the naming rules allow it for this name.
func (f *family) typeName() string {
	total := strings.HasSuffix(f.name, "_total")
	switch {
	case f.kind == KindHistogram:
		return "histogram"
	case f.kind == KindCounter && total:
		return "counter"
	case f.kind == KindGauge && !total && !strings.HasSuffix(f.name, "_count") && !strings.HasSuffix(f.name, "_sum") &&
		!strings.HasSuffix(f.name, "_bucket"):
		return "gauge"
	}
	return "untyped"
}

func (f *family) writeHistogram(put func(...string), s *series) {
	h := s.sample.Histogram
	if h == nil {
		h = new(Histogram)
	}
	comma := ""
	if s.labels != "" {
		comma = ","
	}
	scale := s.sample.Unit.scale()
	for _, b := range Bounds {
		put(f.name, "_bucket{", s.labels, comma, `le="`, FormatFloat(b), `"} `, strconv.FormatUint(h.Below(b*scale), 10), "\n")
	}
	put(f.name, "_bucket{", s.labels, comma, `le="+Inf"} `, strconv.FormatUint(h.N, 10), "\n")
	braces := ""
	if s.labels != "" {
		braces = "{" + s.labels + "}"
	}
	put(f.name, "_sum", braces, " ", FormatFloat(float64(h.Sum)/scale), "\n")
	put(f.name, "_count", braces, " ", strconv.FormatUint(h.N, 10), "\n")
}

// scale is how many of a histogram's units make one that is shown.
func (u Unit) scale() float64 {
	if u == Micros {
		return 1000
	}
	return 1
}

// Shown converts a histogram's value to what is shown, milliseconds for Micros.
func (u Unit) Shown(v uint64) float64 { return float64(v) / u.scale() }

// FormatFloat writes v as short as it can be read back, without an exponent.
func FormatFloat(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func appendLabel(b *strings.Builder, name, value string) {
	value = strings.ToValidUTF8(value, "\uFFFD")
	if len(value) > maxLabelBytes {
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(value))
		cut := strings.ToValidUTF8(value[:maxLabelBytes-17], "") // a rune may have been cut in two
		value = cut + "~" + strconv.FormatUint(sum.Sum64(), 16)
	}
	b.WriteString(name)
	b.WriteString(`="`)
	b.WriteString(labelEscapes.Replace(value))
	b.WriteByte('"')
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func escapeHelp(s string) string { return helpEscapes.Replace(strings.ToValidUTF8(s, "\uFFFD")) }

var helpEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
