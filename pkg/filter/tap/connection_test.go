// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

// connections is a filter of connections with its hub and a spool to read records from.
type connections struct {
	*harness
	f *connectionFilter
}

func newConnections(t testing.TB, c tap.HubConfig, config string) *connections {
	t.Helper()
	c.Workers = 1
	h := &harness{t: t, hub: tap.NewHub(c), now: 1e9}
	spec := Spec(h.hub).Connection
	parsed, err := spec.Parse([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	f := spec.New(parsed, filter.Worker{}).(*connectionFilter)
	if h.spool, err = tap.OpenSpool(tap.SpoolConfig{Dir: filepath.Join(t.TempDir(), "spool")}); err != nil {
		t.Fatal(err)
	}
	return &connections{h, f}
}

// running is a connection that is proxied, as its tunnel sees it.
type running struct {
	c   *connections
	rec record.Record
	o   filter.ConnectionObserver
	// wants is what the observer said last, by direction.
	wants [2]bool
}

func (c *connections) begin(s *record.Security) *running {
	r := &running{c: c, wants: [2]bool{true, true}, rec: record.Record{
		Kind: record.TCPConnection, Start: 1767323045678901234, RequestEnd: record.Never, UpstreamRequest: record.Never, UpstreamResponse: record.Never,
		ResponseStart: record.Never, ConnectionID: 7, Remote: netip.MustParseAddrPort("10.0.0.2:1234"), Local: netip.MustParseAddrPort("10.0.0.3:5432"), Security: s,
	}}
	r.o = c.f.OnConnection(&r.rec, c.now, 1)
	return r
}

// pass lets bytes go by, in pieces; those that the observer does not want it does not see.
func (r *running) pass(fromUpstream bool, s string, piece int) {
	way, count := 0, &r.rec.BytesReceived
	if fromUpstream {
		way, count = 1, &r.rec.BytesSent
	}
	*count += uint64(len(s))
	for ; len(s) > 0 && r.o != nil; s = s[min(piece, len(s)):] {
		if r.wants[way] {
			r.wants[way] = r.o.OnBytes(fromUpstream, []byte(s[:min(piece, len(s))]), r.c.now)
		}
	}
}

func (r *running) end(flags record.Flags, details string) {
	r.rec.Flags, r.rec.CloseDetails, r.rec.End = flags, details, 5e6
	r.rec.Cluster, r.rec.UpstreamAddr, r.rec.Attempts = "inbound|db", netip.MustParseAddrPort("127.0.0.1:5432"), 1
	if r.o != nil {
		r.o.OnDone(r.c.now)
	}
}

// hello is what a client of TLS sends first.
func hello(t testing.TB, name string, alpn ...string) string {
	t.Helper()
	client, server := net.Pipe()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: name, NextProtos: alpn, InsecureSkipVerify: true}).Handshake() //nolint:gosec // never answered
	}()
	var head [5]byte
	if _, err := io.ReadFull(server, head[:]); err != nil {
		t.Fatal(err)
	}
	rest := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, rest); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(client.Close(), server.Close()); err != nil {
		t.Fatal(err)
	}
	return string(head[:]) + string(rest)
}

func TestAConnectionIsRecordedWithItsFirstBytes(t *testing.T) {
	h := newConnections(t, tap.HubConfig{}, `{"direction":"inbound","taps":[{"name":"db","capture":{"requestBodyBytes":8,"responseBodyBytes":100}}]}`)
	r := h.begin(&record.Security{PeerURI: "spiffe://m/web", ServerName: "outer", ALPN: "h2"})
	r.pass(true, "220 ready\r\n", 4)
	r.pass(false, "a question, and what follows", 3)
	if r.wants != [2]bool{false, true} {
		t.Errorf("wants more: %v, though of the client's bytes it has enough", r.wants)
	}
	r.end(record.UR, "why")
	got := h.records()[0]
	if got.Tap != "db" || got.Direction != "inbound" || got.Protocol != "TCP" || got.ConnectionID != 7 || got.Duration != 5e6 || got.RequestEnd >= 0 ||
		got.Remote != "10.0.0.2:1234" || got.Local != "10.0.0.3:5432" || got.Upstream != "127.0.0.1:5432" || got.Cluster != "inbound|db" ||
		got.Flags != "UR" || got.Details != "why" || string(got.Peer) != "spiffe://m/web" || string(got.ServerName) != "outer" || string(got.ALPN) != "h2" {
		t.Errorf("got %+v", got)
	}
	if string(got.RequestBody) != "a questi" || got.RequestBytes != 28 || !got.RequestTruncated {
		t.Errorf("of the client: %q of %d, truncated %v", got.RequestBody, got.RequestBytes, got.RequestTruncated)
	}
	if string(got.ResponseBody) != "220 ready\r\n" || got.ResponseBytes != 11 || got.ResponseTruncated {
		t.Errorf("of the server: %q of %d, truncated %v", got.ResponseBody, got.ResponseBytes, got.ResponseTruncated)
	}
}

