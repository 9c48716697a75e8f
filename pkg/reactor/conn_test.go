// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

func TestBytesComeBackFromAnEcho(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.echo()
		for _, size := range []int{1, 100, 4095, 4096, 40_000} {
			want := pattern(size)
			near.got = nil
			near.c.Write(want)
			r.until("echo", func() bool { return len(near.got) >= size })
			if !bytes.Equal(near.got, want) {
				t.Fatalf("%d bytes came back changed", size)
			}
		}
		if near.c.LocalAddr() != far.c.RemoteAddr() || near.c.RemoteAddr() != far.c.LocalAddr() {
			t.Errorf("near is %v-%v, far is %v-%v", near.c.LocalAddr(), near.c.RemoteAddr(), far.c.LocalAddr(), far.c.RemoteAddr())
		}
		if near.c.ID() == far.c.ID() {
			t.Errorf("two connections have the ID %d", near.c.ID())
		}
	})
}

func TestManyWritesOfATickLeaveInOrder(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		var want []byte
		for i, n := range []int{10, 5000, 1, 20_000, 0, 3, 4096, 100_000, 7} {
			b := bytes.Repeat([]byte{byte('a' + i)}, n)
			want = append(want, b...)
			if i%2 == 0 {
				near.c.Write(b)
			} else {
				near.c.Commit(append(near.c.Reserve(n), b...))
			}
		}
		near.c.CloseWrite()
		near.c.Write([]byte("after the end"))
		r.until("FIN", func() bool { return far.eof })
		if !bytes.Equal(far.got, want) {
			t.Fatalf("%d bytes arrived, or another order; %d were written", len(far.got), len(want))
		}
		if got := near.c.WrittenBytes(); got != uint64(len(want)) {
			t.Errorf("WrittenBytes %d, want %d", got, len(want))
		}
		if got := far.c.ReadBytes(); got != uint64(len(want)) {
			t.Errorf("ReadBytes %d, want %d", got, len(want))
		}
	})
}

func TestCommitTakesWhatOutgrewItsReserve(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		near.c.Write([]byte("head "))
		b := append(near.c.Reserve(4), pattern(60_000)...)
		near.c.Commit(b)
		near.c.Reserve(100) // and nothing committed
		want := append([]byte("head "), pattern(60_000)...)
		r.until("bytes", func() bool { return len(far.got) >= len(want) })
		if !bytes.Equal(far.got, want) {
			t.Fatal("bytes arrived changed")
		}
		near.c.Reserve(0)
		r.settle()
		if near.c.Buffered() != 0 {
			t.Errorf("%d bytes wait after an empty Reserve", near.c.Buffered())
		}
	})
}

func TestLargeTransfersKeepMemoryBounded(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		const size, mark = 4 << 20, 32 << 10
		near, far := r.pair()
		far.echo()
		far.c.SetWatermark(mark)
		near.c.SetWatermark(mark)
		want := pattern(size)
		sent, most := 0, 0
		feed := func() {
			for sent < size && !near.c.AboveWatermark() {
				n := min(10_000, size-sent)
				near.c.Write(want[sent : sent+n])
				sent += n
			}
			if sent == size {
				near.c.CloseWrite()
			}
		}
		near.onLow = feed
		near.onData = func(in []byte) int {
			most = max(most, far.c.Buffered(), near.c.Buffered())
			near.got = append(near.got, in...)
			return len(in)
		}
		feed()
		r.until("both ends", func() bool { return near.isClosed() && far.isClosed() })
		if !bytes.Equal(near.got, want) {
			t.Fatalf("%d bytes of %d came back, or changed", len(near.got), size)
		}
		if near.err != nil || far.err != nil {
			t.Errorf("closed with %v and %v", near.err, far.err)
		}
		// One read may add a scratch buffer above the mark.
		if limit := mark + 64<<10 + 10_000; most > limit {
			t.Errorf("%d bytes waited, want at most %d", most, limit)
		}
		if far.high != far.low && far.high != far.low+1 {
			t.Errorf("%d OnHighWater and %d OnLowWater", far.high, far.low)
		}
	})
}

