// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	traceA = "0af7651916cd43dd8448eb211c80319c"
	spanA  = "b7ad6b7169203331"
	spanB  = "00f067aa0ba902b7"
	uuid4  = "3d0ca315-aff9-4a64-b5a5-000000000001" // 0x3d0ca315 % 1 000 000 = 238357
)

func all(n uint32) resource.Percent { return resource.Percent{PerMillion: n, Denominator: 100} }

func tracing(propagation ...string) *resource.Tracing {
	return &resource.Tracing{
		ClientSampling: all(million), RandomSampling: all(0), OverallSampling: all(million),
		Provider: &resource.Tracer{ServiceName: "orders", Propagation: propagation, TraceID128: true},
	}
}

func mustCompile(t testing.TB, r *resource.Tracing, o Options) *Plan {
	t.Helper()
	p, err := Compile(r, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// head makes a request of "name: value" lines.
func head(lines ...string) *codec.RequestHead {
	h := &codec.RequestHead{}
	h.SetMethod([]byte("GET"))
	h.SetPath([]byte("/"))
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.AddString(name, value)
	}
	return h
}

func values(h *codec.RequestHead, name string) (out []string) {
	for i := h.Index(name, 0); i >= 0; i = h.Index(name, i+1) {
		_, v, _, _ := h.At(i)
		out = append(out, string(v))
	}
	return out
}

func one(t *testing.T, h *codec.RequestHead, name string) string {
	t.Helper()
	v := values(h, name)
	if len(v) != 1 {
		t.Fatalf("%s: got %q, want one value", name, v)
	}
	return v[0]
}

func source() rand.Source { return rand.NewPCG(1, 2) }

func TestTheCallersTraceGoesOn(t *testing.T) {
	for _, c := range []struct {
		name        string
		propagation []string
		in          []string
		trace       string
		parent      string
		sampled     bool
		debug       bool
	}{
		{"traceparent sampled", []string{"tracecontext", "b3"}, []string{"traceparent: 00-" + traceA + "-" + spanA + "-01"}, traceA, spanA, true, false},
		{"traceparent not sampled", []string{"tracecontext", "b3"}, []string{"traceparent: 00-" + traceA + "-" + spanA + "-00"}, traceA, spanA, false, false},
		{"traceparent of a later version", []string{"tracecontext"}, []string{"traceparent: 01-" + traceA + "-" + spanA + "-01-more"}, traceA, spanA, true, false},
		{"b3 single", []string{"b3"}, []string{"b3: " + traceA + "-" + spanA + "-1-" + spanB}, traceA, spanA, true, false},
		{"b3 single of 64 bits in upper case", []string{"b3"}, []string{"b3: " + strings.ToUpper(traceA[16:]) + "-" + spanA + "-0"}, "0000000000000000" + traceA[16:], spanA, false, false},
		{"b3 single debug", []string{"b3"}, []string{"b3: " + traceA + "-" + spanA + "-d"}, traceA, spanA, true, true},
		{"b3 headers", []string{"b3multi"}, []string{"X-B3-TraceId: " + traceA, "X-B3-SpanId: " + spanA, "X-B3-Sampled: 1"}, traceA, spanA, true, false},
		{"b3 headers with true", []string{"b3multi"}, []string{"X-B3-TraceId: " + traceA, "X-B3-SpanId: " + spanA, "X-B3-Sampled: true"}, traceA, spanA, true, false},
		{"b3 headers debug", []string{"b3multi"}, []string{"X-B3-TraceId: " + traceA, "X-B3-SpanId: " + spanA, "X-B3-Flags: 1"}, traceA, spanA, true, true},
		{"b3 headers where the single one is expected", []string{"b3"}, []string{"X-B3-TraceId: " + traceA, "X-B3-SpanId: " + spanA, "X-B3-Sampled: 1"}, traceA, spanA, true, false},
		{"the first format of the configuration wins", []string{"b3", "tracecontext"},
			[]string{"traceparent: 00-" + strings.Repeat("1", 32) + "-" + spanB + "-00", "b3: " + traceA + "-" + spanA + "-1"}, traceA, spanA, true, false},
		{"the next format where the first is malformed", []string{"tracecontext", "b3"},
			[]string{"traceparent: 00-xyz", "b3: " + traceA + "-" + spanA + "-1"}, traceA, spanA, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustCompile(t, tracing(c.propagation...), Options{Direction: resource.Outbound})
			h := head(c.in...)
			var tr record.Trace
			p.Start(h, &tr, source(), false)
			if got := hex.EncodeToString(tr.TraceID[:]); got != c.trace {
				t.Errorf("trace id: got %s, want %s", got, c.trace)
			}
			if got := hex.EncodeToString(tr.ParentID[:]); got != c.parent {
				t.Errorf("parent: got %s, want %s", got, c.parent)
			}
			if tr.Sampled != c.sampled || tr.Debug != c.debug || !tr.Client {
				t.Errorf("got sampled %v, debug %v, client %v", tr.Sampled, tr.Debug, tr.Client)
			}
			if tr.SpanID == tr.ParentID || tr.SpanID == [8]byte{} {
				t.Errorf("span id %x is not new", tr.SpanID)
			}
		})
	}
}

