// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// bridge is a proxy of two connections: requests that come in on one go out on
// the other. It shows both roles to real peers.
type bridge struct {
	mu       sync.Mutex
	down, up side
	toUp     map[uint32]uint32
	toDown   map[uint32]uint32
	drained  int
}

// side is one connection of a bridge.
type side struct {
	conn  *Conn
	net   net.Conn
	out   []byte
	ready *sync.Cond
	gone  bool
	owed  map[uint32]int // by stream of the other side: bytes to credit when this side has drained
}

func newBridge(t *testing.T, down, up net.Conn, l Limits) *bridge {
	b := &bridge{toUp: map[uint32]uint32{}, toDown: map[uint32]uint32{}}
	b.down = side{conn: New(Server, l), net: down, owed: map[uint32]int{}}
	b.up = side{conn: New(Client, l), net: up, owed: map[uint32]int{}}
	var wait sync.WaitGroup
	for _, s := range []*side{&b.down, &b.up} {
		s.ready = sync.NewCond(&b.mu)
		wait.Go(func() { b.write(s) })
	}
	wait.Go(func() { b.read(t, &b.down, fromDown{b}) })
	wait.Go(func() { b.read(t, &b.up, fromUp{b}) })
	t.Cleanup(func() {
		down.Close()
		up.Close()
		b.mu.Lock()
		for _, s := range []*side{&b.down, &b.up} {
			s.gone = true
			s.ready.Signal()
		}
		b.mu.Unlock()
		wait.Wait()
	})
	return b
}

func (b *bridge) write(s *side) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		s.out = s.conn.AppendPending(s.out)
		if len(s.out) == 0 {
			if s.gone {
				return
			}
			s.ready.Wait()
			continue
		}
		out := s.out
		s.out = nil
		b.mu.Unlock()
		_, err := s.net.Write(out)
		b.mu.Lock()
		if err != nil {
			return
		}
	}
}

func (b *bridge) read(t *testing.T, s *side, sink Sink) {
	var kept []byte
	buf := make([]byte, 5000)
	for {
		n, err := s.net.Read(buf)
		kept = append(kept, buf[:n]...)
		b.mu.Lock()
		m, e := s.conn.Decode(kept, time.Now().UnixNano(), sink)
		kept = append(kept[:0], kept[m:]...)
		b.down.ready.Signal()
		b.up.ready.Signal()
		b.mu.Unlock()
		if e != nil {
			t.Errorf("decoding: %v", e)
		}
		if err != nil || e != nil {
			return
		}
	}
}

// forward sends a piece on, and credits it when the other side has windows.
func forward(from, to *side, fromID, toID uint32, chunk []byte, last bool) {
	to.out = to.conn.AppendData(to.out, toID, chunk, last)
	if to.conn.Queued(toID) > 0 {
		to.owed[toID] += len(chunk)
		return
	}
	from.conn.Consumed(fromID, len(chunk))
}

type fromDown struct{ *bridge }

func (b fromDown) RequestHead(id uint32, h *codec.RequestHead, last bool) error {
	up, ok := b.up.conn.NewStream()
	if !ok {
		b.down.conn.Reset(id, RefusedStream)
		return nil
	}
	b.toUp[id], b.toDown[up] = up, id
	b.up.out = b.up.conn.AppendRequest(b.up.out, up, h, last)
	return nil
}
func (b fromDown) ResponseHead(uint32, *codec.ResponseHead, bool) error {
	return errors.New("unexpected")
}
func (b fromDown) Informational(uint32, *codec.ResponseHead) error { return errors.New("unexpected") }
func (b fromDown) Tunnel(uint32) error                             { return errors.New("unexpected") }
func (b fromDown) GoAway(uint32, ErrorCode)                        {}
func (b fromDown) Data(id uint32, chunk []byte, last bool) error {
	forward(&b.down, &b.up, id, b.toUp[id], chunk, last)
	return nil
}
func (b fromDown) Trailer(id uint32, h *codec.Header) error {
	b.up.out = b.up.conn.AppendTrailer(b.up.out, b.toUp[id], h)
	return nil
}
func (b fromDown) Reset(id uint32, code ErrorCode, _ bool) { b.up.conn.Reset(b.toUp[id], code) }
func (b fromDown) Drained(id uint32) {
	b.drained++
	b.up.conn.Consumed(b.toUp[id], b.down.owed[id])
	delete(b.down.owed, id)
}

type fromUp struct{ *bridge }

func (b fromUp) RequestHead(uint32, *codec.RequestHead, bool) error { return errors.New("unexpected") }
func (b fromUp) ResponseHead(id uint32, h *codec.ResponseHead, last bool) error {
	b.down.out = b.down.conn.AppendResponse(b.down.out, b.toDown[id], h, last)
	return nil
}
func (b fromUp) Informational(id uint32, h *codec.ResponseHead) error {
	b.down.out = b.down.conn.AppendInformational(b.down.out, b.toDown[id], h)
	return nil
}
func (b fromUp) Tunnel(uint32) error      { return errors.New("unexpected") }
func (b fromUp) GoAway(uint32, ErrorCode) {}
func (b fromUp) Data(id uint32, chunk []byte, last bool) error {
	forward(&b.up, &b.down, id, b.toDown[id], chunk, last)
	return nil
}
func (b fromUp) Trailer(id uint32, h *codec.Header) error {
	b.down.out = b.down.conn.AppendTrailer(b.down.out, b.toDown[id], h)
	return nil
}
func (b fromUp) Reset(id uint32, code ErrorCode, _ bool) { b.down.conn.Reset(b.toDown[id], code) }
func (b fromUp) Drained(id uint32) {
	b.drained++
	b.down.conn.Consumed(b.toDown[id], b.up.owed[id])
	delete(b.up.owed, id)
}