func TestARefusedConnectIsToldLater(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		// A port that was just given back is refused.
		set, err := r.sockets.Open(r.listen, 1, reactor.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		addr := set.Addr()
		set.Release()
		s := &script{}
		c := r.dial(addr, s)
		c.Write([]byte("never sent"))
		r.until("refusal", s.isClosed)
		if s.connected {
			t.Error("connected")
		}
		if !errors.Is(s.err, syscall.ECONNREFUSED) && !errors.Is(s.err, syscall.ENOENT) {
			t.Errorf("closed with %v", s.err)
		}
		r.settle()
		if s.closes != 1 {
			t.Errorf("OnClose was called %d times", s.closes)
		}
	})
}

func TestAConnectCanBeGivenUp(t *testing.T) {
	r := simRig(t, 1, hostile)
	addr := mustAddr(t, "10.0.0.1:80")
	r.world.Blackhole(addr, true)
	s := &script{}
	r.dial(addr, s)
	errSlow := errors.New("slow")
	var timer reactor.Timer
	timer.F = func() { s.c.Close(errSlow) }
	r.near.Schedule(&timer, 250*time.Millisecond)
	r.until("timeout", s.isClosed)
	if s.err != errSlow || s.connected {
		t.Errorf("closed with %v", s.err)
	}
	if at := r.world.Now(); at < 250*time.Millisecond || at > 253*time.Millisecond {
		t.Errorf("given up after %v", at)
	}
}

func TestWhatAHandlerLeavesIsPresentedAgain(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		var lines []string
		far.onData = func(in []byte) (n int) { // whole lines only, one each time
			line, _, ok := bytes.Cut(in, []byte("\n"))
			if !ok {
				return 0
			}
			lines = append(lines, string(line))
			if len(in) > len(line)+1 {
				far.c.Redeliver()
			}
			return len(line) + 1
		}
		want := []string{strings.Repeat("x", 9000), "two", "", strings.Repeat("y", 20_000), "five"}
		for _, part := range strings.SplitAfter(strings.Join(want, "\n")+"\n", "x") {
			near.c.Write([]byte(part))
		}
		r.until("lines", func() bool { return len(lines) >= len(want) })
		if !slices.Equal(lines, want) {
			t.Errorf("got %d lines, or others", len(lines))
		}
		if far.c.Unconsumed() != 0 {
			t.Errorf("%d bytes are left", far.c.Unconsumed())
		}
	})
}

func TestReadingStopsAtTheLimitAndGoesOn(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.c.SetReadLimit(10_000)
		take := 0
		far.onData = func(in []byte) int {
			n := min(take, len(in))
			far.got = append(far.got, in[:n]...)
			return n
		}
		want := pattern(50_000)
		near.c.Write(want)
		near.c.CloseWrite()
		r.until("limit", func() bool { return far.c.Unconsumed() >= 10_000 })
		r.settle()
		if n := far.c.Unconsumed(); n != 10_000 {
			t.Fatalf("%d bytes are held, the limit is 10000", n)
		}
		take = 1 << 20
		far.c.Redeliver()
		r.until("EOF", func() bool { return far.eof })
		if !bytes.Equal(far.got, want) {
			t.Errorf("%d of %d bytes, or changed", len(far.got), len(want))
		}
	})
}

func TestPausesAreCounted(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.c.Pause()
		far.c.Pause()
		near.c.Write([]byte("hello"))
		r.settle()
		far.c.Resume()
		r.settle()
		if len(far.got) > 0 || !far.c.Paused() {
			t.Fatalf("a paused connection was given %q", far.got)
		}
		far.c.Resume()
		r.until("bytes", func() bool { return string(far.got) == "hello" })
		far.c.Resume() // one too many is none
		far.c.Pause()
		if !far.c.Paused() {
			t.Error("not paused")
		}
	})
}

