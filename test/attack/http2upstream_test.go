// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// scripted is a server of HTTP/2 whose every step a test decides.
type scripted struct {
	*http2Peer
	n  int // the how-manieth connection it is
	in *http2.Framer
}

// upstreamHTTP2 serves each connection with f, after preface and SETTINGS, as a
// backend that keeps no rule.
func upstreamHTTP2(t *testing.T, f func(s *scripted), settings ...http2.Setting) string {
	return hostile(t, func(n int, c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(preface))); err != nil {
			return
		}
		s := &scripted{newHTTP2Peer(t, c), n, http2.NewFramer(io.Discard, c)}
		s.in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = s.f.WriteSettings(settings...)
		_ = s.f.WriteSettingsAck()
		s.send()
		f(s)
	})
}

// next is the stream and path of the next request whose head comes, 0 at the end.
func (s *scripted) next() (id uint32, path string) {
	for {
		f, err := s.in.ReadFrame()
		if err != nil {
			return 0, ""
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.StreamID, f.PseudoValue("path")
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = s.f.WritePing(true, f.Data)
				s.send()
			}
		}
	}
}

// head answers with 200, and with text where that is not empty.
func (s *scripted) answer(id uint32, text string) {
	_ = s.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.encode(":status", "200"), EndHeaders: true})
	_ = s.f.WriteData(id, true, []byte(text))
	s.send()
}

// honest answers every request.
func (s *scripted) honest() {
	for id, path := s.next(); id != 0; id, path = s.next() {
		s.answer(id, path)
	}
}

// askAll sends n requests at once over one connection and returns the answers, by
// how many there are of each.
func (p *proxy) askAll(n int) map[string]int {
	p.t.Helper()
	c := p.client(false)
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			resp, err := c.Get(p.origin(false) + fmt.Sprintf("/r%d", i))
			said := fmt.Sprint(err)
			if err == nil {
				var b []byte
				if b, err = io.ReadAll(resp.Body); err != nil || string(b) != fmt.Sprintf("/r%d", i) {
					said = fmt.Sprintf("%s %q %v", resp.Status, b, err)
				} else {
					said = resp.Status
				}
				_ = resp.Body.Close()
			}
			mu.Lock()
			got[said]++
			mu.Unlock()
		})
	}
	wg.Wait()
	return got
}

// allServed fails the test unless all of n were answered.
func allServed(t *testing.T, got map[string]int, n int) {
	t.Helper()
	if got["200 OK"] != n {
		t.Errorf("got %v", got)
	}
}

// D8: an upstream that goes away with GOAWAY(NO_ERROR) has served the streams up to
// the last one it names; those above are sent again elsewhere.
func TestD8StreamsAboveTheLastOfAGoAwayGoElsewhere(t *testing.T) {
	for _, served := range []int{0, 1, 5, 10} {
		t.Run(fmt.Sprint(served), func(t *testing.T) {
			p := start(t, target{Cluster: overHTTP2, Upstream: upstreamHTTP2(t, func(s *scripted) {
				if s.n > 0 {
					s.honest()
					return
				}
				paths := map[uint32]string{}
				var ids []uint32
				for len(ids) < 10 {
					id, path := s.next()
					if id == 0 {
						return
					}
					ids = append(ids, id)
					paths[id] = path
				}
				last := uint32(0)
				if served > 0 {
					last = ids[served-1]
				}
				_ = s.f.WriteGoAway(last, http2.ErrCodeNo, nil)
				s.send()
				for _, id := range ids[:served] {
					s.answer(id, paths[id])
				}
				s.honest()
			})})
			allServed(t, p.askAll(10), 10)
			if n := p.stat("cluster.c.upstream_rq_retry"); n != int64(10-served) {
				t.Errorf("%d were sent again", n)
			}
		})
	}
}

