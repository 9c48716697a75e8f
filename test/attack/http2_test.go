// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// calm is how long a test waits for the end of a connection on a busy machine.
const calm = 30 * time.Second

// http2Peer is a client, or a server, of HTTP/2 that keeps no rule: it writes what
// frames it likes and notes what comes back.
type http2Peer struct {
	t     testing.TB
	c     net.Conn
	out   bytes.Buffer // what send is to write
	f     *http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer
	next  uint32 // stream

	mu     sync.Mutex
	got    []string // what came, a line for each frame
	status map[uint32]string
	data   map[uint32]int
	resets map[uint32]http2.ErrCode
	goAway *http2.ErrCode
	last   uint32        // of the last GOAWAY
	pings  [][8]byte     // that want an answer
	over   chan struct{} // the other side has ended the connection
}

func newHTTP2Peer(t testing.TB, c net.Conn) *http2Peer {
	h := &http2Peer{
		t: t, c: c, next: 1, over: make(chan struct{}),
		status: map[uint32]string{}, data: map[uint32]int{}, resets: map[uint32]http2.ErrCode{},
	}
	h.f = http2.NewFramer(&h.out, nil)
	h.f.AllowIllegalWrites = true
	h.enc = hpack.NewEncoder(&h.block)
	return h
}

// raw connects without a word; the connection ends with the test.
func (p *proxy) raw(secure bool) *http2Peer {
	p.t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return newHTTP2Peer(p.t, over(c, secure))
}

// http2 connects, sends preface and settings, and notes what comes.
func (p *proxy) http2(secure bool, settings ...http2.Setting) *http2Peer {
	p.t.Helper()
	h := p.raw(secure)
	h.out.WriteString(http2.ClientPreface)
	must(p.t, h.f.WriteSettings(settings...))
	h.send()
	go h.read(h.c)
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// send writes what was framed. It reports whether the other side still takes it.
func (h *http2Peer) send() bool {
	_ = h.c.SetWriteDeadline(time.Now().Add(calm))
	_, err := h.c.Write(h.out.Bytes())
	h.out.Reset()
	return err == nil
}

// read notes frames until the connection ends.
func (h *http2Peer) read(r io.Reader) {
	defer close(h.over)
	f := http2.NewFramer(io.Discard, r)
	f.SetMaxReadFrameSize(1<<24 - 1)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if _, ok := err.(http2.StreamError); err != nil && !ok {
			return
		}
		h.note(frame)
	}
}

func (h *http2Peer) note(frame http2.Frame) {
	if frame == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	id := frame.Header().StreamID
	line := fmt.Sprintf("%d %v", id, frame.Header().Type)
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		if s := f.PseudoValue("status"); s != "" {
			h.status[id] = s
		}
		line += fmt.Sprint(" ", f.Fields)
	case *http2.DataFrame:
		h.data[id] += len(f.Data())
	case *http2.RSTStreamFrame:
		h.resets[id] = f.ErrCode
		line += " " + f.ErrCode.String()
	case *http2.GoAwayFrame:
		code := f.ErrCode
		h.goAway, h.last = &code, f.LastStreamID
		line += fmt.Sprint(" ", f.LastStreamID, " ", code)
	case *http2.SettingsFrame:
		if f.IsAck() {
			line += " ACK"
		}
	case *http2.PingFrame:
		if f.IsAck() {
			line += " ACK"
		} else {
			h.pings = append(h.pings, f.Data)
		}
	}
	if len(h.got) < 10_000 {
		h.got = append(h.got, line)
	}
}

// pong answers the PINGs that have come.
func (h *http2Peer) pong() {
	h.mu.Lock()
	list := h.pings
	h.pings = nil
	h.mu.Unlock()
	for _, data := range list {
		_ = h.f.WritePing(true, data)
	}
	h.send()
}

// saw waits for what ok finds in the notes.
func (h *http2Peer) saw(what string, ok func() bool) {
	h.t.Helper()
	limit := time.Now().Add(calm)
	for {
		h.mu.Lock()
		found, got := ok(), h.got
		h.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(limit) {
			h.t.Fatalf("not within %s: %s; came: %.2000q", calm, what, got)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// ended waits for the other side's end of the connection and returns the code of
// its GOAWAY, or an error where it did not end or said nothing.
func (h *http2Peer) ended() (http2.ErrCode, error) {
	select {
	case <-h.over:
	case <-time.After(calm):
		return 0, errors.New("the connection is still open")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.goAway == nil {
		return 0, fmt.Errorf("closed without GOAWAY; came: %.300q", h.got)
	}
	return *h.goAway, nil
}

// encode makes a header block of names and values.
func (h *http2Peer) encode(fields ...string) []byte {
	h.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		must(h.t, h.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(h.block.Bytes())
}

func get(path string, more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", path}, more...)
}

func post(path string, more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", path}, more...)
}

// request frames the head of a request on a stream of its own.
func (h *http2Peer) request(end bool, fields ...string) uint32 {
	id := h.next
	h.next += 2
	block := h.encode(fields...)
	first := block[:min(len(block), 16<<10)]
	must(h.t, h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)}))
	for block = block[len(first):]; len(block) > 0; {
		part := block[:min(len(block), 16<<10)]
		block = block[len(part):]
		must(h.t, h.f.WriteContinuation(id, len(block) == 0, part))
	}
	return id
}

// bystander is a well-behaved client that goes on beside an attack.
type bystander struct {
	stop         chan struct{}
	wait         sync.WaitGroup
	sent, failed atomic.Int64
	first        atomic.Pointer[string]
}

// watchOver starts clients on connections of their own, and with the test's end says
// if any request of theirs went wrong.
func (p *proxy) watchOver(secure bool, paths ...string) *bystander {
	b := &bystander{stop: make(chan struct{})}
	for _, path := range paths {
		b.wait.Go(func() { b.run(p.t, p.client(secure), p.origin(secure)+path) })
	}
	end := sync.OnceFunc(func() {
		close(b.stop)
		b.wait.Wait()
		if n := b.failed.Load(); n > 0 || b.sent.Load() == 0 {
			p.t.Errorf("%d of %d requests of others failed: %s", n, b.sent.Load(), *b.first.Load())
		}
	})
	p.t.Cleanup(end)
	return b
}

func (p *proxy) origin(secure bool) string {
	if secure {
		return "https://" + p.addr
	}
	return "http://" + p.addr
}

// client is a client of HTTP/2 with a connection of its own.
func (p *proxy) client(secure bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(secure)
	protocols.SetUnencryptedHTTP2(!secure)
	tr := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	p.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: calm}
}

func (b *bystander) run(t testing.TB, c *http.Client, url string) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := c.Get(url)
		b.sent.Add(1)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		if err != nil || resp.StatusCode != 200 || len(body) == 0 {
			b.failed.Add(1)
			text := fmt.Sprint(err)
			if err == nil {
				text = resp.Status
			}
			b.first.CompareAndSwap(nil, &text)
		}
		select {
		case <-b.stop:
			return
		case <-tick.C:
		}
	}
}
