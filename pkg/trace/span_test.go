// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// lastSpan writes down what it is given.
type lastSpan struct {
	n    int
	text string
}

func (l *lastSpan) Export(s *Span) {
	l.n++
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q %s->%s %s %s error=%v\n", s.Service, s.Name, s.Local, s.Remote, s.RemoteService, fmt.Sprint(s.Duration), s.Error)
	for _, t := range s.Tags {
		fmt.Fprintf(&b, "%s=%s\n", t.Key, t.Value)
	}
	l.text = b.String()
}

func spanRecord() *record.Record {
	r := &record.Record{
		Start: 1767323045678901234, End: 15e6, Status: 503, Flags: record.UF, Protocol: codec.HTTP11, Route: "orders-v1", Cluster: "payments",
		Remote: netip.MustParseAddrPort("10.0.0.9:4000"), DirectRemote: netip.MustParseAddrPort("10.0.0.8:4001"),
		Local: netip.MustParseAddrPort("10.0.0.2:15006"), UpstreamAddr: netip.MustParseAddrPort("10.0.0.1:8080"),
		UpstreamLocal: netip.MustParseAddrPort("10.0.0.2:5000"), Attempts: 3,
		Trace: record.Trace{TraceID: [16]byte{1}, SpanID: [8]byte{2}, Sampled: true, Client: true},
	}
	for _, v := range []string{"GET", "/v1/orders?token=SECRET", "orders", "an-id", "curl/8", "u-7"} {
		r.Captures = record.AppendCapture(r.Captures, []byte(v))
	}
	return r
}

func spanPlan(t testing.TB, to Exporter) *Plan {
	r := tracing("b3")
	r.MaxPathTag = 7
	r.Provider.Exporters = []resource.TraceExporter{{ZipkinURL: "x"}}
	r.Tags = []resource.TracingTag{{Name: "env", Literal: "test"}, {Name: "user", Header: "x-user"}, {Name: "none", Header: "x-none", Default: "d"}, {Name: "gone", Header: "x-none"}}
	return mustCompile(t, r, Options{Node: "orders~1", Exporter: func(resource.TraceExporter, string) (Exporter, error) { return to, nil }})
}

func TestASpanSaysWhatTheRecordKnows(t *testing.T) {
	var got lastSpan
	p := spanPlan(t, &got)
	if h := p.CaptureHeaders(); len(h) != 2 || h[0] != "x-user" || h[1] != "x-none" {
		t.Fatalf("captures: %q", h)
	}
	r := spanRecord()
	p.Consume(r)
	want := `orders "GET orders-v1" 10.0.0.2:5000->10.0.0.1:8080 payments 15000000 error=true
component=proxy
node_id=orders~1
guid:x-request-id=an-id
http.method=GET
http.url=http://orders/v1/ord
http.protocol=HTTP/1.1
user_agent=curl/8
peer.address=10.0.0.8
request_size=0
response_size=0
http.status_code=503
response_flags=UF
upstream_cluster=payments
upstream_address=10.0.0.1:8080
retry.count=2
error=true
env=test
user=u-7
none=d
`
	if got.text != want {
		t.Errorf("got  %s\nwant %s", got.text, want)
	}
	r.Trace.Client, r.Operation, r.Status = false, "checkout", 200
	p.Consume(r)
	if first, _, _ := strings.Cut(got.text, "\n"); first != `orders "checkout" 10.0.0.2:15006->10.0.0.9:4000  15000000 error=false` {
		t.Errorf("server span: got %s", first)
	}
}

func TestAQueryNeverReachesASpan(t *testing.T) {
	var got lastSpan
	p := spanPlan(t, &got)
	p.maxPathTag = 256
	p.Consume(spanRecord())
	if strings.Contains(got.text, "SECRET") || !strings.Contains(got.text, "http.url=http://orders/v1/orders\n") {
		t.Errorf("got %s", got.text)
	}
}

func TestOnlySampledExchangesBecomeSpans(t *testing.T) {
	var got lastSpan
	p := spanPlan(t, &got)
	r := spanRecord()
	r.Trace.Sampled = false
	p.Consume(r)
	r = spanRecord()
	r.Kind = record.TCPConnection
	p.Consume(r)
	if got.n != 0 {
		t.Errorf("got %d spans", got.n)
	}
}

type noExporter struct{}

func (noExporter) Export(*Span) {}

func TestMakingASpanAllocatesNothing(t *testing.T) {
	p := spanPlan(t, noExporter{})
	r := spanRecord()
	if n := testing.AllocsPerRun(500, func() { p.Consume(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
