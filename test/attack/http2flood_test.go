// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	http2codec "github.com/outrigger-mesh/outrigger/pkg/codec/http2"
)

// mostGrowth is how much a flood may make the resident memory grow.
const mostGrowth = 16 << 20

// flood is what one connection sends over and over.
type flood struct {
	name    string
	prepare func(h *http2Peer)
	each    func(h *http2Peer, i int)
}

// Each stands for a class that a proxy inherits. All of them break no rule of
// framing, or one that costs a stream only: it is the number that ends the
// connection, with ENHANCE_YOUR_CALM.
var floods = []flood{
	{"rapid reset (CVE-2023-44487, CVE-2019-9514)", nil, func(h *http2Peer, _ int) {
		id := h.request(true, get("/hold")...)
		_ = h.f.WriteRSTStream(id, http2.ErrCodeCancel)
	}},
	{"rapid reset of what is answered at once", nil, func(h *http2Peer, _ int) {
		id := h.request(false, post("/direct")...)
		_ = h.f.WriteRSTStream(id, http2.ErrCodeCancel)
	}},
	{"MadeYouReset by WINDOW_UPDATE of 0 (CVE-2025-8671)", nil, func(h *http2Peer, _ int) {
		_ = h.f.WriteWindowUpdate(h.request(true, get("/hold")...), 0)
	}},
	{"MadeYouReset by a window overflow (CVE-2025-8671)", nil, func(h *http2Peer, _ int) {
		_ = h.f.WriteWindowUpdate(h.request(true, get("/hold")...), 1<<31-1)
	}},
	{"MadeYouReset by DATA behind the end (CVE-2025-8671)", nil, func(h *http2Peer, _ int) {
		_ = h.f.WriteData(h.request(true, get("/hold")...), true, []byte("x"))
	}},
	{"MadeYouReset by HEADERS behind the end (CVE-2025-8671)", nil, func(h *http2Peer, _ int) {
		id := h.request(true, get("/hold")...)
		_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.encode("x", "y"), EndStream: true, EndHeaders: true})
	}},
	{"MadeYouReset by PRIORITY of itself (CVE-2025-8671)", nil, func(h *http2Peer, _ int) {
		id := h.request(true, get("/hold")...)
		_ = h.f.WritePriority(id, http2.PriorityParam{StreamDep: id})
	}},
	{"MadeYouReset by PRIORITY of a wrong length (CVE-2025-8671)", nil, func(h *http2Peer, _ int) {
		_ = h.f.WriteRawFrame(http2.FramePriority, 0, h.request(true, get("/hold")...), []byte("xxx"))
	}},
	{"MadeYouReset by a body beyond its length (CVE-2025-8671)", nil, func(h *http2Peer, _ int) {
		_ = h.f.WriteData(h.request(false, post("/hold", "content-length", "1")...), false, []byte("xy"))
	}},
	{"MadeYouReset by trailers that do not end (CVE-2025-8671)", nil, func(h *http2Peer, _ int) {
		id := h.request(false, post("/hold")...)
		_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.encode("x", "y"), EndHeaders: true})
	}},
	{"malformed requests", nil, func(h *http2Peer, _ int) { h.request(true, get("/x", "X-Upper", "y")...) }},
	{"fields without a name (CVE-2019-9516)", nil, func(h *http2Peer, _ int) {
		id := h.request(true, ":method", "GET")
		_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(strings.Repeat("\x00\x00\x00", 50)), EndStream: true, EndHeaders: true})
	}},
	{"more streams than allowed", nil, func(h *http2Peer, _ int) { h.request(false, post("/hold")...) }},
	{"HPACK bombs of one large entry", func(h *http2Peer) {
		h.request(true, get("/direct", "x", strings.Repeat("v", 3500))...) // enters the table
	}, func(h *http2Peer, _ int) {
		id := h.next
		h.next += 2
		// 62 is the newest entry: 15 000 references to 3.5 kB in one block.
		block := append(h.encode(get("/x")...), strings.Repeat("\xbe", 15_000)...)
		_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true})
	}},
	{"cookie crumbs (CVE-2026-47774)", nil, func(h *http2Peer, _ int) {
		fields := get("/x")
		for range 1000 {
			fields = append(fields, "cookie", "a=b")
		}
		h.request(true, fields...)
	}},
	{"header lists beyond the limit", nil, func(h *http2Peer, _ int) { h.request(true, get("/x", "x", strings.Repeat("v", 61<<10))...) }},
	{"SETTINGS (CVE-2019-9515)", nil, func(h *http2Peer, _ int) { _ = h.f.WriteSettings() }},
	{"SETTINGS that resize the table", nil, func(h *http2Peer, i int) {
		_ = h.f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(i) << 16})
	}},
	{"SETTINGS that move every window", func(h *http2Peer) {
		for range 100 {
			h.request(false, post("/hold")...)
		}
	}, func(h *http2Peer, i int) {
		var list []http2.Setting
		for k := range 2700 {
			list = append(list, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i + k&1)})
		}
		_ = h.f.WriteSettings(list...)
	}},
	{"SETTINGS acknowledgements", nil, func(h *http2Peer, _ int) { _ = h.f.WriteSettingsAck() }},
	{"PING (CVE-2019-9512)", nil, func(h *http2Peer, _ int) { _ = h.f.WritePing(false, [8]byte{}) }},
	{"PING acknowledgements", nil, func(h *http2Peer, _ int) { _ = h.f.WritePing(true, [8]byte{}) }},
	{"PRIORITY (CVE-2019-9513)", nil, func(h *http2Peer, i int) {
		_ = h.f.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: uint32(2*i + 3)})
	}},
	{"empty DATA (CVE-2019-9518)", func(h *http2Peer) { h.request(false, post("/hold")...) }, func(h *http2Peer, _ int) { _ = h.f.WriteData(1, false, nil) }},
	{"DATA of padding (CVE-2019-9518)", func(h *http2Peer) { h.request(false, post("/hold")...) },
		func(h *http2Peer, _ int) { _ = h.f.WriteDataPadded(1, false, nil, make([]byte, 200)) }},
	{"WINDOW_UPDATE of the connection (CVE-2019-9511)", nil, func(h *http2Peer, _ int) { _ = h.f.WriteWindowUpdate(0, 1) }},
	{"WINDOW_UPDATE of a stream (CVE-2019-9511)", func(h *http2Peer) { h.request(false, post("/hold")...) },
		func(h *http2Peer, _ int) { _ = h.f.WriteWindowUpdate(1, 1) }},
	{"frames of unknown types", nil, func(h *http2Peer, i int) { _ = h.f.WriteRawFrame(http2.FrameType(10+i%246), 0xff, 1, []byte("x")) }},
	{"RST_STREAM of a stream that has ended", func(h *http2Peer) { _ = h.f.WriteRSTStream(h.request(true, get("/x")...), http2.ErrCodeCancel) },
		func(h *http2Peer, _ int) { _ = h.f.WriteRSTStream(1, http2.ErrCodeCancel) }},
	{"GOAWAY", func(h *http2Peer) { h.request(false, post("/hold")...) }, func(h *http2Peer, _ int) { _ = h.f.WriteGoAway(0, http2.ErrCodeNo, nil) }},
	{"GOAWAY with much to say", func(h *http2Peer) { h.request(false, post("/hold")...) },
		func(h *http2Peer, _ int) { _ = h.f.WriteGoAway(0, http2.ErrCodeNo, make([]byte, 16000)) }},
	{"CONTINUATION without an end (CVE-2023-45288, CVE-2024-30255)", beginBlock, func(h *http2Peer, _ int) { _ = h.f.WriteContinuation(1, false, []byte("\x00\x01x\x01y")) }},
	{"empty CONTINUATION (CVE-2024-30255)", beginBlock, func(h *http2Peer, _ int) { _ = h.f.WriteContinuation(1, false, nil) }},
	{"large CONTINUATION (CVE-2024-27919)", beginBlock, func(h *http2Peer, _ int) { _ = h.f.WriteContinuation(1, false, make([]byte, 16<<10)) }},
}

