// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec/hpack"
)

// attack feeds a server until it has enough, and says after how many rounds and
// with which error. Each round comes step nanoseconds after the one before.
func attack(t *testing.T, l Limits, rounds int, step int64, prepare func(p *peerSide), round func(p *peerSide, i int)) (int, *Error) {
	t.Helper()
	c := New(Server, l)
	r := &recorder{conn: c, consume: true}
	p := (&peerSide{}).preface()
	if prepare != nil {
		prepare(p)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range rounds {
		round(p, i)
		n, err := c.Decode(p.Bytes(), int64(i)*step, r)
		p.Next(n)
		r.out.Reset()
		r.bodies = nil
		if err != nil {
			if got := frames(t, c.AppendPending(nil)); got[len(got)-1] != "goaway "+fmt.Sprint(c.lastPeer)+" "+c.Err().Code.String() {
				t.Errorf("last sent: %s", got[len(got)-1])
			}
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 16<<20 {
				t.Errorf("%d bytes more in use", grown)
			}
			return i + 1, c.Err()
		}
		if !strings.HasPrefix(t.Name(), "TestPeers") {
			c.AppendPending(nil) // the peer reads what it causes
		}
	}
	return rounds, nil
}

// TestFloodsEndTheConnection has an attack for each frame-level row of the
// classes that a proxy inherits. Each ends within the rounds given, and not
// before its burst.
func TestFloodsEndTheConnection(t *testing.T) {
	id := func(i int) uint32 { return uint32(2*i + 1) }
	hold := func(p *peerSide) { p.headers(0, 1, get...) }
	for _, c := range []struct {
		name    string
		prepare func(p *peerSide)
		round   func(p *peerSide, i int)
		least   int
		want    *Error
	}{
		{"CVE-2023-44487 rapid reset", nil, func(p *peerSide, i int) {
			p.get(id(i)).frame(frameReset, 0, id(i), u32(uint32(Cancel)))
		}, 200, errResets},
		{"CVE-2025-8671 MadeYouReset by a window update of zero", nil, func(p *peerSide, i int) {
			p.get(id(i)).frame(frameWindowUpdate, 0, id(i), u32(0))
		}, 200, errForcedResets},
		{"CVE-2025-8671 MadeYouReset by a window overflow", nil, func(p *peerSide, i int) {
			p.get(id(i)).frame(frameWindowUpdate, 0, id(i), u32(maxWindow))
		}, 200, errForcedResets},
		{"CVE-2025-8671 MadeYouReset by data behind the end", nil, func(p *peerSide, i int) {
			p.get(id(i)).frame(frameData, flagEndStream, id(i), "x")
		}, 200, errForcedResets},
		{"CVE-2025-8671 MadeYouReset by a priority of wrong length", nil, func(p *peerSide, i int) {
			p.get(id(i)).frame(framePriority, 0, id(i), "xxx")
		}, 200, errForcedResets},
		{"malformed requests", nil, func(p *peerSide, i int) { p.headers(flagEndStream, id(i), "x: y") }, 200, errForcedResets},
		{"CVE-2019-9516 empty header names", nil, func(p *peerSide, i int) {
			p.frame(frameHeaders, flagEndHeaders|flagEndStream, id(i), strings.Repeat("\x00\x00\x00", 50))
		}, 200, errForcedResets},
		{"more streams than allowed", func(p *peerSide) {
			for i := range 100 {
				p.headers(0, id(i), get...)
			}
		}, func(p *peerSide, i int) { p.get(id(i + 100)) }, 200, errForcedResets},
		{"CVE-2019-9515 SETTINGS", nil, func(p *peerSide, i int) { p.frame(frameSettings, 0, 0) }, 90, errSettings},
		{"SETTINGS that resize the table", nil, func(p *peerSide, i int) { p.frame(frameSettings, 0, 0, "\x00\x01"+u32(uint32(i))) }, 90, errSettings},
		{"CVE-2019-9512 PING", nil, func(p *peerSide, i int) { p.frame(framePing, 0, 0, "12345678") }, 1000, errPings},
		{"PING acknowledgements", nil, func(p *peerSide, i int) { p.frame(framePing, flagAck, 0, "12345678") }, 1000, errPings},
		{"CVE-2019-9513 PRIORITY", hold, func(p *peerSide, i int) { p.frame(framePriority, 0, 1, u32(3), "x") }, 1000, errPriorities},
		{"CVE-2019-9518 empty DATA", hold, func(p *peerSide, i int) { p.frame(frameData, 0, 1) }, 100, errEmptyData},
		{"CVE-2019-9518 DATA of padding", hold, func(p *peerSide, i int) { p.frame(frameData, flagPadded, 1, "\x01\x00") }, 100, errEmptyData},
		{"CVE-2019-9511 WINDOW_UPDATE of the connection", nil, func(p *peerSide, i int) { p.frame(frameWindowUpdate, 0, 0, u32(1)) }, 2000, errWindowUpdates},
		{"CVE-2019-9511 WINDOW_UPDATE of a stream", hold, func(p *peerSide, i int) { p.frame(frameWindowUpdate, 0, 1, u32(1)) }, 2000, errWindowUpdates},
		{"frames of unknown type", nil, func(p *peerSide, i int) { p.frame(0x2a, 0xff, 7, "x") }, 1000, errUnknownFrames},
		{"RST_STREAM of a stream that has ended", func(p *peerSide) { p.get(1).frame(frameReset, 0, 1, u32(8)) },
			func(p *peerSide, i int) { p.frame(frameReset, 0, 1, u32(8)) }, 1000, errUnknownFrames},
		{"GOAWAY", nil, func(p *peerSide, i int) { p.frame(frameGoAway, 0, 0, u32(0), u32(0)) }, 1000, errUnknownFrames},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := attack(t, Limits{}, 4*c.least+100, 1000, c.prepare, c.round)
			if err != c.want || n < c.least {
				t.Errorf("after %d rounds: %v, want %v", n, err, c.want)
			}
			if err != nil && err.Code != EnhanceYourCalm {
				t.Errorf("closed with %s", err.Code)
			}
		})
	}
}

