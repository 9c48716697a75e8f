// SPDX-License-Identifier: Apache-2.0

package export

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/trace"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func exampleSpan() *trace.Span {
	return &trace.Span{
		Trace: record.Trace{TraceID: [16]byte{7: 1, 15: 0xab}, SpanID: [8]byte{7: 2}, ParentID: [8]byte{7: 3}, Sampled: true, ID128: true, Client: true},
		Name:  []byte("GET orders"), Start: 1767323045678901234, Duration: 1234567, Service: "Web", RemoteService: "orders",
		Local: netip.MustParseAddrPort("10.0.0.1:1"), Remote: netip.MustParseAddrPort("[2001:db8::2]:8080"),
		Error: true, Status: 503, Tags: []trace.Tag{{Key: "http.status_code", Value: []byte("503")}, {Key: "x", Value: []byte("a\"\xff\x00")}},
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func open(t *testing.T, p *Pool, e resource.TraceExporter) trace.Exporter {
	t.Helper()
	x, err := p.Open(e, "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runtime.KeepAlive(x) }) // a destination that nobody uses is given back, with its counts
	return x
}

func closePool(t *testing.T, p *Pool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestASpanIsZipkinJSON(t *testing.T) {
	got := string(AppendZipkin(nil, exampleSpan()))
	want := `{"traceId":"000000000000000100000000000000ab","id":"0000000000000002","parentId":"0000000000000003","kind":"CLIENT",` +
		`"name":"GET orders","timestamp":1767323045678901,"duration":1234,"localEndpoint":{"serviceName":"web","ipv4":"10.0.0.1","port":1},` +
		`"remoteEndpoint":{"serviceName":"orders","ipv6":"2001:db8::2","port":8080},"tags":{"http.status_code":"503","x":"a\"\ufffd\u0000"}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s := exampleSpan()
	s.ID128, s.Client, s.Shared, s.Debug, s.ParentID, s.Tags, s.Duration = false, false, true, true, [8]byte{}, nil, 1
	s.Remote, s.RemoteService = netip.AddrPort{}, ""
	got = string(AppendZipkin(nil, s))
	want = `{"traceId":"00000000000000ab","id":"0000000000000002","kind":"SERVER","name":"GET orders","timestamp":1767323045678901,"duration":1,` +
		`"localEndpoint":{"serviceName":"web","ipv4":"10.0.0.1","port":1},"debug":true,"shared":true}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// collector is a Zipkin endpoint that answers as it is told.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	spans  []map[string]any
	zipped bool
	status atomic.Int32
	calls  atomic.Int32
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.status.Store(202)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.calls.Add(1)
		if s := int(c.status.Load()); s != 202 {
			http.Error(w, "told so", s)
			return
		}
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		var spans []map[string]any
		if err := json.NewDecoder(body).Decode(&spans); err != nil {
			t.Errorf("not a list of spans: %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.spans = append(c.spans, spans...)
		c.zipped = c.zipped || body != r.Body
		w.WriteHeader(202)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.spans)
}

func TestZipkinGetsEverySpanOnce(t *testing.T) {
	c := newCollector(t)
	p := NewPool(Config{})
	x := open(t, p, resource.TraceExporter{ZipkinURL: c.URL + "/api/v2/spans"})
	for range 3000 {
		x.Export(exampleSpan())
	}
	closePool(t, p)
	if got := c.count(); got != 3000 {
		t.Errorf("got %d spans, want 3000", got)
	}
	if !c.zipped {
		t.Error("large batches were not compressed")
	}
	if open, err := p.Open(resource.TraceExporter{ZipkinURL: c.URL}, "web"); err == nil {
		t.Errorf("a closed pool gave %v", open)
	}
}

func TestACollectorThatComesBackLosesNothing(t *testing.T) {
	c := newCollector(t)
	c.status.Store(503)
	p := NewPool(Config{})
	x := open(t, p, resource.TraceExporter{ZipkinURL: c.URL})
	for range batchSpans {
		x.Export(exampleSpan())
	}
	eventually(t, "the collector has refused twice", func() bool { return c.calls.Load() >= 2 })
	c.status.Store(202)
	eventually(t, "all spans are there", func() bool { return c.count() == batchSpans })
	closePool(t, p)
	if s := p.Stats(); s[0].Failed != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestWhatIsRefusedForGoodIsNotSentAgain(t *testing.T) {
	c := newCollector(t)
	c.status.Store(400)
	p := NewPool(Config{})
	x := open(t, p, resource.TraceExporter{ZipkinURL: c.URL})
	for range batchSpans {
		x.Export(exampleSpan())
	}
	eventually(t, "the batch has failed", func() bool { return stats(p, "zipkin").Failed == batchSpans })
	if got := c.calls.Load(); got != 1 {
		t.Errorf("sent %d times", got)
	}
	if s := stats(p, "zipkin"); !strings.Contains(s.Error, "told so") {
		t.Errorf("error: %q", s.Error)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := p.Close(ctx); err == nil || !strings.Contains(err.Error(), "512 spans were not delivered") {
		t.Errorf("close: %v", err)
	}
}

func stats(p *Pool, prefix string) Stats {
	for _, s := range p.Stats() {
		if strings.HasPrefix(s.Destination, prefix) {
			return s
		}
	}
	return Stats{}
}

// T5: a collector that is away costs memory up to the bound, and then spans, each
// of them counted.
func TestADeadCollectorDropsAndCountsEverySpan(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close() // nobody listens there now
	p := NewPool(Config{})
	x := open(t, p, resource.TraceExporter{ZipkinURL: "http://" + addr})
	const n = queueSpans + 5000
	for range n {
		x.Export(exampleSpan())
	}
	s := stats(p, "zipkin")
	if s.Accepted+s.Dropped != n || s.Dropped < 4000 || s.Waiting > queueSpans {
		t.Errorf("got %+v, want %d spans accounted for", s, n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := p.Close(ctx); err == nil {
		t.Error("closing says nothing of lost spans")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("closing took %v", d)
	}
}

func TestLinkLocalAndMetadataDestinationsAreRefused(t *testing.T) {
	p := NewPool(Config{})
	defer closePool(t, p)
	for _, e := range []resource.TraceExporter{
		{ZipkinURL: "http://169.254.169.254/latest/meta-data"}, {ZipkinURL: "http://[fe80::1]:9411/"}, {ZipkinURL: "http://[::ffff:169.254.169.254]/"},
		{ZipkinURL: "http://100.100.100.200/"}, {ZipkinURL: "http://0.0.0.0:9411/"}, {ZipkinURL: "file:///etc/passwd"}, {ZipkinURL: "http:///x"},
		{OTLPEndpoint: "169.254.170.2:4317"}, {OTLPEndpoint: "nonsense"}, {OTLPEndpoint: "127.0.0.1:4317", OTLPProtocol: "kafka"},
		{OTLPCluster: "c"}, {ZipkinCluster: "c"}, {},
	} {
		if _, err := p.Open(e, "web"); err == nil {
			t.Errorf("%+v was accepted", e)
		}
	}
	if _, err := dial(context.Background(), "tcp", "169.254.169.254:80"); err == nil || !strings.Contains(err.Error(), "refused as a destination") {
		t.Errorf("dialling: %v", err)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	c := newCollector(t)
	r := httptest.NewServer(http.RedirectHandler(c.URL, http.StatusTemporaryRedirect))
	defer r.Close()
	p := NewPool(Config{})
	x := open(t, p, resource.TraceExporter{ZipkinURL: r.URL})
	x.Export(exampleSpan())
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.Close(ctx); err == nil {
		t.Error("a redirect counted as delivered")
	}
	if c.calls.Load() != 0 {
		t.Error("the redirect was followed")
	}
}

func TestACollectorMayBeACluster(t *testing.T) {
	c := newCollector(t)
	p := NewPool(Config{ClusterAddress: func(name string) (string, error) {
		if name != "zipkin" {
			t.Errorf("asked for %q", name)
		}
		return c.Listener.Addr().String(), nil
	}})
	open(t, p, resource.TraceExporter{ZipkinCluster: "zipkin"}).Export(exampleSpan())
	closePool(t, p)
	if c.count() != 1 {
		t.Error("the span did not arrive")
	}
}

func TestSourceGivesBatchesUntilTheyAreAcknowledged(t *testing.T) {
	p := NewPool(Config{})
	x := open(t, p, resource.TraceExporter{ToControlPlane: true})
	src := p.Source()
	const n = batchSpans + 10
	for range n {
		x.Export(exampleSpan())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	first, s1, err := src.Next(ctx)
	if err != nil || len(first) != batchSpans || !json.Valid(first[0]) {
		t.Fatalf("got %d spans, %v", len(first), err)
	}
	second, s2, err := src.Next(ctx)
	if err != nil || len(second) != 10 || s2 <= s1 {
		t.Fatalf("got %d spans of sequence %d after %d, %v", len(second), s2, s1, err)
	}
	if got := src.Pending(); got != n {
		t.Errorf("pending: got %d, want %d", got, n)
	}
	src.Ack(s1)
	if got := src.Pending(); got != 10 {
		t.Errorf("pending: got %d, want 10", got)
	}
	src.Ack(s2)
	done, stop := context.WithCancel(ctx)
	stop()
	if _, _, err := src.Next(done); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	closePool(t, p)
	if _, _, err := src.Next(ctx); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

func TestSourceIsBounded(t *testing.T) {
	p := NewPool(Config{})
	x := open(t, p, resource.TraceExporter{ToControlPlane: true})
	s := exampleSpan()
	s.Tags = []trace.Tag{{Key: "big", Value: []byte(strings.Repeat("x", 64<<10))}}
	for range 1000 {
		x.Export(s)
	}
	st := stats(p, "control plane")
	if st.Accepted+st.Dropped != 1000 || st.Accepted > 130 {
		t.Errorf("got %+v", st)
	}
	closePool(t, p)
}

// openAndForget exports a span. No variable of its caller keeps the exporter alive.
//
//go:noinline
func openAndForget(t *testing.T, p *Pool, url string) {
	t.Helper()
	x, err := p.Open(resource.TraceExporter{ZipkinURL: url}, "web")
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	x.Export(exampleSpan())
}

// Each change of a destination's settings makes another: the one before is given
// back with the last of its spans.
func TestADestinationThatNoPlanUsesAnyMoreIsGivenBack(t *testing.T) {
	c := newCollector(t)
	p := NewPool(Config{})
	defer closePool(t, p)
	const times = 3 * maxDestinations
	for i := range times {
		openAndForget(t, p, fmt.Sprintf("%s/%d", c.URL, i))
	}
	defer func() {
		if t.Failed() {
			t.Logf("%d of %d spans have come, left are %+v", c.count(), times, p.Stats())
		}
	}()
	eventually(t, "all spans have come and only the source is left", func() bool {
		runtime.GC()
		return c.count() == times && len(p.Stats()) == 1
	})
}
