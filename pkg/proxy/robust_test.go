// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// D2: an upstream that breaks off in its response is never a clean end downstream.
func TestATruncatedResponseIsNeverACleanEnd(t *testing.T) {
	for name, head := range map[string]string{
		"content-length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
		"chunked":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
	} {
		b := scripted(t, func(c net.Conn) {
			if readHead(c) == nil {
				io.WriteString(c, head)
			}
		})
		r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
		resp, err := r.client().Get("http://" + r.addr)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("%s: a clean end after %q", name, got)
		}
		if string(got) != "short" {
			t.Errorf("%s: got %q of what the upstream had sent", name, got)
		}
	}
}

// D3: a half-close behind a whole response loses nothing, and its connection is
// not used again.
func TestAHalfCloseBehindTheResponseLosesNothing(t *testing.T) {
	b := scripted(t, func(c net.Conn) {
		if readHead(c) != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	})
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	for range 20 {
		if resp, body := r.get("/"); resp.StatusCode != 200 || body != "ok" {
			t.Fatalf("%d %q", resp.StatusCode, body)
		}
	}
}

// D5: slow readers on both sides hold a bounded amount of memory.
func TestSlowReadersHoldBoundedMemory(t *testing.T) {
	const conns, size = 200, 100 << 20
	over := make(chan struct{})
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodPost {
			<-over // reads nothing
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		chunk := make([]byte, 64<<10)
		for range size / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	t.Cleanup(func() { close(over) })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	upload := make([]byte, 4<<20) // one for all: it is not what is measured
	for range conns {
		c := r.dial()
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		p := r.dial()
		fmt.Fprintf(p, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
		go p.Write(upload)
	}
	probe := r.client()
	for range 50 {
		resp, err := probe.Get("http://" + r.addr + "/probe?short")
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, resp.Body, 1024)
		resp.Body.Close()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	// Watermarks of both sides by the fault plan's factor, and beside the upload what
	// the test's own server holds: a chunk and two buffers for each connection.
	if limit := int64(conns*2*(64<<10)*3/2 + len(upload) + 2*conns*(80<<10)); grown > limit {
		t.Errorf("%d MiB for %d slow connections on each side", grown>>20, conns)
	}
	t.Logf("%d KiB", grown>>10)
}

// D6: clients that never finish a head or stop in a body are ended by timers.
func TestSlowClientsAreEndedByTimers(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { io.Copy(io.Discard, q.Body) })
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		m := s.Listeners["l"].FilterChains[0].HTTP
		m.RequestHeadersTimeout = 200 * time.Millisecond
		m.StreamIdleTimeout = 300 * time.Millisecond
		m.IdleTimeout = 400 * time.Millisecond
	})
	for sent, want := range map[string]string{
		"": "", "GET / HT": "HTTP/1.1 408", "GET / HTTP/1.1\r\nHost: x\r\nA: b": "HTTP/1.1 408",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc": "HTTP/1.1 408",
		"GET /idle HTTP/1.1\r\nHost: x\r\n\r\n":                       "HTTP/1.1 200",
	} {
		c := r.dial()
		io.WriteString(c, sent)
		got, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("%q: %v", sent, err)
		}
		if !strings.HasPrefix(string(got), want) {
			t.Errorf("%q: got %q, want %q", sent, got, want)
		}
	}
}

// D7: a request split at every byte gives the same as in one piece.
func TestRequestsSplitAtEveryByteAreTheSame(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		fmt.Fprintf(w, "%s %s %s %q %v %v", q.Method, q.RequestURI, q.Host, body, err, q.Trailer)
	})
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	for _, req := range []string{
		"GET /a HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
		"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3\r\nabc\r\n4;e=f\r\ndefg\r\n0\r\nT: v\r\n\r\n",
	} {
		want := ""
		for cut := range len(req) {
			c := r.dial()
			c.(*net.TCPConn).SetNoDelay(true)
			io.WriteString(c, req[:cut])
			runtime.Gosched()
			io.WriteString(c, req[cut:])
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatalf("%q cut at %d: %v", req, cut, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if want == "" {
				want = string(body)
			}
			if resp.StatusCode != 200 || string(body) != want {
				t.Fatalf("%q cut at %d: %d %q, want %q", req, cut, resp.StatusCode, body, want)
			}
			c.Close()
		}
	}
}