func TestAPauseInOnDataKeepsTheRest(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.onData = func(in []byte) int {
			far.got = append(far.got, in[0])
			far.c.Pause()
			return 1
		}
		near.c.Write([]byte("abc"))
		near.c.CloseWrite()
		for _, want := range []string{"a", "ab", "abc"} {
			r.until(want, func() bool { return string(far.got) == want })
			r.settle()
			if string(far.got) != want {
				t.Fatalf("got %q, want %q", far.got, want)
			}
			far.c.Resume()
		}
		r.until("EOF", func() bool { return far.eof })
	})
}

func TestCloseInACallbackEndsAllOthers(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		errEnough := errors.New("enough")
		far.onData = func(in []byte) int {
			far.c.Close(errEnough)
			if far.closes > 0 {
				t.Error("OnClose was called from inside Close")
			}
			far.c.Write([]byte("dropped"))
			far.c.Commit(append(far.c.Reserve(3), "xyz"...))
			far.c.CloseWrite()
			far.c.CloseAfterFlush(time.Second)
			far.c.Close(errors.New("another"))
			return 0
		}
		near.c.Write(pattern(1000))
		r.until("close", far.isClosed)
		datas := far.datas
		near.c.Write(pattern(1000))
		r.until("other end", near.isClosed2)
		r.settle()
		if far.closes != 1 || far.err != errEnough || far.datas != datas {
			t.Errorf("OnClose %d times with %v, OnData %d times more", far.closes, far.err, far.datas-datas)
		}
		if !far.c.Closed() {
			t.Error("not closed")
		}
	})
}

// isClosed2: closed, or told that the other end is.
func (s *script) isClosed2() bool { return s.closes > 0 || s.eof }

func TestWatermarksAreToldOnceEachWay(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		near.c.SetWatermark(100_000)
		far.c.Pause()
		for range 100 { // more than the kernel's buffers hold
			near.c.Write(pattern(100_000))
		}
		if near.high != 1 || near.low != 0 || !near.c.AboveWatermark() {
			t.Fatalf("%d OnHighWater, %d OnLowWater with %d bytes waiting", near.high, near.low, near.c.Buffered())
		}
		near.onLow = func() {
			if n := near.c.Buffered(); n > 50_000 {
				t.Errorf("OnLowWater with %d bytes waiting", n)
			}
		}
		far.c.Resume()
		r.until("all", func() bool { return len(far.got) == 10_000_000 })
		if near.high != 1 || near.low != 1 {
			t.Errorf("%d OnHighWater, %d OnLowWater", near.high, near.low)
		}
	})
}

func TestAnEndedLoopTellsItsConnections(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		_, far := r.pair()
		r.far.StopOffLoop()
		for r.far.Tick(0) {
		}
		if far.closes != 1 || far.err != reactor.ErrLoopStopped {
			t.Errorf("OnClose %d times with %v", far.closes, far.err)
		}
		if _, err := r.far.Dial(mustAddr(t, "127.0.0.1:1"), reactor.DialOptions{}, &script{}); err != reactor.ErrLoopStopped {
			t.Errorf("Dial on a stopped loop: %v", err)
		}
	})
}

func TestDialRefusesWhatIsNoAddress(t *testing.T) {
	r := simRig(t, 1, hostile)
	for _, test := range []struct {
		name  string
		to    reactor.Addr
		local string
		h     reactor.Handler
	}{
		{"no address", reactor.Addr{}, "", &script{}},
		{"no handler", mustAddr(t, "127.0.0.1:1"), "", nil},
		{"unix from ip", mustAddr(t, "@x"), "127.0.0.1:0", &script{}},
	} {
		var o reactor.DialOptions
		if test.local != "" {
			o.Local = mustAddr(t, test.local)
		}
		if _, err := r.near.Dial(test.to, o, test.h); err == nil {
			t.Errorf("%s: no error", test.name)
		}
	}
}
