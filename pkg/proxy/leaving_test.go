// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 a client over a connection that the test has made itself

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestConnectionsInTheClearAreToldToGoWhenTLSComes(t *testing.T) {
	m := newMint(t)
	to := secureBackend(m, shopID, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	var chain *resource.FilterChain
	r := newRig(t, func(s *resource.Snapshot) {
		secured(m, s, to)
		chain = s.Listeners["l"].FilterChains[0]
		plain := *chain
		plain.TLS = nil
		s.Listeners["l"].FilterChains = []*resource.FilterChain{&plain}
	})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(c)
	ask := func() (closes bool) {
		t.Helper()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		a, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(a.Body); err != nil || string(b) != "ok" {
			t.Fatalf("got %q, %v", b, err)
		}
		return a.Close
	}
	if ask() {
		t.Fatal("the connection closes though nothing has changed")
	}
	l := *r.snap.Listeners["l"]
	l.FilterChains = []*resource.FilterChain{chain}
	r.snap.Listeners = maps.Clone(r.snap.Listeners)
	r.snap.Listeners["l"] = &l
	r.apply(r.snap)
	if !ask() {
		t.Error("a connection in the clear goes on under a chain with TLS")
	}
}

// onLoop runs f on the rig's worker and waits for it.
func (r *rig) onLoop(f func(w *worker)) {
	r.t.Helper()
	done := make(chan struct{})
	r.p.workers[0].loop.PostOffLoop(func() { f(r.p.workers[0]); close(done) })
	<-done
}

func TestABrokenHTTP2ConnectionKeepsNoTimer(t *testing.T) {
	arrived := make(chan struct{}, 1)
	gone := make(chan struct{})
	to := backend(t, func(_ http.ResponseWriter, q *http.Request) {
		arrived <- struct{}{}
		<-q.Context().Done()
		close(gone)
	})
	r := newRig(t, func(s *resource.Snapshot) { withCluster(s, "c", to) })
	client := protocolClient(t, true)
	var n net.Conn
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (_ net.Conn, err error) {
		n, err = new(net.Dialer).DialContext(ctx, network, addr)
		return n, err
	}
	go func() {
		if a, err := client.Get("http://" + r.addr + "/"); err == nil {
			_ = a.Body.Close()
		}
	}()
	<-arrived
	var c *http2Conn
	r.onLoop(func(w *worker) { c = w.http2s[0] })
	_ = n.(*net.TCPConn).SetLinger(0)
	_ = n.Close()
	<-gone
	for end := time.Now().Add(30 * time.Second); ; {
		left, armed := true, true
		r.onLoop(func(w *worker) { left, armed = len(w.http2s) == 0, c.timer.Armed() })
		if left {
			if armed {
				t.Error("the timer of a connection that has gone is armed")
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("the connection is still on the books")
		}
	}
}

func TestACertificateThatIsBeingWrittenLeavesTheOneBeforeInService(t *testing.T) {
	m := newMint(t)
	to := backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	key := filepath.Join(t.TempDir(), "key.pem")
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", to)
		cert := m.issue(shopID, time.Now().Add(time.Hour))
		if err := os.WriteFile(key, cert.Key.Inline, 0o600); err != nil {
			t.Fatal(err)
		}
		cert.Key = resource.DataSource{File: key}
		s.Listeners["l"].FilterChains[0].TLS = &resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{cert}}}
	})
	c := r.secureClient(m.config(m.issue(webID, time.Now().Add(time.Hour))))
	c.Transport.(*http.Transport).DisableKeepAlives = true
	if got := read(t, c, request(t, "https://"+r.addr+"/")); got != "ok" {
		t.Fatalf("got %q", got)
	}
	if err := os.WriteFile(key, []byte("-----BEGIN PRIVATE"), 0o600); err != nil {
		t.Fatal(err)
	}
	// An update of something else, in which all that a decoder makes is new.
	l := *r.snap.Listeners["l"]
	chain, secure := *l.FilterChains[0], *l.FilterChains[0].TLS
	manager := *chain.HTTP
	manager.ServerName, chain.HTTP, chain.TLS = "other", &manager, &secure
	l.FilterChains = []*resource.FilterChain{&chain}
	r.snap.Listeners = map[string]*resource.Listener{"l": &l}
	r.snap.Version++
	if err := r.p.Apply(frozen(r.snap)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, request(t, "https://"+r.addr+"/")); got != "ok" {
		t.Errorf("got %q", got)
	}
}

func request(t *testing.T, url string) *http.Request {
	t.Helper()
	q, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestAConnectionWhoseChainWentInItsHandshakeIsToldToGo(t *testing.T) {
	m := newMint(t)
	r := newRig(t, func(s *resource.Snapshot) {
		secured(m, s, "127.0.0.1:1")
		s.Listeners["l"].FilterChains[0].HTTP.RequestHeadersTimeout = 0
	})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	listener := r.p.listeners["l"]
	eventually(t, "the connection is accepted", func() bool { return listener.active.Load() == 1 })
	l, chain := *r.snap.Listeners["l"], *r.snap.Listeners["l"].FilterChains[0]
	chain.Name = "another"
	l.FilterChains = []*resource.FilterChain{&chain}
	r.snap.Listeners = map[string]*resource.Listener{"l": &l}
	r.apply(r.snap)
	s := tls.Client(c, m.config(m.issue(webID, time.Now().Add(time.Hour))))
	if err := s.Handshake(); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(make([]byte, 1)); err != io.EOF { // and not for the idle time, which is an hour
		t.Errorf("got %d bytes, %v", n, err)
	}
}

// A response without end, as of a stream of events, would keep its connection under
// settings that have gone: a drain has an end.
func TestResponsesWithoutEndEndWithTheDrainTimeOfTheirChain(t *testing.T) {
	for name, overHTTP2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			to := backend(t, func(w http.ResponseWriter, q *http.Request) {
				_, _ = io.WriteString(w, "event\n")
				w.(http.Flusher).Flush()
				<-q.Context().Done()
			})
			r := newRig(t, func(s *resource.Snapshot) {
				withCluster(s, "c", to)
				s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = 0
			})
			c := protocolClient(t, overHTTP2)
			c.Timeout = 30 * time.Second
			a, err := c.Do(request(t, "http://"+r.addr+"/"))
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			event := make([]byte, len("event\n"))
			if _, err := io.ReadFull(a.Body, event); err != nil {
				t.Fatal(err)
			}
			l, chain := *r.snap.Listeners["l"], *r.snap.Listeners["l"].FilterChains[0]
			chain.Name = "another"
			l.FilterChains = []*resource.FilterChain{&chain}
			r.snap.Listeners = map[string]*resource.Listener{"l": &l}
			r.apply(r.snap)
			if n, err := a.Body.Read(event); err == nil || err == io.EOF || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %d bytes, %v; want a broken end", n, err)
			}
			eventually(t, "nothing is left of it", func() (none bool) {
				r.onLoop(func(w *worker) { none = w.downs.first == nil && len(w.http2s) == 0 })
				return none && r.p.managers["test"].on[0].rqActive == 0
			})
		})
	}
}
