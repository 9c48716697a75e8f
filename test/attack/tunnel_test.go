// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// extended lets HTTP/2 clients ask for WebSockets, as HTTP/1.1's may.
const extended = websocket + "\n          http2_protocol_options: {allow_connect: true}"

// tunneller is one side of HTTP/2 that writes what frames it likes, from one
// goroutine: it acknowledges nothing.
type tunneller struct {
	c     net.Conn
	f     *http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer

	mu     sync.Mutex
	status map[uint32]string
	data   map[uint32]string
	reset  map[uint32]http2.ErrCode
	ended  map[uint32]bool
	asked  [][]hpack.HeaderField // of a server: the heads that came
	over   bool
}

func newTunneller(c net.Conn) *tunneller {
	p := &tunneller{c: c, f: http2.NewFramer(c, c), status: map[uint32]string{}, data: map[uint32]string{}, reset: map[uint32]http2.ErrCode{}, ended: map[uint32]bool{}}
	p.enc = hpack.NewEncoder(&p.block)
	p.f.AllowIllegalWrites = true
	p.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return p
}

// tunnels connects as a client.
func (p *proxy) tunnels() *tunneller {
	p.t.Helper()
	h := newTunneller(p.dial())
	_, _ = io.WriteString(h.c, http2.ClientPreface)
	_ = h.f.WriteSettings()
	go h.read()
	return h
}

func (h *tunneller) read() {
	for {
		frame, err := h.f.ReadFrame()
		if _, of := err.(http2.StreamError); err != nil && !of {
			h.mu.Lock()
			h.over = true
			h.mu.Unlock()
			return
		}
		h.note(frame)
	}
}

func (h *tunneller) note(frame http2.Frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		if s := f.PseudoValue("status"); s != "" {
			h.status[f.StreamID] = s
		} else {
			h.asked = append(h.asked, f.Fields)
		}
		h.ended[f.StreamID] = f.StreamEnded()
	case *http2.DataFrame:
		h.data[f.StreamID] += string(f.Data())
		h.ended[f.StreamID] = h.ended[f.StreamID] || f.StreamEnded()
	case *http2.RSTStreamFrame:
		h.reset[f.StreamID] = f.ErrCode
	}
}

// head sends fields, "name: value" each.
func (h *tunneller) head(id uint32, last bool, fields ...string) {
	h.block.Reset()
	for _, f := range fields {
		i := strings.Index(f[1:], ": ") + 1
		_ = h.enc.WriteField(hpack.HeaderField{Name: f[:i], Value: f[i+2:]})
	}
	_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block.Bytes(), EndHeaders: true, EndStream: last})
}

// answer waits for what becomes of a stream: a status, or how it was reset.
func (h *tunneller) answer(t *testing.T, id uint32) string {
	t.Helper()
	got := ""
	eventually(t, fmt.Sprintf("an answer on stream %d", id), func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		if s := h.status[id]; s != "" {
			got = s
		} else if code, ok := h.reset[id]; ok {
			got = code.String()
		} else if h.over {
			got = "closed"
		}
		return got != ""
	})
	return got
}

func asks(protocol string) []string {
	return []string{":method: CONNECT", ":protocol: " + protocol, ":scheme: http", ":path: /chat", ":authority: a", "sec-websocket-version: 13"}
}

// A request for a tunnel that says two things is none (RFC 9113 §8.5, RFC 8441 §4).
func TestCONNECTOfHTTP2ThatIsAmbiguousIsRefused(t *testing.T) {
	w := &wiretap{}
	p := start(t, target{Upstream: hostile(t, w.serve), Manager: extended, Connect: "enabled: true"})
	without := func(name string) (list []string) {
		for _, f := range asks("websocket") {
			if !strings.HasPrefix(f, name) {
				list = append(list, f)
			}
		}
		return list
	}
	with := func(more ...string) []string { return append(asks("websocket"), more...) }
	for what, fields := range map[string][]string{
		"no scheme":                  without(":scheme"),
		"no path":                    without(":path"),
		"no authority":               without(":authority"),
		"no method":                  without(":method"),
		"another method":             append([]string{":method: GET"}, without(":method")...),
		"two protocols":              append([]string{":protocol: h2c"}, asks("websocket")...),
		"a protocol behind fields":   with(":protocol: websocket"),
		"an empty protocol":          asks(""),
		"a list of protocols":        asks("websocket, h2c"),
		"h2c":                        asks("h2c"),
		"a protocol nobody enabled":  asks("connect-udp"),
		"a path that is none":        append(without(":path"), ":path: chat"),
		"another scheme":             append([]string{":scheme: ws"}, without(":scheme")...),
		"a length":                   with("content-length: 5"),
		"the fields of HTTP/1.1":     with("connection: upgrade", "upgrade: websocket"),
		"a transfer coding":          with("transfer-encoding: chunked"),
		"another host":               with("host: b"),
		"CONNECT with a path":        {":method: CONNECT", ":path: /", ":authority: a:80"},
		"CONNECT with a scheme":      {":method: CONNECT", ":scheme: http", ":authority: a:80"},
		"CONNECT without a port":     {":method: CONNECT", ":authority: a"},
		"CONNECT without a target":   {":method: CONNECT"},
		"CONNECT with a length":      {":method: CONNECT", ":authority: a:80", "content-length: 5"},
		"CONNECT to user@":           {":method: CONNECT", ":authority: u@a:80"},
		"Upgrade over HTTP/2":        {":method: GET", ":scheme: http", ":path: /", ":authority: a", "upgrade: websocket"},
		"Connection over HTTP/2":     {":method: GET", ":scheme: http", ":path: /", ":authority: a", "connection: upgrade"},
		"a protocol of an OPTIONS *": {":method: OPTIONS", ":protocol: websocket", ":scheme: http", ":path: *", ":authority: a"},
	} {
		h := p.tunnels()
		h.head(1, false, fields...)
		_ = h.f.WriteData(1, false, []byte(smuggled))
		if got := h.answer(t, 1); strings.HasPrefix(got, "2") {
			t.Errorf("%s: answered %s", what, got)
		}
	}
	if seen := w.seen(); seen != "" {
		t.Errorf("the backend saw %q", seen)
	}
}