// However the hello is cut, its name is found, and bytes that no rule wants do not stay.
func TestConnectionsOfTLSMatchByTheNameInTheirHello(t *testing.T) {
	config := `{"taps":[{"name":"own","match":{"serverNames":["db.example"]},"capture":{"requestBodyBytes":5}},
		{"name":"below","match":{"serverNames":["*.example"]}},{"name":"other","match":{"serverNames":["other"]},"capture":{"responseBodyBytes":100000}}]}`
	first := hello(t, "DB.example", "postgresql", "x")
	for _, piece := range []int{1, 7, len(first) - 1, len(first)} {
		h := newConnections(t, tap.HubConfig{}, config)
		r := h.begin(&record.Security{ServerName: "outer"})
		r.pass(true, strings.Repeat("greeting", 1000), 500)
		r.pass(false, first+"more", piece)
		if c := r.o.(*connection); r.wants[0] || len(c.resp.data) != 0 || c.resp.reserved != 0 {
			t.Errorf("in pieces of %d: wants %v, keeps %d", piece, r.wants, len(c.resp.data))
		}
		r.end(0, "")
		var got []string
		for _, x := range h.records() {
			got = append(got, fmt.Sprintf("%s %s %s %d", x.Tap, x.ServerName, x.ALPN, len(x.RequestBody)))
		}
		if want := "own db.example postgresql,x 5 below db.example postgresql,x 0"; strings.Join(got, " ") != want {
			t.Errorf("in pieces of %d: got %v, want %s", piece, got, want)
		}
	}
}

// A client may offer kilobytes of names: only whole ones within the bound are kept.
func TestOfferedProtocolsAreBounded(t *testing.T) {
	long := strings.Repeat("p", 200)
	for _, c := range []struct {
		offered []string
		want    string
	}{
		{[]string{"h2", long, "x"}, "h2," + long + ",x"},
		{[]string{long, strings.Repeat("q", 54)}, long + "," + strings.Repeat("q", 54)},
		{[]string{long, strings.Repeat("q", 55), "x"}, long + "," + strings.Repeat("q", 55)},
		{[]string{long, strings.Repeat("q", 56), "x"}, long},
		{[]string{strings.Repeat("q", 255), "x"}, strings.Repeat("q", 255)},
	} {
		h := newConnections(t, tap.HubConfig{}, `{"taps":[{"name":"all"}]}`)
		r := h.begin(nil)
		r.pass(false, hello(t, "db.example", c.offered...), 100)
		r.end(0, "")
		if got := string(h.records()[0].ALPN); got != c.want {
			t.Errorf("of %d names: got %q, want %q", len(c.offered), got, c.want)
		}
	}
}

func TestOnlyConnectionsThatMatchAreRecorded(t *testing.T) {
	h := newConnections(t, tap.HubConfig{}, `{"taps":[{"name":"web","match":{"peers":["spiffe://m/web*"]}},{"name":"failed","match":{"flags":["UF","UH"]}},
		{"name":"expired","expiresUnixMs":1767323045000},{"name":"never","match":{"samplePercent":0}},{"name":"rate","match":{"maxPerSecond":1,"serverNames":["x"]}}]}`)
	h.begin(&record.Security{PeerURI: "spiffe://m/web-2"}).end(0, "")
	h.begin(&record.Security{PeerURI: "spiffe://m/other"}).end(record.UH, "")
	h.begin(nil).end(record.UF|record.URX, "")
	h.begin(&record.Security{ServerName: "x"}).end(record.UR, "")
	h.begin(&record.Security{ServerName: "x"}).end(record.UR, "")
	var got []string
	for _, r := range h.records() {
		got = append(got, r.Tap+" "+r.Flags)
	}
	if want := "web |failed UH|failed UF,URX|rate UR"; strings.Join(got, "|") != want {
		t.Errorf("got %q, want %s", got, want)
	}
	idle := newConnections(t, tap.HubConfig{}, `{"taps":[{"name":"never","match":{"samplePercent":0}}]}`)
	defer idle.spool.Close()
	if r := idle.begin(nil); r.o != nil {
		t.Error("a connection that no rule can match is followed")
	}
}

