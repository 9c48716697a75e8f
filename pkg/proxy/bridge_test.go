// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// protocolBackend is a server of net/http that speaks HTTP/1.1 and, by prior
// knowledge, HTTP/2.
func protocolBackend(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// protocolClient speaks one of the two.
func protocolClient(t testing.TB, http2 bool) *http.Client {
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// bridges runs a test for each pair of protocols, with real clients and servers.
func bridges(t *testing.T, serve http.HandlerFunc, test func(t *testing.T, r *rig, c *http.Client)) {
	for _, down := range []bool{false, true} {
		for _, up := range []bool{false, true} {
			name := map[bool]string{false: "h1", true: "h2"}
			t.Run(name[down]+" to "+name[up], func(t *testing.T) {
				b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) {
					if (q.ProtoMajor == 2) != up {
						t.Errorf("the backend is spoken to by %s", q.Proto)
					}
					serve(w, q)
				})
				r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b).HTTP2 = up })
				test(t, r, protocolClient(t, down))
			})
		}
	}
}

func TestARequestMeansTheSameInEveryProtocol(t *testing.T) {
	bridges(t, func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Errorf("body: %v", err)
		}
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s te=%s length=%d cookie=%s many=%s trailer=%s",
			q.Method, q.Host, q.RequestURI, q.Header.Get("Te"), q.ContentLength, strings.Join(q.Header["Cookie"], "|"),
			strings.Join(q.Header["X-Many"], "|"), q.Trailer.Get("X-End")))
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(201)
		w.Write(body)
		w.Header().Set("X-Sum", fmt.Sprint(len(body)))
	}, func(t *testing.T, r *rig, c *http.Client) {
		for _, size := range []int{0, 5, 20_000, 3_000_000} {
			body := bytes.Repeat([]byte("b"), size)
			q, _ := http.NewRequest("PUT", "http://"+r.addr+"/p/a?x=1&y=%20", bytes.NewReader(body))
			q.Host = "orders.example:81"
			q.Header["X-Many"] = []string{"1", "2"}
			q.Header.Set("Cookie", "a=1; b=2")
			q.Header.Set("Te", "trailers")
			resp, err := c.Do(q)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !bytes.Equal(got, body) || resp.StatusCode != 201 {
				t.Fatalf("%d bytes: %d, %d bytes back, %v", size, resp.StatusCode, len(got), err)
			}
			want := fmt.Sprintf("PUT orders.example:81 /p/a?x=1&y=%%20 te=trailers length=%d cookie=a=1; b=2 many=1|2 trailer=", size)
			if s := resp.Header.Get("X-Seen"); s != want {
				t.Errorf("the backend saw %q, want %q", s, want)
			}
			if s := resp.Trailer.Get("X-Sum"); s != fmt.Sprint(size) {
				t.Errorf("trailer %q", s)
			}
			if s := resp.Header["Set-Cookie"]; len(s) != 2 {
				t.Errorf("cookies %q", s)
			}
		}
	})
}

func TestRequestTrailersPassInEveryProtocol(t *testing.T) {
	bridges(t, func(w http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		io.WriteString(w, q.Trailer.Get("X-End"))
	}, func(t *testing.T, r *rig, c *http.Client) {
		q, _ := http.NewRequest("POST", "http://"+r.addr+"/", io.MultiReader(strings.NewReader("abc")))
		q.Trailer = http.Header{"X-End": []string{"done"}}
		if got := read(t, c, q); got != "done" {
			t.Errorf("trailer %q", got)
		}
	})
}

func TestResponsesWithoutBodiesPassInEveryProtocol(t *testing.T) {
	bridges(t, func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/head":
			w.Header().Set("Content-Length", "1234")
		case "/304":
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(304)
		case "/204":
			w.WriteHeader(204)
		}
	}, func(t *testing.T, r *rig, c *http.Client) {
		for path, want := range map[string]int{"/head": 200, "/304": 304, "/204": 204} {
			method := "GET"
			if path == "/head" {
				method = "HEAD"
			}
			q, _ := http.NewRequest(method, "http://"+r.addr+path, nil)
			resp, err := c.Do(q)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || len(b) != 0 || resp.StatusCode != want {
				t.Errorf("%s: %d %q %v", path, resp.StatusCode, b, err)
			}
			if path == "/head" && resp.ContentLength != 1234 {
				t.Errorf("length %d of HEAD", resp.ContentLength)
			}
		}
	})
}