func TestMalformedContextStartsANewTrace(t *testing.T) {
	zero := strings.Repeat("0", 32)
	for _, in := range []string{
		"", "traceparent: ", "traceparent: 00", "traceparent: ff-" + traceA + "-" + spanA + "-01",
		"traceparent: 00-" + traceA + "-" + spanA + "-01-x", "traceparent: 00-" + strings.ToUpper(traceA) + "-" + spanA + "-01",
		"traceparent: 00-" + zero + "-" + spanA + "-01", "traceparent: 00-" + traceA + "-0000000000000000-01",
		"traceparent: 0x-" + traceA + "-" + spanA + "-01", "traceparent: 00-" + traceA + "_" + spanA + "-01",
		"traceparent: 01-" + traceA + "-" + spanA + "-01x",
		"b3: ", "b3: x", "b3: " + traceA, "b3: " + traceA + "-" + spanA[1:], "b3: " + traceA + "-" + spanA + "-2",
		"b3: " + traceA + "-" + spanA + "-1-", "b3: " + traceA + "-" + spanA + "-1-" + spanA + "-", "b3: " + zero + "-" + spanA + "-1",
		"b3: " + traceA + "-" + spanA + "-",
	} {
		p := mustCompile(t, tracing("tracecontext", "b3"), Options{})
		h := head(in, "tracestate: a=b")
		var tr record.Trace
		p.Start(h, &tr, source(), false)
		if hex.EncodeToString(tr.TraceID[:]) == traceA || tr.ParentID != [8]byte{} || tr.Sampled {
			t.Errorf("%q: got trace %x of parent %x, sampled %v", in, tr.TraceID, tr.ParentID, tr.Sampled)
		}
		if got := values(h, "tracestate"); got != nil {
			t.Errorf("%q: tracestate of another trace is left: %q", in, got)
		}
	}
}

func TestTwoTraceparentsAreNone(t *testing.T) {
	p := mustCompile(t, tracing("tracecontext"), Options{})
	h := head("traceparent: 00-"+traceA+"-"+spanA+"-01", "traceparent: 00-"+traceA+"-"+spanB+"-01")
	var tr record.Trace
	p.Start(h, &tr, source(), false)
	if hex.EncodeToString(tr.TraceID[:]) == traceA {
		t.Error("one of two was believed")
	}
	one(t, h, "traceparent")
}