// CVE-2024-23326 over HTTP/2: there, any 2xx is consent, so that an upstream's 200
// must not become the client's.
func TestCVE202423326NoSuccessBut101OpensATunnelOfHTTP2(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 226 IM Used\r\ncontent-length: 2\r\n\r\nno",
		"HTTP/1.1 304 Not Modified\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
		"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n",
		strings.Replace(switched, "websocket", "h2c", 1),
		strings.Replace(switched, "upgrade: websocket\r\n", "", 1),
		switched, // without the digest of the key
		strings.Replace(switched, "\r\n\r\n", "\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", 1),
	} {
		w := &wiretap{answer: answer}
		p := start(t, target{Upstream: hostile(t, w.serve), Manager: extended})
		h := p.tunnels()
		h.head(1, false, asks("websocket")...)
		_ = h.f.WriteData(1, false, []byte(smuggled))
		if got := h.answer(t, 1); strings.HasPrefix(got, "2") {
			t.Errorf("%.60q became %s", answer, got)
		}
		_ = h.f.WriteData(1, false, []byte(smuggled))
		h.head(3, true, ":method: GET", ":scheme: http", ":path: /direct", ":authority: a")
		if got := h.answer(t, 3); got != "200" {
			t.Errorf("%.60q: the next request on the connection was answered %s", answer, got)
		}
		if strings.Contains(w.seen(), "smuggled") {
			t.Errorf("%.60q: the backend saw %q", answer, w.seen())
		}
	}
}

// CVE-2025-64763 over HTTP/2: what comes ahead of the answer waits, is bounded, and
// is dropped where the answer is no.
func TestCVE202564763EarlyDataOfHTTP2WaitsForTheAnswer(t *testing.T) {
	w := &wiretap{} // never answers
	p := start(t, target{Upstream: hostile(t, w.serve), Manager: extended, Connect: "enabled: true"})
	before := p.memory()
	var list []*tunneller
	for range 4 {
		h := p.tunnels()
		list = append(list, h)
		for id := uint32(1); id < 2*90; id += 2 {
			if id%4 == 1 {
				h.head(id, false, asks("websocket")...)
			} else {
				h.head(id, false, ":method: CONNECT", ":authority: a:80")
			}
			for range 4 { // the whole window of a stream
				_ = h.f.WriteData(id, false, bytes.Repeat([]byte(smuggled), 16000/len(smuggled)))
			}
		}
	}
	eventually(t, "the heads at the backend", func() bool { return strings.Count(w.seen(), "\r\n\r\n") > 40 })
	if strings.Contains(w.seen(), "smuggled") {
		t.Error("the backend saw what came ahead")
	}
	if grown := p.memory() - before; grown > 64<<20 {
		t.Errorf("%d MB more for what waits", grown>>20)
	}
	for _, h := range list {
		_ = h.c.Close()
	}
	eventually(t, "all requests are given up", func() bool { return p.stat("http.main.downstream_rq_active") == 0 })
	if n := p.stat("http.main.downstream_cx_upgrades_total"); n != 0 {
		t.Errorf("%d tunnels were opened", n)
	}
}

// Nobody asked for it, or nobody is there: CONNECT is no way to anywhere else.
func TestCONNECTOfHTTP2GoesNowhereElse(t *testing.T) {
	elsewhere := &wiretap{}
	target0 := hostile(t, elsewhere.serve)
	for what, g := range map[string]target{
		"not enabled":   {Upstream: target0},
		"not announced": {Upstream: target0, Manager: websocket},
		"nobody there":  {Upstream: fmt.Sprintf("127.0.0.1:%d", freePort(t)), Manager: extended, Connect: "connect_config: {}"},
	} {
		p := start(t, g)
		h := p.tunnels()
		h.head(1, false, ":method: CONNECT", ":authority: "+target0)
		_ = h.f.WriteData(1, false, []byte(smuggled))
		if got := h.answer(t, 1); strings.HasPrefix(got, "2") {
			t.Errorf("%s: CONNECT was answered %s", what, got)
		}
		h = p.tunnels()
		h.head(1, false, asks("websocket")...)
		_ = h.f.WriteData(1, false, []byte(smuggled))
		if got := h.answer(t, 1); strings.HasPrefix(got, "2") {
			t.Errorf("%s: a WebSocket was answered %s", what, got)
		}
	}
	if seen := elsewhere.seen(); seen != "" {
		t.Errorf("the other address saw %q", seen)
	}
}