func TestInformationalResponsesPassInEveryProtocol(t *testing.T) {
	bridges(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(103)
		w.WriteHeader(200)
	}, func(t *testing.T, r *rig, c *http.Client) {
		hints := ""
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints += fmt.Sprint(code, h.Get("Link"))
			return nil
		}})
		q, _ := http.NewRequestWithContext(ctx, "GET", "http://"+r.addr+"/", nil)
		read(t, c, q)
		if hints != "103</a.css>; rel=preload" {
			t.Errorf("hints %q", hints)
		}
	})
}

// Both directions at once, each side waiting for the other's next piece: nothing is
// held back until an end comes.
func TestBodiesAreFullDuplexOverHTTP2(t *testing.T) {
	b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		buf := make([]byte, 64)
		for {
			n, err := q.Body.Read(buf)
			if n > 0 {
				fmt.Fprintf(w, "<%s>", buf[:n])
				http.NewResponseController(w).Flush()
			}
			if err != nil {
				return
			}
		}
	})
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b).HTTP2 = true })
	pr, pw := io.Pipe()
	q, _ := http.NewRequest("POST", "http://"+r.addr+"/", pr)
	resp, err := protocolClient(t, true).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 64)
	for i := range 50 {
		want := fmt.Sprintf("<%d>", i)
		fmt.Fprint(pw, i)
		if n, err := io.ReadFull(resp.Body, buf[:len(want)]); err != nil || string(buf[:n]) != want {
			t.Fatalf("round %d: %q %v", i, buf[:n], err)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
		t.Errorf("the end: %q %v", rest, err)
	}
}

// Many streams on one connection each way, with bodies that need the windows many
// times over.
func TestStreamsShareAConnectionWithoutMixing(t *testing.T) {
	bridges(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Path", q.URL.Path)
		w.Write(body)
	}, func(t *testing.T, r *rig, c *http.Client) {
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				body := strings.Repeat(fmt.Sprintf("%04d", i), 50_000)
				q, _ := http.NewRequest("POST", fmt.Sprintf("http://%s/%d", r.addr, i), strings.NewReader(body))
				resp, err := c.Do(q)
				if err != nil {
					t.Errorf("%d: %v", i, err)
					return
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != body || resp.Header.Get("X-Path") != fmt.Sprintf("/%d", i) {
					t.Errorf("%d: %d %d bytes of %s %.100q, %v", i, resp.StatusCode, len(got), resp.Header.Get("X-Path"), got, err)
				}
			})
		}
		wg.Wait()
	})
}

// A body that breaks off upstream is never taken for a whole one.
func TestATruncatedResponseIsAnErrorInEveryProtocol(t *testing.T) {
	bridges(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}, func(t *testing.T, r *rig, c *http.Client) {
		resp, err := c.Get("http://" + r.addr + "/")
		if err != nil {
			return // it broke before the head was seen
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a clean end behind %q", b)
		}
	})
}

// A client that gives up is seen upstream, and others on the connection go on.
func TestAClientThatGivesUpIsSeenUpstream(t *testing.T) {
	var gone atomic.Int32
	bridges(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/quick" {
			return
		}
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		<-q.Context().Done()
		gone.Add(1)
	}, func(t *testing.T, r *rig, c *http.Client) {
		before := gone.Load()
		ctx, cancel := context.WithCancel(context.Background())
		q, _ := http.NewRequestWithContext(ctx, "GET", "http://"+r.addr+"/slow", nil)
		resp, err := c.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
			t.Errorf("read: %v", err)
		}
		deadline := time.Now().Add(5 * time.Second)
		for gone.Load() == before {
			if time.Now().After(deadline) {
				t.Fatal("upstream does not hear of it")
			}
			q, _ := http.NewRequest("GET", "http://"+r.addr+"/quick", nil)
			read(t, c, q)
		}
	})
}

// An HTTP/2 cluster may follow what came from downstream.
func TestTheProtocolOfDownstreamIsThatOfUpstream(t *testing.T) {
	b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.Proto) })
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", b).DownstreamProtocol = true })
	for _, http2 := range []bool{false, true, false} {
		q, _ := http.NewRequest("GET", "http://"+r.addr+"/", nil)
		want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2]
		if got := read(t, protocolClient(t, http2), q); got != want {
			t.Errorf("the backend is spoken to by %s, want %s", got, want)
		}
	}
}

