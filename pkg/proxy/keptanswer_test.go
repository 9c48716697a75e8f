// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// keeping is a proxy whose cluster keeps answers, and the switch that lets it fail.
func keeping(t *testing.T, edit func(*resource.Snapshot)) (*rig, *atomic.Bool) {
	down := new(atomic.Bool)
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		h := w.Header()
		h.Set("Content-Type", "text/x")
		h.Set("X-Own", "yes")
		switch q.URL.Path {
		case "/cookie":
			h.Set("Set-Cookie", "a=b")
		case "/private":
			h.Set("Cache-Control", "private")
		case "/long":
			_, _ = io.Copy(w, io.LimitReader(strings.NewReader(strings.Repeat("x", 2000)), 2000))
			return
		case "/chunked":
			h.Set("Trailer", "X-T")
			fmt.Fprint(w, "one ")
			w.(http.Flusher).Flush()
			defer h.Set("X-T", "1")
		case "/vary":
			h.Set("Vary", "X-V")
		}
		fmt.Fprint(w, "hello ", q.Header.Get("X-V"))
	})
	return newRig(t, func(s *resource.Snapshot) {
		c := withCluster(s, "c", b)
		c.Fallback = &resource.Fallback{Cached: &resource.CachedFallback{MaxAge: time.Hour, MaxBody: 1000}}
		c.Breaker = circuitOf(func(b *resource.CircuitBreaker) { b.RequestVolumeThreshold = 1000 })
		if edit != nil {
			edit(s)
		}
	}), down
}