// D19, short: changes of everything under steady load fail no request.
func TestConfigurationChangesUnderLoadFailNoRequest(t *testing.T) {
	handler := func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, "ok") }
	addrs := []string{backend(t, handler), backend(t, handler), backend(t, handler)}
	r := newRigOf(t, Options{Workers: 1, DrainTime: time.Minute}, func(s *resource.Snapshot) { withCluster(s, "c", addrs...) })
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var sent, failed atomic.Int64
	for range 50 {
		c := r.client()
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := c.Get("http://" + r.addr)
				if err != nil {
					failed.Add(1)
					t.Errorf("request: %v", err)
					continue
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				sent.Add(1)
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
					t.Errorf("status %d, error %v", resp.StatusCode, err)
				}
			}
		})
	}
	s := r.snap
	for i := range 100 {
		next := *s
		next.Clusters = map[string]*resource.Cluster{}
		next.Assignments = map[string]*resource.Assignment{}
		switch i % 4 {
		case 0: // endpoints
			withCluster(&next, "c", addrs[i%3], addrs[(i+1)%3])
			next.Clusters["c"] = s.Clusters["c"]
		case 1: // cluster
			withCluster(&next, "c", addrs...)
		case 2: // routes, to a new cluster
			name := fmt.Sprintf("c%d", i)
			next.Clusters["c"], next.Assignments["c"] = s.Clusters["c"], s.Assignments["c"]
			withCluster(&next, name, addrs...)
			fresh := baseSnapshot(r.addr)
			fresh.Routes["r"].VirtualHosts[0].Routes[0].Action.Clusters[0].Name = name
			next.Routes = fresh.Routes
		case 3: // filter chains
			fresh := baseSnapshot(r.addr)
			withCluster(&next, "c", addrs...)
			next.Routes = fresh.Routes
			next.Listeners = fresh.Listeners
			next.Listeners["l"].FilterChains[0].Name = fmt.Sprintf("chain%d", i)
		}
		next.Version = s.Version
		r.apply(&next)
		s = &next
		at := sent.Load()
		eventually(t, "requests under this version", func() bool { return sent.Load() > at+20 || failed.Load() > 0 })
	}
	cancel()
	wg.Wait()
	t.Logf("%d requests, %d failed", sent.Load(), failed.Load())
}

func TestHeaderEditsOfAllLevels(t *testing.T) {
	format := func(s string) resource.Format {
		f, err := substitution.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprintf(w, "%q %q %q %q", q.Header["X-A"], q.Header["X-B"], q.Header["X-Gone"], q.Host)
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		rc := s.Routes["r"]
		rc.HeaderEdits.RequestAdd = []resource.HeaderOption{{Name: "x-a", Value: format("config")}}
		vh := rc.VirtualHosts[0]
		vh.HeaderEdits.RequestAdd = []resource.HeaderOption{{Name: "x-a", Value: format("host")}}
		vh.HeaderEdits.ResponseAdd = []resource.HeaderOption{{Name: "x-code", Value: format("%RESPONSE_CODE%-%UPSTREAM_CLUSTER%")}}
		rt := vh.Routes[0]
		rt.HeaderEdits.RequestAdd = []resource.HeaderOption{{Name: "x-a", Value: format("route")}, {Name: "x-b", Value: format("%REQ(X-IN)%/%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"), Action: resource.OverwriteIfExistsOrAdd}}
		rt.HeaderEdits.RequestRemove = []string{"x-gone"}
		rt.Action.HostRewrite = "rewritten"
	})
	req, _ := http.NewRequest("GET", "http://"+r.addr+"/", nil)
	req.Header.Set("X-In", "in")
	req.Header.Set("X-Gone", "here")
	req.Header.Set("X-B", "old")
	resp, err := r.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := `["route" "host" "config"] ["in/127.0.0.1"] [] "rewritten"`; string(body) != want {
		t.Errorf("got %s\nwant %s", body, want)
	}
	if got := resp.Header.Get("X-Code"); got != "200-c" {
		t.Errorf("response header %q", got)
	}
}