// answerOrHold answers each request but those for /hold.
func answerOrHold(_ int, c net.Conn) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, err = io.Copy(io.Discard, req.Body)
		if err != nil || req.URL.Path == "/hold" {
			_, _ = io.Copy(io.Discard, r)
			return
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"); err != nil {
			return
		}
	}
}

// beginBlock leaves a header block open.
func beginBlock(h *http2Peer) {
	_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.encode(get("/x")...)})
}

// rounds is how often a flood repeats: what is not ended by then is no flood.
const rounds = 6000

func TestHTTP2FloodsEndInCalmAndAreCounted(t *testing.T) {
	for _, transport := range []string{"cleartext", "TLS"} {
		t.Run(transport, func(t *testing.T) {
			secure := transport == "TLS"
			p := start(t, target{Upstream: hostile(t, answerOrHold), Secure: secure})
			p.watchOver(secure, "/direct", "/upstream")
			p.warm(secure)
			before := p.memory()
			for _, a := range floods {
				t.Run(a.name, func(t *testing.T) {
					counted := p.stat("outrigger.http2.flood_total")
					if code, err := p.flood(a, secure); err != nil || code != http2.ErrCodeEnhanceYourCalm {
						t.Errorf("ended with %v, %v", code, err)
					}
					if n := p.stat("outrigger.http2.flood_total") - counted; n != 1 {
						t.Errorf("counted %d times", n)
					}
					kinds := int64(0)
					for kind := range http2codec.Floods {
						kinds += p.stat("outrigger.http2.flood." + http2codec.FloodName(kind) + ".connections_total")
					}
					if total := p.stat("outrigger.http2.flood_total"); kinds != total {
						t.Errorf("%d by kind, %d in all", kinds, total)
					}
					if grown := p.memory() - before; grown > mostGrowth {
						t.Errorf("the sidecar has grown by %d MiB", grown>>20)
					}
				})
			}
			eventually(t, "nothing of it is left", func() bool { return p.stat("cluster.c.upstream_rq_active") <= 1 })
		})
	}
}

// flood sends a flood until its connection ends, and returns what GOAWAY said.
func (p *proxy) flood(a flood, secure bool) (http2.ErrCode, error) {
	h := p.http2(secure)
	defer func() { _ = h.c.Close() }()
	if a.prepare != nil {
		a.prepare(h)
	}
	for i := range rounds {
		a.each(h, i)
		if h.out.Len() > 32<<10 && !h.send() {
			break
		}
	}
	h.send()
	return h.ended()
}

// warm lets the sidecar have what any use costs.
func (p *proxy) warm(secure bool) {
	p.t.Helper()
	h := p.http2(secure)
	for range 50 {
		h.request(true, get("/direct")...)
		h.request(true, get("/x")...)
	}
	h.send()
	h.saw("100 answers", func() bool { return len(h.status) == 100 })
	_ = h.c.Close()
}