// D8: GOAWAY in the middle of streams lets those finish, and what comes later goes
// over another connection.
func TestD8AGoAwayInTheMiddleOfStreamsLetsThemFinish(t *testing.T) {
	later := make(chan struct{})
	laterCame := sync.OnceFunc(func() { close(later) })
	p := start(t, target{Cluster: overHTTP2, Upstream: upstreamHTTP2(t, func(s *scripted) {
		if s.n > 0 {
			laterCame()
			s.honest()
			return
		}
		id, path := s.next()
		_ = s.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.encode(":status", "200"), EndHeaders: true})
		_ = s.f.WriteData(id, false, []byte(path[:1]))
		_ = s.f.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil) // the first of two, and then the last
		_ = s.f.WriteGoAway(id, http2.ErrCodeNo, nil)
		s.send()
		select {
		case <-later:
		case <-t.Context().Done():
		}
		_ = s.f.WriteData(id, true, []byte(path[1:]))
		s.send()
		s.honest()
	})})
	done := make(chan map[string]int)
	go func() { done <- p.askAll(1) }()
	eventually(t, "the response has begun", func() bool { return p.stat("cluster.c.upstream_cx_rx_bytes_total") > 30 })
	allServed(t, p.askAll(20), 20)
	allServed(t, <-done, 1)
}

// D8: an upstream that takes one stream at a time gets one at a time, and the rest
// goes over further connections; none is lost.
func TestD8AnUpstreamThatTakesOneStreamAtATimeIsServedSo(t *testing.T) {
	var refused atomic.Int64
	p := start(t, target{Cluster: overHTTP2, Upstream: upstreamHTTP2(t, func(s *scripted) {
		for open, path := uint32(0), ""; ; {
			f, err := s.in.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				if open != 0 {
					refused.Add(1)
					_ = s.f.WriteRSTStream(f.StreamID, http2.ErrCodeRefusedStream)
				} else { // answered once all that was sent ahead must have come
					open, path = f.StreamID, f.PseudoValue("path")
					_ = s.f.WritePing(false, [8]byte{})
				}
				s.send()
			case *http2.PingFrame:
				if open != 0 {
					s.answer(open, path)
					open = 0
				}
			}
		}
	}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})})
	defer func() {
		if n := refused.Load(); n > 0 {
			t.Errorf("%d streams had to be refused", n)
		}
	}()
	allServed(t, p.askAll(50), 50)
}

// D8: an upstream that takes no stream is not asked, and once it does, what has
// waited is sent.
func TestD8WhatWaitsForAnUpstreamThatTakesNoStreamIsSentOnceItDoes(t *testing.T) {
	var refused atomic.Int64
	asked := make(chan struct{})
	p := start(t, target{Cluster: overHTTP2, Upstream: upstreamHTTP2(t, func(s *scripted) {
		if s.n == 0 { // until the first connection learns that it may
			go func() {
				select {
				case <-asked:
				case <-t.Context().Done():
					return
				}
				h := newHTTP2Peer(t, s.c)
				_ = h.f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
				h.send()
			}()
		}
		for id, path := s.next(); id != 0; id, path = s.next() {
			select {
			case <-asked:
				s.answer(id, path)
			default:
				refused.Add(1)
				_ = s.f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				s.send()
			}
		}
	}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})})
	done := make(chan map[string]int)
	go func() { done <- p.askAll(20) }()
	eventually(t, "they wait", func() bool { return p.stat("cluster.c.upstream_rq_pending_active") == 20 })
	if n := p.stat("cluster.c.upstream_cx_total"); n > 2 || refused.Load() > 0 {
		t.Errorf("%d connections to an upstream that takes no stream", n)
	}
	close(asked)
	allServed(t, <-done, 20)
}

// D8: settings that change under running streams, and floods of PING and SETTINGS
// that an upstream may send, change no response.
func TestD8SettingsThatChangeUnderStreamsLoseNothing(t *testing.T) {
	p := start(t, target{Cluster: overHTTP2, Upstream: upstreamHTTP2(t, func(s *scripted) {
		for i := 0; ; i++ {
			id, path := s.next()
			if id == 0 {
				return
			}
			if i%3 == 0 { // a budget that time refills
				_ = s.f.WriteSettings(
					http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(1 + i%7)}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i % 5 * 1000)},
					http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(i % 3 * 2048)}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: uint32(16384 + i)})
			}
			_ = s.f.WritePing(false, [8]byte{byte(i)})
			s.answer(id, path)
		}
	})})
	for range 5 {
		allServed(t, p.askAll(50), 50)
	}
}