func TestPeersThatDoNotReadWhatTheyCauseAreClosed(t *testing.T) {
	n, err := attack(t, Limits{Pings: 5000}, 3000, 1000, nil, func(p *peerSide, _ int) { p.frame(framePing, 0, 0, "12345678") })
	if err != errControlQueue || n < 900 {
		t.Errorf("after %d: %v", n, err)
	}
}

// TestOrdinaryUseIsNoFlood: budgets come back with time, and with work done.
func TestOrdinaryUseIsNoFlood(t *testing.T) {
	id := func(i int) uint32 { return uint32(2*i + 1) }
	const ms = int64(1e6)
	for _, c := range []struct {
		name  string
		step  int64
		round func(p *peerSide, i int)
	}{
		{"fifty cancelled requests a second", 20 * ms, func(p *peerSide, i int) {
			p.get(id(i)).frame(frameReset, 0, id(i), u32(uint32(Cancel)))
		}},
		{"fifty pings a second", 20 * ms, func(p *peerSide, i int) { p.frame(framePing, 0, 0, "12345678") }},
		{"a ping for each piece of data", 1000, func(p *peerSide, i int) {
			if i == 0 {
				p.headers(0, 1, get...)
			}
			p.frame(frameData, 0, 1, "x").frame(framePing, 0, 0, "12345678")
		}},
		{"priorities for each stream", 20 * ms, func(p *peerSide, i int) {
			p.headers(flagEndStream, id(i), get...).frame(framePriority, 0, id(i), u32(0), "x").frame(frameReset, 0, id(i), u32(8))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n, err := attack(t, Limits{}, 5000, c.step, nil, c.round); err != nil {
				t.Errorf("after %d rounds: %v", n, err)
			}
		})
	}
}

func TestContinuationFloodsEndTheConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		part string
		most int
		want *Error
	}{
		{"CVE-2023-45288 many frames", "x", 9, errContinuations},
		{"CVE-2024-30255 empty frames", "", 2, errContinuations},
		{"CVE-2024-27919 many bytes", strings.Repeat("x", 16384), 5, errBlockBytes},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := attack(t, Limits{}, 100, 0, func(p *peerSide) { p.frame(frameHeaders, 0, 1) },
				func(p *peerSide, _ int) { p.frame(frameContinuation, 0, 1, c.part) })
			if err != c.want || n != c.most {
				t.Errorf("after %d: %v", n, err)
			}
		})
	}
}

// TestHeaderListsBeyondTheLimitsEndTheirStream: what is decoded counts, crumbs of
// cookies one by one, and the connection's tables stay right.
func TestHeaderListsBeyondTheLimitsEndTheirStream(t *testing.T) {
	repeat := func(line string, n int) (lines []string) {
		for range n {
			lines = append(lines, line)
		}
		return with(lines...)
	}
	for _, c := range []struct {
		name  string
		lines []string
	}{
		{"101 fields", repeat("x: y", 97)},
		{"1 000 cookie crumbs (CVE-2026-47774)", repeat("cookie: a=b", 1000)},
		{"an HPACK bomb", repeat("x: "+strings.Repeat("v", 3000), 60)},
		{"a field of 61 KiB", with("x: " + strings.Repeat("v", 61<<10))},
	} {
		p := (&peerSide{}).preface()
		block := p.encode(c.lines...)
		for i := 0; ; i++ {
			part := block[:min(len(block), 16384)]
			block = block[len(part):]
			kind, flags := frameContinuation, uint8(0)
			if i == 0 {
				kind, flags = frameHeaders, flagEndStream
			}
			if len(block) == 0 {
				p.frame(kind, flags|flagEndHeaders, 1, part)
				break
			}
			p.frame(kind, flags, 1, part)
		}
		p.headers(flagEndStream, 3, with("x: after")...)
		got := serve(t, Limits{}, p)
		if !strings.HasPrefix(got, "1 reset ENHANCE_YOUR_CALM local=true http2.headers_too_large\n3 request GET") || !strings.Contains(got, "x: \"after\"") {
			t.Errorf("%s: %.300s", c.name, got)
		}
	}
}

