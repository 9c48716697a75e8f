// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// harness is one filter with its hub and a spool to read records from.
type harness struct {
	t     testing.TB
	hub   *tap.Hub
	f     *tapFilter
	spool *tap.Spool
	now   int64
}

// newHarness makes a filter of a configuration; the records go through a real
// writer and spool.
func newHarness(t testing.TB, c tap.HubConfig, config string) *harness {
	t.Helper()
	c.Workers = 1
	h := &harness{t: t, hub: tap.NewHub(c), now: 1e9}
	spec := Spec(h.hub)
	parsed, err := spec.Parse([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	h.f = spec.New(parsed, filter.Worker{Index: 0, Slot: 1}).(*tapFilter)
	if h.spool, err = tap.OpenSpool(tap.SpoolConfig{Dir: filepath.Join(t.TempDir(), "spool")}); err != nil {
		t.Fatal(err)
	}
	return h
}

// records stops the writer and reads what was tapped.
func (h *harness) records() (out []tap.Record) {
	h.t.Helper()
	w, err := tap.NewWriter(tap.WriterConfig{Hub: h.hub, Node: "orders~1", Service: "orders", Spool: h.spool})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	deadline, end := context.WithTimeout(context.Background(), 10*time.Second)
	defer end()
	want := h.hub.Counts().Produced - h.hub.Counts().Dropped
	for uint64(len(out)) < want {
		recs, seq, err := h.spool.Next(deadline)
		if err != nil {
			h.t.Fatalf("%d of %d records: %v", len(out), want, err)
		}
		for _, b := range recs {
			var r tap.Record
			if err := r.Decode(b); err != nil {
				h.t.Fatal(err)
			}
			out = append(out, r)
		}
		h.spool.Ack(seq)
	}
	cancel()
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
	return out
}

func exchange(h *harness, method, path string, headers ...string) *filter.Exchange {
	x := &filter.Exchange{Now: h.now, Slots: make([]any, 2), Route: &resource.Route{Name: "r1"}}
	x.Request.SetMethod([]byte(method))
	x.Request.SetPath([]byte(path))
	x.Request.SetAuthority([]byte("orders"))
	for i := 0; i < len(headers); i += 2 {
		x.Request.AddString(headers[i], headers[i+1])
	}
	x.Record = record.Record{Start: 1767323045678901234, Protocol: codec.HTTP11, Cluster: "c1", UpstreamAddr: netip.MustParseAddrPort("10.0.0.1:80"),
		StreamID: [16]byte{1}, Attempts: 1, Trace: record.Trace{TraceID: [16]byte{1}, SpanID: [8]byte{2}, Client: true}}
	return x
}

// finish runs the rest of an exchange.
func finish(h *harness, x *filter.Exchange, status int, reqBody, respBody string) {
	for i := 0; i < len(reqBody); i += 7 {
		h.f.OnRequestData(x, []byte(reqBody[i:min(i+7, len(reqBody))]), i+7 >= len(reqBody))
	}
	if status != 0 {
		x.Response.Status = status
		x.Response.AddString("content-type", "text/plain")
		h.f.OnResponse(x)
		h.f.OnResponseData(x, []byte(respBody), true)
	}
	x.Record.Status, x.Record.End = uint16(status), 5e6
	h.f.OnDone(x)
}

func one(h *harness, status int, method, path string, headers ...string) {
	x := exchange(h, method, path, headers...)
	h.f.OnRequest(x)
	finish(h, x, status, "", "")
}

func TestAnExchangeIsCopiedWhole(t *testing.T) {
	h := newHarness(t, tap.HubConfig{}, `{"taps":[{"name":"all","capture":{"requestBodyBytes":20,"responseBodyBytes":1000}}]}`)
	x := exchange(h, "POST", "/v1?a=1", "X-A", "1", "X-Request-Id", "rid", "Authorization", "SECRET")
	h.f.OnRequest(x)
	x.Request.SetPath([]byte("/rewritten")) // later filters and routes change the head
	finish(h, x, 201, strings.Repeat("q", 50), "answer")
	r := h.records()[0]
	if r.Tap != "all" || r.Service != "orders" || r.Direction != "outbound" || string(r.Method) != "POST" || string(r.Path) != "/v1?a=1" || r.Status != 201 ||
		r.Route != "r1" || r.Cluster != "c1" || r.Upstream != "10.0.0.1:80" || string(r.RequestID) != "rid" || r.Duration != 5e6 ||
		r.TraceID != "01000000000000000000000000000000" {
		t.Errorf("got %+v", r)
	}
	if string(r.RequestBody) != strings.Repeat("q", 20) || r.RequestBytes != 50 || !r.RequestTruncated {
		t.Errorf("request body: %q of %d, truncated %v", r.RequestBody, r.RequestBytes, r.RequestTruncated)
	}
	if string(r.ResponseBody) != "answer" || r.ResponseTruncated {
		t.Errorf("response body: %q, truncated %v", r.ResponseBody, r.ResponseTruncated)
	}
	if len(r.RequestHeaders) != 3 || string(r.RequestHeaders[2].Value) != tap.Redacted || string(r.ResponseHeaders[0].Value) != "text/plain" {
		t.Errorf("headers: %q %q", r.RequestHeaders, r.ResponseHeaders)
	}
}

func TestOnlyWhatMatchesIsCopied(t *testing.T) {
	h := newHarness(t, tap.HubConfig{}, `{"direction":"inbound","taps":[
		{"name":"errors","match":{"status":"5xx"}},
		{"name":"posts","match":{"method":"POST","pathPrefix":"/v1","headers":[{"name":"x-a","value":"2"}]}},
		{"name":"never","match":{"samplePercent":0}},
		{"name":"expired","expiresUnixMs":1767323045000}]}`)
	one(h, 200, "GET", "/v1")
	one(h, 503, "GET", "/v1")
	one(h, 200, "POST", "/v1/x", "X-A", "1", "x-a", "2")
	one(h, 500, "POST", "/v1/y", "X-A", "2")
	one(h, 200, "POST", "/v2", "X-A", "2")
	one(h, 200, "POST", "/v1", "X-A", "22")
	one(h, 0, "POST", "/v1/z", "X-A", "2") // the client went away
	var got []string
	for _, r := range h.records() {
		got = append(got, fmt.Sprint(r.Tap, r.Status, string(r.Path), r.Direction))
	}
	want := []string{"errors503/v1inbound", "posts200/v1/xinbound", "errors500/v1/yinbound", "posts500/v1/yinbound", "posts0/v1/zinbound"}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestExchangesMatchByTheirConnectionAndFlags(t *testing.T) {
	h := newHarness(t, tap.HubConfig{}, `{"taps":[{"name":"web","match":{"peers":["spiffe://m/web"]}},{"name":"name","match":{"serverNames":["*.example"]}},{"name":"failed","match":{"flags":["UF"]}}]}`)
	for _, s := range []*record.Security{nil, {PeerURI: "spiffe://m/web", ServerName: "Orders.example", ALPN: "h2"}} {
		x := exchange(h, "GET", "/")
		x.Record.Security, x.Record.ConnectionID = s, 9
		if s != nil {
			x.Record.Flags = record.UF
		}
		h.f.OnRequest(x)
		finish(h, x, 503, "", "")
	}
	var got []string
	for _, r := range h.records() {
		got = append(got, fmt.Sprintf("%s %s %s %s %d", r.Tap, r.Peer, r.ServerName, r.ALPN, r.ConnectionID))
	}
	const of = " spiffe://m/web Orders.example h2 9"
	if want := "web" + of + "|name" + of + "|failed" + of; strings.Join(got, "|") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

func TestARateIsKeptEvenly(t *testing.T) {
	h := newHarness(t, tap.HubConfig{}, `{"taps":[{"name":"rate","match":{"maxPerSecond":10}}]}`)
	counts := map[int64]int{}
	for range 3000 { // three seconds, a thousand exchanges each
		before := h.hub.Counts().Produced
		one(h, 200, "GET", "/")
		counts[h.now/1e8] += int(h.hub.Counts().Produced - before)
		h.now += 1e6
	}
	if got := h.hub.Counts().Produced; got < 38 || got > 40 {
		t.Errorf("got %d in three seconds, want 10 at once and 10 a second", got)
	}
	for tenth := int64(12); tenth < 39; tenth++ {
		if n := counts[tenth]; n < 1 || n > 2 && tenth > 12 {
			t.Errorf("tenth %d: %d copies", tenth, n)
		}
	}
}

func TestSamplingTakesItsShare(t *testing.T) {
	h := newHarness(t, tap.HubConfig{RingBytes: 64 << 20}, `{"taps":[{"name":"a","match":{"samplePercent":25}},{"name":"b","match":{"samplePercent":25}}]}`)
	both := 0
	for i := range uint64(20_000) {
		x := exchange(h, "GET", "/")
		x.Random = mix(i)
		h.f.OnRequest(x)
		if c, ok := x.Slots[1].(*capture); ok && c.mask == 3 {
			both++
		}
		finish(h, x, 200, "", "")
	}
	if got := h.hub.Counts().Produced; got < 9600 || got > 10_400 {
		t.Errorf("got %d records, want about 10000", got)
	}
	if both < 1000 || both > 1500 {
		t.Errorf("both rules took %d, want about 1250: they must not roll the same dice", both)
	}
}

func TestBodiesStayWithinTheWorkersBudget(t *testing.T) {
	h := newHarness(t, tap.HubConfig{BodyBudget: 100 << 10}, `{"taps":[{"name":"all","capture":{"responseBodyBytes":65536}}]}`)
	chunk := bytes.Repeat([]byte("b"), 16<<10)
	var running []*filter.Exchange
	for range 5 {
		x := exchange(h, "GET", "/")
		h.f.OnRequest(x)
		x.Response.Status = 200
		h.f.OnResponse(x)
		for range 4 {
			h.f.OnResponseData(x, chunk, false)
		}
		running = append(running, x)
	}
	for _, x := range running {
		x.Record.Status = 200
		h.f.OnDone(x)
	}
	if h.hub.Counts().Cut == 0 {
		t.Error("nothing was cut")
	}
	kept, cut := 0, 0
	for _, r := range h.records() {
		kept += len(r.ResponseBody)
		if r.ResponseTruncated {
			cut++
		}
		if r.ResponseBytes != 64<<10 {
			t.Errorf("%d bytes counted", r.ResponseBytes)
		}
	}
	if kept > 100<<10 || cut == 0 {
		t.Errorf("%d bytes kept, %d bodies cut", kept, cut)
	}
	// All of the budget is back.
	if !h.hub.Ring(0).Reserve(100 << 10) {
		t.Error("a part of the budget was not given back")
	}
}

// T1: a reader that is away costs records, counted, and no waiting.
func TestAFullRingDropsAndCounts(t *testing.T) {
	h := newHarness(t, tap.HubConfig{RingBytes: 16 << 10}, `{"taps":[{"name":"all"}]}`)
	for range 1000 {
		one(h, 200, "GET", "/")
	}
	c := h.hub.Counts()
	if c.Produced != 1000 || c.Dropped == 0 || c.Dropped+c.Waiting != 1000 {
		t.Errorf("got %+v", c)
	}
	if got := len(h.records()); uint64(got) != c.Waiting {
		t.Errorf("%d came out, %d waited", got, c.Waiting)
	}
	h.spool.Close()
}

func TestTheFilterAllocatesNothing(t *testing.T) {
	h := newHarness(t, tap.HubConfig{}, `{"taps":[{"name":"errors","match":{"status":"5xx"},"capture":{"requestBodyBytes":4096,"responseBodyBytes":4096}},
		{"name":"posts","match":{"method":"POST"}}]}`)
	defer h.spool.Close()
	body := make([]byte, 2000)
	for name, status := range map[string]int{"matched": 503, "not matched": 200} {
		x := exchange(h, "GET", "/", "a", "b", "c", "d")
		if n := testing.AllocsPerRun(200, func() {
			h.f.OnRequest(x)
			h.f.OnRequestData(x, body, true)
			x.Response.Status = status
			x.Record.Status = uint16(status)
			h.f.OnResponse(x)
			h.f.OnResponseData(x, body, true)
			h.f.OnDone(x)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestWithoutRulesNothingIsTaken(t *testing.T) {
	h := newHarness(t, tap.HubConfig{}, `{"taps":[]}`)
	defer h.spool.Close()
	one(h, 200, "GET", "/")
	if c := h.hub.Counts(); c.Produced != 0 {
		t.Errorf("got %+v", c)
	}
}

func TestParseErrorsNameTheField(t *testing.T) {
	if _, err := Spec(tap.NewHub(tap.HubConfig{})).Parse([]byte(`{"taps":[{"name":""}]}`)); err == nil || !strings.Contains(err.Error(), "taps[0]: name: required") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkTappedExchange(b *testing.B) {
	h := newHarness(b, tap.HubConfig{RingBytes: 1 << 16}, `{"taps":[{"name":"all"}]}`)
	defer h.spool.Close()
	x := exchange(h, "GET", "/v1/orders", "user-agent", "curl", "accept", "*/*", "x-request-id", "r", "traceparent", "00-x")
	b.ReportAllocs()
	for b.Loop() {
		h.f.OnRequest(x)
		x.Response.Status, x.Record.Status = 200, 200
		h.f.OnResponse(x)
		h.f.OnDone(x)
	}
}