// Most applications know HTTP/1.1 alone, whatever speaks to their sidecar.
func TestOnlyCallsGoByHTTP2WhereTheClusterSaysSo(t *testing.T) {
	b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.Proto) })
	r := newRig(t, func(s *resource.Snapshot) {
		c := withCluster(s, "c", b)
		c.DownstreamProtocol, c.HTTP2Calls = true, true
	})
	for _, c := range []struct {
		http2             bool
		contentType, want string
	}{
		{false, "text/plain", "HTTP/1.1"},
		{true, "text/plain", "HTTP/1.1"},
		{true, "application/grpc-web", "HTTP/1.1"},
		{true, "application/grpc", "HTTP/2.0"},
		{true, "application/grpc+proto", "HTTP/2.0"},
		{false, "application/grpc", "HTTP/1.1"},
	} {
		q, _ := http.NewRequest("POST", "http://"+r.addr+"/", strings.NewReader("x"))
		q.Header.Set("Content-Type", c.contentType)
		if got := read(t, protocolClient(t, c.http2), q); got != c.want {
			t.Errorf("%s by HTTP/2 %t: the backend is spoken to by %s, want %s", c.contentType, c.http2, got, c.want)
		}
	}
}

// Some endpoints of a cluster know HTTP/1.1 alone, and an update may say so of any.
func TestOnlyCallsGoByHTTP2ToEndpointsThatSaySo(t *testing.T) {
	says := func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.Proto) }
	a, b := protocolBackend(t, says), protocolBackend(t, says)
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", a, b).DownstreamProtocol = true })
	limited := func(first, second bool) {
		next := assignment("c", a, b)
		next.Localities[0].Endpoints[0].HTTP2Calls, next.Localities[0].Endpoints[1].HTTP2Calls = first, second
		r.snap.Assignments["c"] = next
		r.apply(r.snap)
	}
	const h1, h2 = "HTTP/1.1", "HTTP/2.0"
	asked := func(http2 bool, contentType string) map[string]int {
		got := map[string]int{}
		for range 6 {
			q, _ := http.NewRequest("POST", "http://"+r.addr+"/", strings.NewReader("x"))
			q.Header.Set("Content-Type", contentType)
			got[read(t, protocolClient(t, http2), q)]++
		}
		return got
	}
	for _, c := range []struct {
		name          string
		first, second bool
		plain         map[string]int
	}{
		{"the first", true, false, map[string]int{h1: 3, h2: 3}},
		{"neither", false, false, map[string]int{h2: 6}},
		{"both", true, true, map[string]int{h1: 6}},
		{"the second", false, true, map[string]int{h1: 3, h2: 3}},
	} {
		limited(c.first, c.second)
		if got := asked(true, "text/plain"); !maps.Equal(got, c.plain) {
			t.Errorf("calls only to %s: requests of HTTP/2 go by %v, want %v", c.name, got, c.plain)
		}
		if got := asked(true, "application/grpc"); got[h2] != 6 {
			t.Errorf("calls only to %s: calls go by %v", c.name, got)
		}
		if got := asked(false, "text/plain"); got[h1] != 6 {
			t.Errorf("calls only to %s: requests of HTTP/1.1 go by %v", c.name, got)
		}
	}
}

// A listener that goes tells its HTTP/2 connections with GOAWAY: no request fails.
func TestNoStreamIsLostWhenAListenerChanges(t *testing.T) {
	b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) { io.Copy(w, q.Body) })
	r := newRigOf(t, Options{Workers: 1, DrainTime: time.Minute}, func(s *resource.Snapshot) { withCluster(s, "c", b).HTTP2 = true })
	c := protocolClient(t, true)
	stop, failed, done := make(chan struct{}), atomic.Int32{}, atomic.Int32{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				q, _ := http.NewRequest("GET", "http://"+r.addr+"/", nil)
				resp, err := c.Do(q)
				if err != nil {
					failed.Add(1)
					t.Errorf("after %d: %v", done.Load(), err)
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				done.Add(1)
			}
		})
	}
	for i := range 10 {
		enough := done.Load() + 20
		for done.Load() < enough && failed.Load() == 0 {
			r.get("/")
		}
		old := r.snap.Listeners["l"]
		l, fc := *old, *old.FilterChains[0]
		fc.Name = fmt.Sprintf("chain-%d", i) // another chain: the old one drains
		l.FilterChains = []*resource.FilterChain{&fc}
		r.snap.Listeners["l"] = &l
		r.apply(r.snap)
	}
	close(stop)
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d failed", failed.Load(), done.Load())
	}
}

func read(t testing.TB, c *http.Client, q *http.Request) string {
	t.Helper()
	resp, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