// Whoever sends large header blocks one after the other gets what they need once: else
// collecting it would cost others more than the decoding. It is given back with the next
// block that is not large.
func TestLargeHeaderBlocksOneAfterTheOtherAllocateOnce(t *testing.T) {
	c := New(Server, Limits{Resets: 1000})
	r := &sinkNull{conn: c}
	p := (&peerSide{}).preface()
	if _, err := c.Decode(p.Bytes(), 1, r); err != nil {
		t.Fatal(err)
	}
	p.Reset()
	block := p.encode(with("x: " + strings.Repeat("v", 61<<10))...)
	stream := uint32(1)
	send := func(block string) {
		p.Reset()
		head := block[:min(len(block), 16384)]
		flags := uint8(flagEndStream)
		if block = block[len(head):]; block == "" {
			flags |= flagEndHeaders
		}
		p.frame(frameHeaders, flags, stream, head)
		for block != "" {
			part := block[:min(len(block), 16384)]
			flags = 0
			if block = block[len(part):]; block == "" {
				flags = flagEndHeaders
			}
			p.frame(frameContinuation, flags, stream, part)
		}
		if _, err := c.Decode(p.Bytes(), 1, r); err != nil {
			t.Fatal(err)
		}
		c.AppendPending(nil)
		stream += 2
	}
	send(block)
	var before, after runtime.MemStats
	const blocks = 100
	p.Grow(80 << 10)
	runtime.ReadMemStats(&before)
	for range blocks {
		send(block)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / blocks; each > 8<<10 {
		t.Errorf("%d bytes allocated for each of them", each)
	}
	send(p.encode(get...))
	if n := cap(c.list.Buf) + cap(c.block.bytes); n > 2*keepQueue {
		t.Errorf("%d bytes are kept", n)
	}
}

// TestOneByteFramesCostNoMemory is CVE-2020-12603: DATA of one byte each.
func TestOneByteFramesCostNoMemory(t *testing.T) {
	c := New(Server, Limits{})
	r := &sinkNull{conn: c}
	p := (&peerSide{}).preface().headers(0, 1, get...)
	if _, err := c.Decode(p.Bytes(), 1, r); err != nil {
		t.Fatal(err)
	}
	p.Reset()
	for range 1000 {
		p.frame(frameData, 0, 1, "x")
	}
	var out []byte
	if n := testing.AllocsPerRun(100, func() {
		if _, err := c.Decode(p.Bytes(), 1, r); err != nil {
			t.Fatal(err)
		}
		out = c.AppendPending(out[:0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestAWindowThatIsNeverOpenedHoldsWhatWasGiven is CVE-2020-12604 and the first
// half of CVE-2019-9517: the codec keeps what it was handed and no more.
func TestAWindowThatIsNeverOpenedHoldsWhatWasGiven(t *testing.T) {
	c := New(Server, Limits{})
	r := &sinkNull{conn: c}
	p := (&peerSide{}).preface().frame(frameSettings, 0, 0, "\x00\x04"+u32(0)).get(1)
	if _, err := c.Decode(p.Bytes(), 1, r); err != nil {
		t.Fatal(err)
	}
	out := c.AppendResponse(nil, 1, ok200(), false)
	out = c.AppendData(out[:0], 1, make([]byte, 10_000), false)
	if len(out) != 0 || c.Queued(1) != 10_000 {
		t.Errorf("%d bytes out, %d queued", len(out), c.Queued(1))
	}
	c.Reset(1, Cancel)
	if got := frames(t, c.AppendPending(nil)); len(got) != 1 || got[0] != "reset 1 CANCEL" || c.Streams() != 0 {
		t.Errorf("%v, %d streams", got, c.Streams())
	}
}

// TestNoFrameOfAnyTypeLengthAndFlagPanics is CVE-2026-27141, and the upstream half
// of it CVE-2026-33814: every type, many lengths and flags, in both roles.
func TestNoFrameOfAnyTypeLengthAndFlagPanics(t *testing.T) {
	for kind := range 256 {
		for _, length := range []int{0, 1, 4, 5, 6, 8, 9, 100} {
			for _, flags := range []uint8{0, 1, 4, 5, 8, 0x20, 0x2d, 0xff} {
				for _, id := range []uint32{0, 1, 2, 3, maxStreamID} {
					for _, role := range []Role{Server, Client} {
						c := New(role, Limits{})
						p := &peerSide{}
						if role == Server {
							p.preface().headers(0, 1, get...)
						} else {
							p.frame(frameSettings, 0, 0)
							id, _ := c.NewStream()
							c.AppendRequest(nil, id, getRequest(), true)
						}
						p.frame(frameType(kind), flags, id, strings.Repeat("\x00", length))
						c.Decode(p.Bytes(), 1, &sinkNull{conn: c})
						c.AppendPending(nil)
					}
				}
			}
		}
	}
}

func TestAPeersFrameSizeOfZeroIsRefused(t *testing.T) {
	c := New(Client, Limits{})
	p := (&peerSide{}).frame(frameSettings, 0, 0, "\x00\x05"+u32(0))
	if _, err := c.Decode(p.Bytes(), 1, &sinkNull{conn: c}); err != error(errSettingFrameSize) {
		t.Error(err)
	}
}

func TestTheHuffmanDecoderIsLinear(t *testing.T) {
	// CVE-2022-41723: one string is decoded once, into memory that is not copied
	// for each symbol. Its work is its length, which the block bounds.
	p := (&peerSide{}).preface().headers(flagEndStream, 1, with("x: "+strings.Repeat("0", 20_000))...)
	if got := serve(t, Limits{}, p); !strings.Contains(got, strings.Repeat("0", 20_000)) {
		t.Errorf("%.100s", got)
	}
	var l hpack.List
	l.MaxBytes, l.MaxCount = 10, 10
	var d hpack.Decoder
	d.Init(4096)
	if err := d.Decode([]byte("\x00\x01a\x7f\x81\x00"+strings.Repeat("v", 128)), &l); err != nil || !l.TooLarge || len(l.Buf) != 0 {
		t.Errorf("%v %v %d", err, l.TooLarge, len(l.Buf))
	}
}