func (r *rig) ask(method, path string, fields ...string) (*http.Response, string) {
	r.t.Helper()
	q, err := http.NewRequest(method, "http://"+r.addr+path, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range fields {
		if name, value, ok := strings.Cut(f, ": "); ok {
			q.Header.Set(name, value)
		}
	}
	resp, err := r.client().Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(body)
}

func TestTheLastGoodAnswerStandsForOneThatFails(t *testing.T) {
	var logged func(string)
	r, down := keeping(t, func(s *resource.Snapshot) {
		logged = logTo(t, s, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:PATH)%")
		s.Listeners["l"].FilterChains[0].HTTP.LocalReplies = []resource.LocalReplyMapper{{Status: 599}}
	})
	for _, path := range []string{"/a", "/chunked", "/cookie", "/private", "/long", "/gone"} {
		if resp, body := r.ask("GET", path); resp.StatusCode != 200 || resp.Header.Get("Age") != "" || resp.Header.Get("Cache-Status") != "" {
			t.Fatalf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
	r.ask("GET", "/vary", "X-V: 1")
	r.ask("GET", "/auth", "Authorization: x")
	r.ask("DELETE", "/gone")
	down.Store(true)
	for _, tt := range []struct {
		name, method, path, field string
		want                      string // "": a failure
	}{
		{"the same request", "GET", "/a", "", "hello "},
		{"a conditional one", "GET", "/a", "If-None-Match: x", "hello "},
		{"a body of unknown length", "GET", "/chunked", "", "one hello "},
		{"another path", "GET", "/a?b", "", ""},
		{"a range", "GET", "/a", "Range: bytes=0-1", ""},
		{"another method", "HEAD", "/a", "", ""},
		{"who says who it is", "GET", "/a", "Cookie: a=b", ""},
		{"what was for one", "GET", "/auth", "", ""},
		{"an answer with a cookie", "GET", "/cookie", "", ""},
		{"a private answer", "GET", "/private", "", ""},
		{"a long answer", "GET", "/long", "", ""},
		{"the same variant", "GET", "/vary", "X-V: 1", "hello 1"},
		{"another variant", "GET", "/vary", "X-V: 2", ""},
		{"what was deleted", "GET", "/gone", "", ""},
		{"a caller who wants a fresh one", "GET", "/a", "Cache-Control: no-cache", ""},
	} {
		resp, body := r.ask(tt.method, tt.path, tt.field)
		h := resp.Header
		switch {
		case tt.want == "" && (resp.StatusCode != 599 || h.Get("X-Own") != ""):
			t.Errorf("%s: %d %q", tt.name, resp.StatusCode, body)
		case tt.want != "" && (resp.StatusCode != 200 || body != tt.want || h.Get("X-Own") != "yes" || h.Get("Content-Type") != "text/x" || h.Get("Age") == "" || !strings.HasPrefix(h.Get("Cache-Status"), "outrigger; fwd=stale; ttl=")):
			t.Errorf("%s: %d %q %v", tt.name, resp.StatusCode, body, h)
		}
	}
	logged("200 UC fallback_cached /a\n")
	r.awaitFallbacks("c", "success 4 failure 0 rejection 0 missing 11")
	if s := r.p.answers.StatsOffLoop(); s.Served != 4 || s.Entries != 3 {
		t.Errorf("%+v", s)
	}
	down.Store(false)
	if resp, _ := r.ask("GET", "/a"); resp.Header.Get("Age") != "" {
		t.Error("a sound cluster is not asked")
	}
}

func TestAKeptAnswerComesBehindAnotherClusterAndBeforeOurOwn(t *testing.T) {
	r, down := keeping(t, func(s *resource.Snapshot) {
		s.Clusters["c"].Fallback.Cluster = "standby"
		s.Clusters["c"].Fallback.Static = &resource.DirectResponse{Status: 203, Body: []byte("ours")}
		withCluster(s, "standby")
	})
	r.ask("GET", "/a")
	down.Store(true)
	if resp, body := r.ask("GET", "/a"); resp.StatusCode != 200 || body != "hello " {
		t.Errorf("%d %q, want what was kept", resp.StatusCode, body)
	}
	if resp, body := r.ask("GET", "/b"); resp.StatusCode != 203 || body != "ours" {
		t.Errorf("%d %q, want our own", resp.StatusCode, body)
	}
}

func TestAnOpenCircuitIsAHit(t *testing.T) {
	r, _ := keeping(t, nil)
	r.ask("GET", "/a")
	s := frozen(r.snap)
	c := *s.Clusters["c"]
	c.Breaker = circuitOf(func(b *resource.CircuitBreaker) { b.ForceOpen = true })
	s.Clusters["c"] = &c
	r.apply(s)
	if resp, body := r.ask("GET", "/a"); body != "hello " || !strings.HasPrefix(resp.Header.Get("Cache-Status"), "outrigger; hit; ") {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
}

func TestAnAnswerThatBreaksOffIsNotKept(t *testing.T) {
	b := scripted(t, func(c net.Conn) {
		if readHead(c) == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		}
	})
	r, _ := keeping(t, func(s *resource.Snapshot) { s.Assignments["c"] = assignment("c", b) })
	resp, err := r.client().Get("http://" + r.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the answer is whole")
	}
	_ = resp.Body.Close()
	if s := r.p.answers.StatsOffLoop(); s.Entries != 0 || s.Stored != 0 {
		t.Errorf("%+v", s)
	}
}

// What says who is asking counts also where it never gets to the upstream.
func TestACallersAnswerIsForNobodyElse(t *testing.T) {
	removed := []string{"range", "authorization", "proxy-authorization", "cookie", "x-forwarded-client-cert"}
	byRoute := func(s *resource.Snapshot) {
		s.Routes["r"].VirtualHosts[0].Routes[0].HeaderEdits.RequestRemove = removed
	}
	internal := func(s *resource.Snapshot) { s.Routes["r"].InternalOnly = removed[1:] }
	for _, tt := range []struct {
		name string
		edit func(*resource.Snapshot)
	}{
		{"the route removes it", byRoute},
		{"it is for internal requests only", internal},
		{"nobody removes it", func(*resource.Snapshot) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, down := keeping(t, func(s *resource.Snapshot) {
				s.Listeners["l"].FilterChains[0].HTTP.ClientCert.Mode = resource.ForwardAlways
				tt.edit(s)
			})
			const outside = "X-Forwarded-For: 203.0.113.1"
			alice := []string{"Authorization: alice", "Proxy-Authorization: alice", "Cookie: a=alice", "X-Forwarded-Client-Cert: URI=spiffe://alice"}
			for i, field := range append(alice, "Range: bytes=0-9") {
				path := fmt.Sprint("/", i)
				down.Store(false)
				r.ask("GET", path, outside, field, "X-V: for alice")
				down.Store(true)
				for _, bob := range []string{strings.ReplaceAll(field, "alice", "bob"), ""} {
					if resp, body := r.ask("GET", path, outside, bob); resp.StatusCode < 500 {
						t.Errorf("%q gets what %q got: %d %q", bob, field, resp.StatusCode, body)
					}
				}
				down.Store(false)
				r.ask("GET", path, outside, "X-V: for all")
				down.Store(true)
				if resp, body := r.ask("GET", path, outside); resp.StatusCode != 200 || body != "hello for all" {
					t.Errorf("who says nothing gets %d %q", resp.StatusCode, body)
				}
				if resp, body := r.ask("GET", path, outside, field); resp.StatusCode < 500 {
					t.Errorf("%q gets what all get: %d %q", field, resp.StatusCode, body)
				}
			}
		})
	}
}

// A certificate that a client only claims to have never gets anywhere.
func TestAForgedCertificateKeepsNobodyFromAnAnswer(t *testing.T) {
	r, down := keeping(t, nil)
	r.ask("GET", "/a", "X-Forwarded-Client-Cert: URI=spiffe://a")
	down.Store(true)
	if resp, body := r.ask("GET", "/a", "X-Forwarded-Client-Cert: URI=spiffe://b"); resp.StatusCode != 200 {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

// Streams that are open keep no other answer from being kept.
func TestOpenStreamsLeaveRoomForAnswers(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if kind := q.Header.Get("X-Stream"); kind != "" {
			w.Header().Set("Content-Type", kind)
			fmt.Fprint(w, ": hi\n\n")
			w.(http.Flusher).Flush()
			<-q.Context().Done()
			return
		}
		fmt.Fprint(w, "good")
	})
	r, _ := keeping(t, func(s *resource.Snapshot) {
		s.Assignments["c"] = assignment("c", b)
		s.Clusters["c"].Fallback.Cached.MaxBody = 64 << 10
	})
	for i := range 40 {
		q, err := http.NewRequest("GET", fmt.Sprintf("http://%s/%d", r.addr, i), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("X-Stream", []string{"text/event-stream", "application/x-ndjson"}[i%2])
		resp, err := r.client().Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	r.ask("GET", "/a")
	if s := r.p.answers.StatsOffLoop(); s.Entries != 1 || s.Refused != 0 {
		t.Errorf("%+v", s)
	}
}