func TestEveryConfiguredFormatIsInjected(t *testing.T) {
	p := mustCompile(t, tracing("tracecontext", "b3", "b3multi"), Options{Direction: resource.Outbound})
	h := head("X-B3-Flags: 1", "b3: stale", "traceparent: 00-"+traceA+"-"+spanA+"-03", "tracestate: x=1", "baggage: k=v")
	var tr record.Trace
	p.Start(h, &tr, source(), false)
	span := hex.EncodeToString(tr.SpanID[:])
	for name, want := range map[string]string{
		"traceparent": "00-" + traceA + "-" + span + "-03", // the random flag stays
		"tracestate":  "x=1", "baggage": "k=v",
		"b3":           traceA + "-" + span + "-1-" + spanA,
		"x-b3-traceid": traceA, "x-b3-spanid": span, "x-b3-parentspanid": spanA, "x-b3-sampled": "1",
	} {
		if got := one(t, h, name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if got := values(h, "x-b3-flags"); got != nil {
		t.Errorf("x-b3-flags beside x-b3-sampled: %q", got)
	}
}

// TestAFormatThatEchoesIsWrittenWhereItCame: what came must not go on stale, and what
// did not come is not added.
func TestAFormatThatEchoesIsWrittenWhereItCame(t *testing.T) {
	r := tracing("b3", "b3multi")
	r.Provider.Echo = []string{"b3"}
	p := mustCompile(t, r, Options{Direction: resource.Outbound})
	var tr record.Trace
	h := head()
	p.Start(h, &tr, source(), false)
	span := hex.EncodeToString(tr.SpanID[:])
	if got := values(h, "b3"); got != nil {
		t.Errorf("b3: got %q, want none", got)
	}
	if got := one(t, h, "x-b3-spanid"); got != span {
		t.Errorf("x-b3-spanid: got %s, want %s", got, span)
	}
	for _, came := range []string{traceA + "-" + spanA + "-1", "0", "no context"} {
		h = head("b3: " + came)
		p.Start(h, &tr, source(), false)
		trace, span := hex.EncodeToString(tr.TraceID[:]), hex.EncodeToString(tr.SpanID[:])
		if got := one(t, h, "b3"); !strings.HasPrefix(got, trace+"-"+span) {
			t.Errorf("after %q: got %s, want the new span", came, got)
		}
	}
}

func TestWithoutAProviderHeadersPassUntouched(t *testing.T) {
	p := mustCompile(t, &resource.Tracing{OverallSampling: all(million)}, Options{})
	in := []string{"traceparent: 00-" + traceA + "-" + spanA + "-01", "tracestate: x=1", "b3: 0", "x-request-id: " + uuid4}
	h := head(in...)
	var tr record.Trace
	p.Start(h, &tr, source(), false)
	if got, want := string(h.AppendFields(nil)), string(head(in...).AppendFields(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestASharedSpanIsTheCallers(t *testing.T) {
	r := tracing("b3")
	r.Provider.SharedSpan = true
	in := "b3: " + traceA + "-" + spanA + "-1-" + spanB
	var tr record.Trace
	h := head(in)
	mustCompile(t, r, Options{Direction: resource.Inbound}).Start(h, &tr, source(), false)
	if hex.EncodeToString(tr.SpanID[:]) != spanA || hex.EncodeToString(tr.ParentID[:]) != spanB || !tr.Shared {
		t.Errorf("server: got %+v", tr)
	}
	if got := one(t, h, "b3"); got != in[4:] {
		t.Errorf("server: got b3 %s", got)
	}
	mustCompile(t, r, Options{Direction: resource.Outbound}).Start(head(in), &tr, source(), false)
	if hex.EncodeToString(tr.SpanID[:]) == spanA || tr.Shared {
		t.Errorf("client: got %+v", tr)
	}
}

func TestSamplingIsDecidedAndKeptInTheRequestID(t *testing.T) {
	id := func(digit string) string { return uuid4[:14] + digit + uuid4[15:] }
	for _, c := range []struct {
		name     string
		change   func(r *resource.Tracing)
		in       []string
		internal bool
		sampled  bool
		id       string
	}{
		{"nothing asks for it", nil, []string{"x-request-id: " + uuid4}, false, false, uuid4},
		{"random", func(r *resource.Tracing) { r.RandomSampling = all(million) }, []string{"x-request-id: " + uuid4}, false, true, id("9")},
		{"random, just in", func(r *resource.Tracing) { r.RandomSampling = all(238358) }, []string{"x-request-id: " + uuid4}, false, true, id("9")},
		{"random, just out", func(r *resource.Tracing) { r.RandomSampling = all(238357) }, []string{"x-request-id: " + uuid4}, false, false, uuid4},
		{"an earlier proxy's decision", nil, []string{"x-request-id: " + id("9")}, false, true, id("9")},
		{"by the client", nil, []string{"x-request-id: " + uuid4, "x-client-trace-id: 1"}, false, true, id("b")},
		{"by the client, who may not", func(r *resource.Tracing) { r.ClientSampling = all(0) }, []string{"x-request-id: " + uuid4, "x-client-trace-id: 1"}, false, false, uuid4},
		{"forced from inside", nil, []string{"x-request-id: " + uuid4, "x-envoy-force-trace: 1"}, true, true, id("a")},
		{"forced from outside", nil, []string{"x-request-id: " + uuid4, "x-envoy-force-trace: 1"}, false, false, uuid4},
		{"capped", func(r *resource.Tracing) { r.RandomSampling, r.OverallSampling = all(million), all(0) }, []string{"x-request-id: " + uuid4}, false, false, uuid4},
		{"capped after an earlier proxy's decision", func(r *resource.Tracing) { r.OverallSampling = all(0) }, []string{"x-request-id: " + id("9")}, false, false, uuid4},
		{"the parent's decision is not capped", func(r *resource.Tracing) { r.OverallSampling = all(0) }, []string{"x-request-id: " + uuid4, "b3: 1"}, false, true, id("9")},
		{"the parent says no", func(r *resource.Tracing) { r.RandomSampling = all(million) }, []string{"x-request-id: " + uuid4, "b3: 0"}, false, false, uuid4},
		{"without a request id", func(r *resource.Tracing) { r.RandomSampling = all(million) }, nil, false, true, ""},
		{"with a request id of another form", func(r *resource.Tracing) { r.RandomSampling = all(million) }, []string{"x-request-id: abc"}, false, true, "abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := tracing("b3")
			if c.change != nil {
				c.change(r)
			}
			h := head(c.in...)
			var tr record.Trace
			mustCompile(t, r, Options{}).Start(h, &tr, source(), c.internal)
			if tr.Sampled != c.sampled {
				t.Errorf("sampled: got %v, want %v", tr.Sampled, c.sampled)
			}
			if got := strings.Join(values(h, "x-request-id"), "|"); got != c.id {
				t.Errorf("request id: got %s, want %s", got, c.id)
			}
			if b3 := one(t, h, "b3"); strings.HasSuffix(b3, "-1") != c.sampled {
				t.Errorf("b3: %s", b3)
			}
		})
	}
}

func TestRuntimeOverridesSampling(t *testing.T) {
	r := tracing("b3")
	r.RandomSampling.RuntimeKey = "tracing.random_sampling"
	p := mustCompile(t, r, Options{Runtime: func(resource.Percent) uint32 { return million }})
	var tr record.Trace
	p.Start(head("x-request-id: "+uuid4), &tr, source(), false)
	if !tr.Sampled {
		t.Error("not sampled")
	}
}

func TestAnUnknownFormatIsRefused(t *testing.T) {
	_, err := Compile(tracing("b3", "jaeger"), Options{})
	if err == nil || !strings.Contains(err.Error(), `propagation[1]: unknown format "jaeger"`) {
		t.Errorf("got %v", err)
	}
}

func TestRequestIDsAreUUIDsThatSpreadEvenly(t *testing.T) {
	rnd := source()
	seen := map[string]bool{}
	for range 1000 {
		id := string(AppendRequestID(nil, rnd.Uint64(), rnd.Uint64()))
		if len(id) != RequestIDLen || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) || seen[id] {
			t.Fatalf("got %s", id)
		}
		seen[id] = true
	}
}

// The headers of a usual request between two services.
func usualHead() *codec.RequestHead {
	return head("user-agent: curl/8", "accept: */*", "content-type: application/json", "x-forwarded-for: 10.0.0.1", "x-forwarded-proto: http",
		"x-request-id: "+uuid4, "traceparent: 00-"+traceA+"-"+spanA+"-00", "b3: "+traceA+"-"+spanA+"-0")
}

func TestStartAllocatesNothing(t *testing.T) {
	p := mustCompile(t, tracing("tracecontext", "b3", "b3multi"), Options{})
	src, h := usualHead(), &codec.RequestHead{}
	var r record.Record
	rnd := source()
	if n := testing.AllocsPerRun(500, func() {
		h.CopyFrom(src)
		p.Start(h, &r.Trace, rnd, false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkStartW3CAndB3(b *testing.B) {
	p := mustCompile(b, tracing("tracecontext", "b3"), Options{})
	src, h := usualHead(), &codec.RequestHead{}
	var r record.Record
	rnd := source()
	b.Run("with a copy of the head", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.CopyFrom(src)
			p.Start(h, &r.Trace, rnd, false)
		}
	})
	b.Run("the copy alone", func(b *testing.B) {
		for b.Loop() {
			h.CopyFrom(src)
		}
	})
}