// An upstream of HTTP/2 is asked for a tunnel only where it said that it takes it,
// and what it answers means what HTTP/2 says it does.
func TestAnUpstreamOfHTTP2CannotSwitchOnItsOwn(t *testing.T) {
	for what, c := range map[string]struct {
		announced bool
		status    string
		trailer   bool
	}{
		"not announced":        {false, "200", false},
		"101":                  {true, "101", false},
		"refused":              {true, "403", false},
		"trailers in a tunnel": {true, "200", true},
	} {
		var mu sync.Mutex
		var heads int
		up := hostile(t, func(_ int, conn net.Conn) {
			h := newTunneller(conn)
			if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
				return
			}
			settings := []http2.Setting{}
			if c.announced {
				settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
			}
			_ = h.f.WriteSettings(settings...)
			for {
				frame, err := h.f.ReadFrame()
				if err != nil {
					return
				}
				h.note(frame)
				if m, ok := frame.(*http2.MetaHeadersFrame); ok {
					mu.Lock()
					heads++
					mu.Unlock()
					h.head(m.StreamID, false, ":status: "+c.status)
					_ = h.f.WriteData(m.StreamID, false, []byte("EVIL"))
					if c.trailer {
						h.head(m.StreamID, true, "x-trailer: y")
					}
				}
			}
		})
		p := start(t, target{Upstream: up, Manager: extended, Cluster: overHTTP2})
		conn := p.dial()
		_, _ = io.WriteString(conn, handshake)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		got := make([]byte, 12)
		if _, err := io.ReadFull(conn, got); err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		opened := strings.HasPrefix(string(got), "HTTP/1.1 101")
		if opened != (c.status == "200" && c.announced) {
			t.Errorf("%s: answered %q", what, got)
		}
		mu.Lock()
		if heads > 0 && !c.announced {
			t.Errorf("%s: the upstream was asked", what)
		}
		mu.Unlock()
		if c.trailer {
			rest, err := io.ReadAll(conn)
			if err == nil || strings.Contains(string(rest), "x-trailer") {
				t.Errorf("%s: a clean end behind %q", what, rest)
			}
		}
	}
}

// Tunnels that are opened and dropped without end cost the peer its connection.
func TestTunnelsAreNoWayAroundTheBudgetOfResets(t *testing.T) {
	w := &wiretap{}
	p := start(t, target{Upstream: hostile(t, w.serve), Manager: extended})
	h := p.tunnels()
	for id := uint32(1); id < 2*2000; id += 2 {
		h.head(id, false, asks("websocket")...)
		if err := h.f.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
			break
		}
	}
	eventually(t, "the end of the connection", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.over
	})
	if n := strings.Count(w.seen(), "\r\n\r\n"); n > 1000 {
		t.Errorf("%d requests reached the backend", n)
	}
}

// Nor may a reply of the sidecar's own be taken for consent: not one of gRPC, not one
// that a mapper made, not one of a route.
func TestCVE202423326NoReplyOfTheSidecarIsConsent(t *testing.T) {
	const mapper = "\n          local_reply_config: {mappers: [{filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: none}}}}, status_code: 200}]}"
	for name, g := range map[string]target{
		"refused": {Connect: "enabled: false", Manager: "http2_protocol_options: {allow_connect: true}"},
		"mapped":  {Connect: "enabled: false", Manager: "http2_protocol_options: {allow_connect: true}" + mapper},
	} {
		w := &wiretap{}
		g.Upstream = hostile(t, w.serve)
		p := start(t, g)
		if got := p.say("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\ncontent-type: application/grpc\r\n\r\n" + smuggled); !strings.HasPrefix(got, "HTTP/1.1 403 ") {
			t.Errorf("%s: CONNECT of HTTP/1 was answered %.80q", name, got)
		}
		direct := append(asks("websocket"), "content-type: application/grpc")
		direct[3] = ":path: /direct"
		h := p.tunnels()
		h.head(1, false, ":method: CONNECT", ":authority: a:80", "content-type: application/grpc")
		h.head(3, false, append(asks("websocket"), "content-type: application/grpc")...)
		h.head(5, false, direct...)
		for _, id := range []uint32{1, 3, 5} {
			_ = h.f.WriteData(id, false, []byte(smuggled))
			if got := h.answer(t, id); got != "403" {
				t.Errorf("%s: stream %d was answered %s", name, id, got)
			}
		}
		if w.seen() != "" {
			t.Errorf("%s: the backend saw %q", name, w.seen())
		}
	}
}
