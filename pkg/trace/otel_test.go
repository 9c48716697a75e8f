// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
	"pgregory.net/rapid"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// oracles are OpenTelemetry's propagators of our formats.
var oracles = map[string]propagation.TextMapPropagator{
	"tracecontext": propagation.TraceContext{},
	"b3":           b3.New(b3.WithInjectEncoding(b3.B3SingleHeader)),
	"b3multi":      b3.New(b3.WithInjectEncoding(b3.B3MultipleHeader)),
}

func carrier(h *codec.RequestHead) propagation.HeaderCarrier {
	c := propagation.HeaderCarrier{}
	for i := range h.Slots() {
		if name, value, _, ok := h.At(i); ok {
			c[http.CanonicalHeaderKey(string(name))] = append(c[http.CanonicalHeaderKey(string(name))], string(value))
		}
	}
	return c
}

func drawContext(t *rapid.T) oteltrace.SpanContext {
	var id oteltrace.TraceID
	var span oteltrace.SpanID
	copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "trace"))
	copy(span[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "span"))
	id[0], span[0] = id[0]|1, span[0]|1
	return oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
		TraceID: id, SpanID: span, TraceFlags: oteltrace.TraceFlags(rapid.IntRange(0, 1).Draw(t, "sampled")), Remote: true,
	})
}

func TestWhatOpenTelemetryInjectsIsExtractedAndTheReverse(t *testing.T) {
	for name, oracle := range oracles {
		t.Run(name, func(t *testing.T) {
			p := mustCompile(t, tracing(name), Options{})
			rapid.Check(t, func(t *rapid.T) {
				want := drawContext(t)
				c := propagation.HeaderCarrier{}
				oracle.Inject(oteltrace.ContextWithSpanContext(context.Background(), want), c)
				h := &codec.RequestHead{}
				for k, v := range c {
					h.AddString(k, v[0])
				}
				var tr record.Trace
				p.Start(h, &tr, rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1), false)
				if oteltrace.TraceID(tr.TraceID) != want.TraceID() || oteltrace.SpanID(tr.ParentID) != want.SpanID() || tr.Sampled != want.IsSampled() {
					t.Fatalf("of %v we read %+v", c, tr)
				}
				got := oteltrace.SpanContextFromContext(oracle.Extract(context.Background(), carrier(h)))
				if got.TraceID() != want.TraceID() || got.SpanID() != oteltrace.SpanID(tr.SpanID) || got.IsSampled() != tr.Sampled {
					t.Fatalf("of %v OpenTelemetry reads %+v, want %+v", carrier(h), got, tr)
				}
			})
		})
	}
}

// deviates tells whether OpenTelemetry is known to read a value otherwise than its format
// says, where it is read here or is not.
func deviates(format, value string, here bool) bool {
	switch {
	case format == "b3" && !here: // it takes what follows the span's id without a separator
		for _, end := range []int{33, 49} {
			if len(value) > end && value[end-17] == '-' && value[end] != '-' {
				return true
			}
		}
		return false
	case format == "b3": // it refuses a parent of zeros, which is not used
		return here && strings.HasSuffix(value, "-"+strings.Repeat("0", 16))
	case len(value) < w3cLen || value[:3] != "00-":
		return false
	case here: // unknown flags are to be ignored (W3C Trace Context, §3.2.2.5)
		return value[53:] > "03"
	}
	return value[w3cLen:] == "-" // nothing may follow the flags of version 00 (§3.2.2.2)
}