func TestBadRequestsAreRefusedAndClosed(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { t.Errorf("reached the upstream: %s", q.URL) })
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	for req, status := range map[string]string{
		"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n": "400",
		"GET / HTTP/1.1\r\n\r\n":                                                      "400",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n":                                "400",
		"GET / HTTP/2.0\r\nHost: a\r\n\r\n":                                           "505",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n":                        "400",
		"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 70<<10) + "\r\n\r\n": "431",
		"GET /" + strings.Repeat("a", 10<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n":        "414",
		"GET / HTTP/1.0\r\nHost: x\r\n\r\n":                                           "426",
	} {
		c := r.dial()
		go io.WriteString(c, req)
		got, err := io.ReadAll(c)
		if err != nil && !errors.Is(err, io.EOF) && len(got) == 0 {
			t.Errorf("%.40q: %v", req, err)
		}
		if !bytes.HasPrefix(got, []byte("HTTP/1.1 "+status)) {
			t.Errorf("%.60q: got %.60q, want %s", req, got, status)
		}
	}
}

func TestATCPProxyKeepsHalfClose(t *testing.T) {
	b := scripted(t, func(c net.Conn) {
		in, _ := io.ReadAll(c) // to the client's FIN
		fmt.Fprintf(c, "got %d", len(in))
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
			StatPrefix: "t", Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour}}
	})
	c := r.dial().(*net.TCPConn)
	data := make([]byte, 3<<20)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != fmt.Sprintf("got %d", len(data)) {
		t.Errorf("%q %v", got, err)
	}
}

func TestInternalExchangesGoTheSameWay(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Id", q.Header.Get("X-Request-Id"))
		fmt.Fprintf(w, "%s %s %s %s", q.Method, q.Host, q.URL, body)
	})
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	answers := make(chan Answer, 1)
	ask := func(c Call) Answer {
		t.Helper()
		if err := r.p.SubmitOffLoop(0, "l", c, func(a Answer) { answers <- a }); err != nil {
			t.Fatal(err)
		}
		return <-answers
	}
	a := ask(Call{Method: "POST", Authority: "svc", Path: "/x?y=z", Body: []byte("hello")})
	if a.Err != nil || a.Status != 200 || string(a.Body) != "POST svc /x?y=z hello" {
		t.Errorf("%+v %q", a, a.Body)
	}
	if a := ask(Call{Method: "GET", Authority: "svc", Path: "/" + strings.Repeat("x", 2<<10)}); a.Status != 200 {
		t.Errorf("%+v", a)
	}
	if err := r.p.SubmitOffLoop(0, "nosuch", Call{}, nil); err == nil {
		t.Error("a listener that is not there was no error")
	}
}

// A client that pipelines and does not read holds a bounded amount of memory.
func TestAPipeliningClientThatDoesNotReadIsHeld(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 4<<10)
	r := newRig(t, func(s *resource.Snapshot) {
		s.Routes["r"].VirtualHosts[0].Routes = []*resource.Route{{Match: resource.RouteMatch{Path: "/"}, Direct: &resource.DirectResponse{Status: 200, Body: body}}}
	})
	const n = 20_000
	c := r.dial().(*net.TCPConn)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", n))
		sent <- err
	}()
	m := r.p.managers["test"]
	at, same := uint64(0), 0
	eventually(t, "the proxy stops taking requests", func() bool {
		var now uint64
		done := make(chan struct{})
		r.p.workers[0].loop.PostOffLoop(func() { now = m.on[0].rqTotal; close(done) })
		<-done
		if same++; now != at || now == 0 {
			at, same = now, 0
		}
		return same > 10
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("%d KiB for one connection", grown>>10)
	}
	br := bufio.NewReader(c)
	for i := range n {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("response %d: %v", i, err)
		}
		if k, err := io.Copy(io.Discard, resp.Body); err != nil || k != int64(len(body)) {
			t.Fatalf("response %d: %d bytes, %v", i, k, err)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
