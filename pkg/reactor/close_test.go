// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

func TestHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		for _, nearFirst := range []bool{true, false} {
			one, two := r.pairOn(t)
			if !nearFirst {
				one, two = two, one
			}
			one.c.Write([]byte("question"))
			one.c.CloseWrite()
			r.until("EOF", func() bool { return two.eof })
			if string(two.got) != "question" {
				t.Fatalf("got %q before the end", two.got)
			}
			r.settle()
			if one.closes+two.closes > 0 {
				t.Fatalf("half-closed connection was closed: %v, %v", one.err, two.err)
			}
			two.c.Write([]byte("answer"))
			two.c.CloseWrite()
			r.until("both ends", func() bool { return one.isClosed() && two.isClosed() })
			if string(one.got) != "answer" || !one.eof || one.err != nil || two.err != nil {
				t.Fatalf("got %q, EOF %v, closed with %v and %v", one.got, one.eof, one.err, two.err)
			}
		}
	})
}

// pairOn makes further pairs on a rig that listens already.
func (r *rig) pairOn(t *testing.T) (near, far *script) {
	t.Helper()
	if r.again == nil {
		r.next = &script{}
		addr := r.listenFar(func() *script { return r.next })
		r.again = &addr
	}
	near, far = &script{name: "near"}, &script{name: "far"}
	r.next = far
	r.dial(*r.again, near)
	r.until("connection", func() bool { return near.connected && far.c != nil })
	return near, far
}

func TestInputIsNotLostWhenBothDirectionsEnd(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		take := 0
		far.onData = func(in []byte) int {
			n := min(take, len(in))
			far.got = append(far.got, in[:n]...)
			return n
		}
		near.c.Write([]byte("not yet consumed"))
		near.c.CloseWrite()
		r.until("EOF", func() bool { return far.eof })
		far.c.CloseWrite()
		r.settle()
		if far.closes > 0 {
			t.Fatalf("closed with %d bytes that the handler has not consumed", far.c.Unconsumed())
		}
		take = 100
		far.c.Redeliver()
		r.until("both ends", func() bool { return near.isClosed() && far.isClosed() })
		if string(far.got) != "not yet consumed" || far.err != nil {
			t.Errorf("got %q, closed with %v", far.got, far.err)
		}
	})
}

func TestAResetReachesTheOtherEnd(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		if r.listen.IsUnix() {
			t.Skip("unix sockets know no RST")
		}
		near, far := r.pair()
		near.c.Abort()
		r.until("reset", func() bool { return far.isClosed() && near.isClosed() })
		if !errors.Is(far.err, syscall.ECONNRESET) || near.err != nil || far.eof {
			t.Errorf("far closed with %v (EOF %v), near with %v", far.err, far.eof, near.err)
		}
	})
}

func TestWhatWasWrittenArrivesBeforeTheReset(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		near.c.Write([]byte("!")) // a network that cuts may lose what comes in pieces
		near.c.Abort()
		r.until("the end", func() bool { return far.isClosed() || far.eof })
		if string(far.got) != "!" {
			t.Errorf("got %q, closed with %v", far.got, far.err)
		}
	})
}

func TestAResetReachesAPausedConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		if r.listen.IsUnix() {
			t.Skip("unix sockets know no RST")
		}
		near, far := r.pair()
		far.c.Pause()
		near.c.Abort()
		r.until("reset", far.isClosed)
		if !errors.Is(far.err, syscall.ECONNRESET) {
			t.Errorf("closed with %v", far.err)
		}
	})
}

func TestCloseAfterFlushGetsTheLastWordsThrough(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		answer := pattern(300_000)
		far.onData = func(in []byte) int { // refuse the request half-way
			far.c.Write(answer)
			far.c.CloseAfterFlush(5 * time.Second)
			return len(in)
		}
		// The client sends on, deaf, until it has sent all.
		near.c.Pause()
		near.c.Write(pattern(400_000))
		near.c.CloseWrite()
		r.until("request", func() bool { return near.c.Buffered() == 0 })
		near.c.Resume()
		r.until("both ends", func() bool { return near.isClosed() && far.isClosed() })
		if !bytes.Equal(near.got, answer) || !near.eof || near.err != nil || far.err != nil {
			t.Errorf("%d bytes of %d, EOF %v, closed with %v and %v", len(near.got), len(answer), near.eof, near.err, far.err)
		}
	})
}

func TestCloseAfterFlushAfterCloseWriteOnlyDrains(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.c.CloseWrite()
		r.until("FIN", func() bool { return near.eof })
		far.c.Pause() // does not keep the drain from reading
		near.c.Write(pattern(1 << 20))
		r.settle()
		far.c.CloseAfterFlush(5 * time.Second)
		near.c.CloseWrite()
		r.until("both ends", func() bool { return near.isClosed() && far.isClosed() })
		if near.err != nil || far.err != nil || len(far.got) > 0 {
			t.Errorf("closed with %v and %v, OnData was given %d bytes", near.err, far.err, len(far.got))
		}
	})
}

func TestLingeringEndsInTime(t *testing.T) {
	r := simRig(t, 1, hostile)
	near, far := r.pair()
	far.c.Write([]byte("bye"))
	far.c.CloseAfterFlush(time.Second)
	start := r.world.Now()
	r.until("the end of the drain", far.isClosed) // near never closes
	if took := r.world.Now() - start; took < time.Second || took > time.Second+50*time.Millisecond {
		t.Errorf("took %v", took)
	}
	if far.err != nil || !near.eof || string(near.got) != "bye" {
		t.Errorf("closed with %v; near got %q, EOF %v", far.err, near.got, near.eof)
	}
}

func TestLingeringGivesUpOnAPeerThatTakesNothing(t *testing.T) {
	r := simRig(t, 1, hostile)
	near, far := r.pair()
	near.c.Pause()
	far.c.Write(pattern(1 << 20))
	far.c.CloseAfterFlush(time.Second)
	r.until("stall", far.isClosed)
	if far.err != reactor.ErrStalled {
		t.Errorf("closed with %v", far.err)
	}
	if r.world.Now() > 25*time.Second {
		t.Errorf("took %v", r.world.Now())
	}
}

func TestAnAnswerThatCameBeforeTheWriteFailedIsRead(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.onData = func(in []byte) int { // answers early and goes away
			far.c.Write([]byte("413 too large"))
			far.c.CloseWrite()
			far.c.Pause()
			return len(in)
		}
		near.c.Pause()
		near.c.Write([]byte("head"))
		r.until("answer", func() bool { return far.datas > 0 })
		r.settle()
		far.c.Close(nil)
		r.until("close", far.isClosed)
		for range 5 { // the first of them draws a reset
			near.c.Write([]byte("body"))
			r.settle()
		}
		if !near.isClosed() {
			near.c.Resume()
		}
		r.until("close", near.isClosed2)
		if string(near.got) != "413 too large" {
			t.Errorf("got %q, closed with %v", near.got, near.err)
		}
	})
}
