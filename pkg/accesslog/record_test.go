// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// exampleRecord is a finished exchange: 2026-01-02T03:04:05.678901234Z.
func exampleRecord() *record.Record {
	return &record.Record{
		Start: 1767323045678901234, RequestEnd: 1e6, UpstreamRequest: 2e6, UpstreamResponse: 11e6, ResponseStart: 12e6, End: 15.9e6,
		Status: 503, Flags: record.UF | record.URX, Protocol: codec.HTTP11, UpstreamProtocol: codec.HTTP11, HasUpstream: true,
		Attempts: 2, BytesReceived: 10, BytesSent: 20, Details: "upstream reset", Route: "orders", Cluster: "outbound|orders",
		Remote: netip.MustParseAddrPort("10.0.0.9:4000"), Local: netip.MustParseAddrPort("[2001:db8::1]:15001"),
		UpstreamAddr: netip.MustParseAddrPort("10.0.0.1:8080"), ConnectionID: 7,
		Trace: record.Trace{TraceID: [16]byte{15: 0xab}, SpanID: [8]byte{7: 1}, Sampled: true},
	}
}

// capture appends the fixed values and those of the plan, as the loop does.
func capture(r *record.Record, p *Plan, req *codec.RequestHead, resp *codec.ResponseHead, trailer *codec.Header) {
	b := record.AppendCapture(nil, req.MethodBytes())
	b = record.AppendCapture(b, req.Path())
	b = record.AppendCapture(b, req.Authority())
	b = record.AppendCapture(b, req.Get("x-request-id"))
	b = record.AppendCapture(b, req.Get("user-agent"))
	r.Captures = AppendCaptures(b, p.Captures(), req, resp, trailer)
}

func exampleHeads() (*codec.RequestHead, *codec.ResponseHead) {
	req, resp := &codec.RequestHead{}, &codec.ResponseHead{}
	req.SetMethod([]byte("GET"))
	req.SetPath([]byte("/v1/orders?a=b&c="))
	req.SetAuthority([]byte("orders:8080"))
	req.AddString("User-Agent", "curl/8")
	req.AddString("X-Request-Id", "00000000-0000-4000-8000-000000000001")
	req.AddString("X-Forwarded-For", "192.0.2.1")
	req.AddString("X-Multi", "one")
	req.AddString("X-Multi", "two")
	resp.AddString("x-envoy-upstream-service-time", "9")
	resp.AddString("Content-Type", "text/plain")
	return req, resp
}

func mustFormat(t testing.TB, s string) resource.Format {
	t.Helper()
	f, err := substitution.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func textFormat(t testing.TB, s string) *resource.LogFormat {
	return &resource.LogFormat{Text: mustFormat(t, s)}
}

func field(t testing.TB, name, format string) resource.LogField {
	f := mustFormat(t, format)
	return resource.LogField{Name: name, Format: &f}
}

// fileLog compiles one log into a file of its own and returns what reads it back.
func fileLog(t testing.TB, l *resource.AccessLog, o Options) (*Plan, *Writers, string) {
	t.Helper()
	if l.File == nil {
		l.File = &resource.FileLog{}
	}
	l.File.Path = t.TempDir() + "/access.log"
	w := NewWriters(0)
	p, err := Compile([]*resource.AccessLog{l}, w, o)
	if err != nil {
		w.Close()
		t.Fatal(err)
	}
	return p, w, l.File.Path
}