// A tap that reads bytes ends when it says so, also for connections that go on.
func TestBytesThatComeBehindTheEndOfTheTapAreNotKept(t *testing.T) {
	h := newConnections(t, tap.HubConfig{}, `{"taps":[{"name":"t","expiresUnixMs":1767323047678,"capture":{"requestBodyBytes":100,"responseBodyBytes":100}}]}`)
	r := h.begin(nil)
	r.pass(false, "before", 10)
	h.now += int64(2 * time.Second)
	r.pass(false, "behind", 10)
	r.pass(true, "behind", 10)
	if r.wants != [2]bool{} {
		t.Errorf("wants more: %v", r.wants)
	}
	r.end(0, "")
	if got := h.records()[0]; string(got.RequestBody) != "before" || !got.RequestTruncated || len(got.ResponseBody) != 0 || !got.ResponseTruncated || got.ResponseBytes != 6 {
		t.Errorf("got %+v", got)
	}
}

func TestConnectionsStayWithinTheWorkersBudget(t *testing.T) {
	h := newConnections(t, tap.HubConfig{BodyBudget: 100 << 10}, `{"taps":[{"name":"all","capture":{"responseBodyBytes":65536}}]}`)
	var all []*running
	for range 5 {
		r := h.begin(nil)
		r.pass(true, strings.Repeat("b", 64<<10), 16<<10)
		if r.wants[1] {
			t.Error("wants more than there is room for")
		}
		all = append(all, r)
	}
	for _, r := range all {
		r.end(0, "")
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
	}
	if kept > 100<<10 || cut == 0 {
		t.Errorf("%d bytes kept, %d cut", kept, cut)
	}
	if !h.hub.Ring(0).Reserve(100 << 10) {
		t.Error("a part of the budget was not given back")
	}
}

// What a connection has of an earlier one is in the budget, however long it stays.
func TestMemoryThatIsUsedAgainCounts(t *testing.T) {
	const budget = 64 << 10
	h := newConnections(t, tap.HubConfig{BodyBudget: budget}, `{"taps":[{"name":"all","capture":{"responseBodyBytes":16384}}]}`)
	defer h.spool.Close()
	round := func() {
		var all []*running
		for range 10 {
			r := h.begin(nil)
			held := 0
			for _, x := range append(all, r) {
				c := x.o.(*connection)
				held += cap(c.req.data) + cap(c.resp.data)
			}
			if held > budget {
				t.Fatalf("%d connections hold %d bytes of a budget of %d", len(all)+1, held, budget)
			}
			all = append(all, r)
		}
		for _, r := range all {
			r.pass(true, strings.Repeat("b", 16<<10), 4<<10)
		}
		for _, r := range all {
			r.end(0, "")
		}
	}
	for range 4 {
		round()
	}
	if !h.hub.Ring(0).Reserve(budget) {
		t.Error("a part of the budget was not given back")
	}
}

func TestFollowingConnectionsAllocatesNothing(t *testing.T) {
	h := newConnections(t, tap.HubConfig{}, `{"taps":[{"name":"a","match":{"serverNames":["db.example"]},"capture":{"requestBodyBytes":4096,"responseBodyBytes":4096}},{"name":"b","match":{"flags":["UF"]}}]}`)
	defer h.spool.Close()
	first, b := []byte(hello(t, "db.example", "x")), bytes.Repeat([]byte("b"), 2000)
	s := &record.Security{ServerName: "db.example", PeerURI: "spiffe://m/web"}
	r := h.begin(s)
	r.end(0, "")
	for name, in := range map[string][]byte{"TLS": first, "no TLS": b} {
		if n := testing.AllocsPerRun(200, func() {
			o := h.f.OnConnection(&r.rec, h.now, 1)
			o.OnBytes(false, in[:len(in)/2], h.now)
			o.OnBytes(false, in[len(in)/2:], h.now)
			o.OnBytes(true, b, h.now)
			o.OnDone(h.now)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkTappedConnection(b *testing.B) {
	h := newConnections(b, tap.HubConfig{RingBytes: 1 << 16}, `{"taps":[{"name":"all","capture":{"requestBodyBytes":1024,"responseBodyBytes":1024}}]}`)
	defer h.spool.Close()
	r := h.begin(nil)
	in := bytes.Repeat([]byte("b"), 512)
	b.ReportAllocs()
	for b.Loop() {
		o := h.f.OnConnection(&r.rec, h.now, 1)
		o.OnBytes(false, in, h.now)
		o.OnBytes(true, in, h.now)
		o.OnDone(h.now)
	}
}