// single is a listener that gives out one connection.
type single struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *single) Accept() (net.Conn, error) {
	if conn, ok := <-l.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (l *single) Close() error {
	l.once.Do(func() { close(l.conns) })
	return nil
}

func (l *single) Addr() net.Addr { return &net.TCPAddr{} }

// bridged is a client of net/http behind a bridge to a server of net/http.
func bridged(t *testing.T, h http.HandlerFunc, l Limits) (*http.Client, *bridge) {
	t.Helper()
	clientEnd, downEnd := net.Pipe()
	upEnd, serverEnd := net.Pipe()
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: h, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 16}}
	listener := &single{conns: make(chan net.Conn, 1)}
	listener.conns <- serverEnd
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(listener)
	}()
	b := newBridge(t, downEnd, upEnd, l)
	tr := &http.Transport{Protocols: protocols, MaxConnsPerHost: 1, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return clientEnd, nil
	}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		server.Close()
		clientEnd.Close()
		serverEnd.Close()
		<-served
	})
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}, b
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>9)
	}
	return b
}

func TestBodiesOfAnySizePassBetweenPeersOfAnotherMake(t *testing.T) {
	client, b := bridged(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		n, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprint(n))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", r.Trailer.Get("X-Up"))
	}, Limits{})
	for _, size := range []int{0, 1, 1000, 16384, 16385, 65535, 65536, 70_000, 3 << 20} {
		for _, known := range []bool{true, false} {
			body := pattern(size)
			var reader io.Reader = bytes.NewReader(body)
			if !known {
				reader = io.MultiReader(reader)
			}
			req, err := http.NewRequest("POST", "http://a/echo", reader)
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if size > 0 { // without a body the client forgets its trailer
				want = "7"
				req.Trailer = http.Header{"X-Up": {want}}
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d bytes: got %d, %v", size, len(got), err)
			}
			if resp.Trailer.Get("X-Sum") != fmt.Sprint(size) || resp.Trailer.Get("Grpc-Status") != want {
				t.Fatalf("%d bytes: trailer %v", size, resp.Trailer)
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.drained == 0 {
		t.Error("no body ever waited for window: the test shows too little")
	}
	if n := b.down.conn.Streams() + b.up.conn.Streams(); n != 0 {
		t.Errorf("%d streams left", n)
	}
}

func TestManyStreamsAtOncePassBetweenPeersOfAnotherMake(t *testing.T) {
	client, b := bridged(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }, Limits{})
	var wait sync.WaitGroup
	for i := range 60 {
		wait.Go(func() {
			body := pattern(200_000 + i)
			resp, err := client.Post("http://a/", "x/y", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, body) {
				t.Errorf("got %d of %d bytes, %v", len(got), len(body), err)
			}
		})
	}
	wait.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.down.conn.Streams() + b.up.conn.Streams(); n != 0 {
		t.Errorf("%d streams left", n)
	}
}

func TestHeadsMeanTheSameBehindABridge(t *testing.T) {
	var got *http.Request
	client, _ := bridged(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("X-Long", strings.Repeat("v", 40_000)) // more than one frame
		if r.URL.Path == "/hints" {
			w.Header().Set("Link", "</x>")
			w.WriteHeader(103)
		}
		w.Header().Set("Content-Length", "5")
		switch r.URL.Path {
		case "/none":
			w.Header().Del("Content-Length")
			w.WriteHeader(204)
			return
		case "/same": // the client takes a length here for a body that is missing
			w.Header().Del("Content-Length")
			w.WriteHeader(304)
			return
		}
		if r.Method != "HEAD" {
			io.WriteString(w, "hello")
		}
	}, Limits{})
	hints := 0
	trace := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints++
		if code != 103 || h.Get("Link") != "</x>" {
			t.Errorf("informational %d %v", code, h)
		}
		return nil
	}})
	for range 3 { // the tables fill
		for _, c := range []struct{ method, path string }{{"GET", "/"}, {"HEAD", "/"}, {"GET", "/none"}, {"GET", "/same"}, {"GET", "/hints"}} {
			req, _ := http.NewRequestWithContext(trace, c.method, "http://svc:81"+c.path+"?q=1", nil)
			req.Header.Set("Cookie", "a=1; b=2; c=3")
			req.Header.Set("Authorization", "Bearer x")
			req.Header.Set("Te", "trailers")
			resp, err := client.Do(req)
			if err != nil {
				t.Fatalf("%v: %v", c, err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || (c.method == "GET" && resp.StatusCode == 200) != (string(body) == "hello") {
				t.Errorf("%v: %d %q %v", c, resp.StatusCode, body, err)
			}
			if len(resp.Header["Set-Cookie"]) != 2 || len(resp.Header.Get("X-Long")) != 40_000 {
				t.Errorf("%v: %v", c, resp.Header)
			}
			if got.Method != c.method || got.Host != "svc:81" || got.RequestURI != c.path+"?q=1" || got.Header.Get("Cookie") != "a=1; b=2; c=3" ||
				got.Header.Get("Authorization") != "Bearer x" || got.Header.Get("Te") != "trailers" {
				t.Errorf("%v: the server saw %+v", c, got)
			}
		}
	}
	if hints != 3 {
		t.Errorf("%d informational responses", hints)
	}
}

func TestACancelledRequestIsResetOnBothSides(t *testing.T) {
	ended := make(chan struct{})
	client, b := bridged(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	}, Limits{})
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://a/", nil)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the server was not told")
	}
	resp.Body.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.down.conn.Streams() + b.up.conn.Streams(); n != 0 {
		t.Errorf("%d streams left", n)
	}
}