// What OpenTelemetry refuses we refuse, and what it reads we read alike, but for what
// deviates knows, and B3 ids in upper case, which are read here only.
func TestHostileHeadersAreReadAsByOpenTelemetry(t *testing.T) {
	zeros := strings.Repeat("0", 16)
	piece := rapid.SampledFrom([]string{"00", "01", "ff", "0", "-", "--", traceA, traceA[16:], spanA, "d", "1", "2", "x", " ", zeros, zeros + zeros, "03", "é", ""})
	for name, oracle := range oracles {
		if name == "b3multi" {
			continue
		}
		key := map[string]string{"tracecontext": "traceparent", "b3": "b3"}[name]
		t.Run(name, func(t *testing.T) {
			p := mustCompile(t, tracing(name), Options{})
			compare := func(t rapid.TB, value string) {
				h := head(key + ": " + value)
				sc := oteltrace.SpanContextFromContext(oracle.Extract(context.Background(), carrier(h)))
				var tr record.Trace
				p.Start(h, &tr, source(), false)
				ours := tr.ParentID != [8]byte{}
				if ours != sc.IsValid() && !deviates(name, value, ours) {
					t.Fatalf("%q: found here %v, by OpenTelemetry %v", value, ours, sc.IsValid())
				}
				if ours && sc.IsValid() && (oteltrace.TraceID(tr.TraceID) != sc.TraceID() || oteltrace.SpanID(tr.ParentID) != sc.SpanID()) {
					t.Fatalf("%q: %+v, by OpenTelemetry %+v", value, tr, sc)
				}
			}
			for _, value := range []string{
				"00-" + traceA + "-" + spanA + "-03", "00-" + traceA + "-" + spanA + "-ff", "00-" + traceA + "-" + spanA + "-01-", "00-" + traceA + "-" + spanA + "-01--",
				"01-" + traceA + "-" + spanA + "-01-", "01-" + traceA + "-" + spanA + "-ff-x", traceA + "-" + spanA + "-1-" + spanA, traceA + "-" + spanA + "-d-" + zeros,
				traceA + "-" + spanA + "00", traceA[16:] + "-" + spanA + "00",
			} {
				compare(t, value)
			}
			rapid.Check(t, func(t *rapid.T) {
				parts := rapid.SliceOfN(piece, 0, 7).Draw(t, "pieces")
				compare(t, strings.Join(parts, rapid.SampledFrom([]string{"-", ""}).Draw(t, "separator")))
			})
		})
	}
}

func TestTraceIDRatioPicksWhatTheSDKPicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fraction := rapid.OneOf(rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{0, 0.5, 0.01, 1, 1.5, -1})).Draw(t, "fraction")
		id := drawContext(t).TraceID()
		want := sdktrace.TraceIDRatioBased(fraction).ShouldSample(sdktrace.SamplingParameters{ParentContext: context.Background(), TraceID: id}).Decision == sdktrace.RecordAndSample
		if got := TraceIDRatio(id, fraction); got != want {
			t.Fatalf("%v of %v: got %v, want %v", id, fraction, got, want)
		}
	})
}

func FuzzTraceHeaders(f *testing.F) {
	f.Add("00-"+traceA+"-"+spanA+"-01", traceA+"-"+spanA+"-1", traceA, "a=b", uuid4)
	f.Add("", "d", "", "", "")
	f.Add("01-x", "0", "zz", ",,,", uuid4[:20])
	f.Fuzz(func(t *testing.T, parent, single, multi, state, id string) {
		p, err := Compile(tracing("tracecontext", "b3", "b3multi"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		h := head("traceparent: "+parent, "b3: "+single, "x-b3-traceid: "+multi, "x-b3-spanid: "+multi, "x-b3-sampled: "+single,
			"tracestate: "+state, "x-request-id: "+id)
		var tr record.Trace
		p.Start(h, &tr, source(), true)
		if tr.TraceID == [16]byte{} || tr.SpanID == [8]byte{} {
			t.Errorf("an id is zero: %+v", tr)
		}
		// What goes out is read back as it was meant, by us and by others.
		var again record.Trace
		p.Start(h, &again, source(), false)
		if again.TraceID != tr.TraceID || again.ParentID != tr.SpanID || again.Sampled != tr.Sampled {
			t.Errorf("wrote %+v, read %+v", tr, again)
		}
		if sc := oteltrace.SpanContextFromContext(oracles["tracecontext"].Extract(context.Background(), carrier(h))); oteltrace.SpanID(again.SpanID) != sc.SpanID() {
			t.Errorf("OpenTelemetry reads %+v", sc)
		}
	})
}