// An upstream that floods is left, and counted; what it owes is asked of another
// connection, or answered with an error of the proxy's own.
func TestUpstreamsThatFloodAreLeftAndCounted(t *testing.T) {
	for name, each := range map[string]func(h *http2Peer, i int){
		"PING":                       func(h *http2Peer, _ int) { _ = h.f.WritePing(false, [8]byte{}) },
		"SETTINGS":                   func(h *http2Peer, _ int) { _ = h.f.WriteSettings() },
		"PRIORITY":                   func(h *http2Peer, _ int) { _ = h.f.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"GOAWAY":                     func(h *http2Peer, _ int) { _ = h.f.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil) },
		"WINDOW_UPDATE":              func(h *http2Peer, _ int) { _ = h.f.WriteWindowUpdate(0, 1) },
		"unknown frames":             func(h *http2Peer, _ int) { _ = h.f.WriteRawFrame(0x55, 0, 0, nil) },
		"RST_STREAM of what is over": func(h *http2Peer, _ int) { _ = h.f.WriteRSTStream(1, http2.ErrCodeCancel) },
		"1xx":                        func(h *http2Peer, _ int) { early(h) },
		"empty DATA":                 func(h *http2Peer, i int) { begun(h, i); _ = h.f.WriteData(1, false, nil) },
		"CONTINUATION": func(h *http2Peer, i int) {
			openBlock(h, i)
			_ = h.f.WriteContinuation(1, false, []byte("\x00\x01x\x01y"))
		},
		"MAX_FRAME_SIZE of 0":            setting(http2.SettingMaxFrameSize, 0), // CVE-2026-33814
		"MAX_FRAME_SIZE of 16383":        setting(http2.SettingMaxFrameSize, 16383),
		"MAX_FRAME_SIZE of 2^24":         setting(http2.SettingMaxFrameSize, 1<<24),
		"INITIAL_WINDOW_SIZE above 2^31": setting(http2.SettingInitialWindowSize, 1<<31),
		"ENABLE_PUSH of 1":               setting(http2.SettingEnablePush, 1),
		"PUSH_PROMISE": func(h *http2Peer, _ int) {
			_ = h.f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: h.encode(get("/evil")...), EndHeaders: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, target{Cluster: overHTTP2, Upstream: upstreamHTTP2(t, func(s *scripted) {
				if s.n > 0 {
					s.honest()
					return
				}
				if id, _ := s.next(); id == 0 {
					return
				}
				for i := range rounds {
					each(s.http2Peer, i)
					if s.out.Len() > 32<<10 && !s.send() {
						break
					}
				}
				s.send()
				s.honest()
			})})
			before := p.memory()
			got := p.say("GET /first HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
			eventuallyCalm(t, "it is counted", func() bool { return p.stat("cluster.c.upstream_cx_protocol_error") >= 1 })
			if got != "" && !strings.HasPrefix(got, "HTTP/1.1 5") && !strings.HasPrefix(got, "HTTP/1.1 200 ") && !strings.HasPrefix(got, "HTTP/1.1 10") {
				t.Errorf("answered %.200q", got)
			}
			if strings.Contains(got, "evil") {
				t.Errorf("answered %.200q", got)
			}
			allServed(t, p.askAll(10), 10)
			if grown := p.memory() - before; grown > mostGrowth {
				t.Errorf("the sidecar has grown by %d MiB", grown>>20)
			}
		})
	}
}

func setting(id http2.SettingID, v uint32) func(h *http2Peer, i int) {
	return func(h *http2Peer, i int) {
		if i == 0 {
			_ = h.f.WriteSettings(http2.Setting{ID: id, Val: v})
		}
	}
}

func early(h *http2Peer) {
	_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.encode(":status", "103", "link", "x"), EndHeaders: true})
}

func begun(h *http2Peer, i int) {
	if i == 0 {
		_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.encode(":status", "200"), EndHeaders: true})
	}
}

func openBlock(h *http2Peer, i int) {
	if i == 0 {
		_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.encode(":status", "200")})
	}
}
