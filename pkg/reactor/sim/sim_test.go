// SPDX-License-Identifier: Apache-2.0

package sim_test

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
)

// echo sends back what it gets, with back-pressure.
type echo struct {
	most int
	errs []error
}

func (e *echo) OnAccept(*reactor.Conn) reactor.Handler { return e }
func (e *echo) OnConnect(*reactor.Conn)                {}
func (e *echo) OnData(c *reactor.Conn, in []byte) int {
	c.Write(in)
	e.most = max(e.most, c.Buffered())
	return len(in)
}
func (e *echo) OnEOF(c *reactor.Conn)              { c.CloseWrite() }
func (e *echo) OnHighWater(c *reactor.Conn)        { c.Pause() }
func (e *echo) OnLowWater(c *reactor.Conn)         { c.Resume() }
func (e *echo) OnClose(_ *reactor.Conn, err error) { e.errs = append(e.errs, err) }

func start(t *testing.T, link sim.Link) (*sim.World, *reactor.Loop, *echo, reactor.Addr) {
	t.Helper()
	w := sim.New(1, link)
	l, err := w.NewLoop(reactor.Config{OnPanic: func(v any, stack []byte) { t.Errorf("panic: %v\n%s", v, stack) }})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := reactor.ParseAddr("10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	set, err := reactor.NewSockets(w).Open(addr, 1, reactor.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{}
	if _, err := l.AddListener(set.Socket(0), e); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.StopOffLoop()
		if err := w.Run(time.Second); err != nil {
			t.Error(err)
		}
		set.Release()
	})
	return w, l, e, addr
}

func dial(t *testing.T, w *sim.World, a reactor.Addr) *sim.Peer {
	t.Helper()
	p, err := w.Dial(a)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAnAnswerTakesARoundTrip(t *testing.T) {
	w, _, _, addr := start(t, sim.Link{Latency: 10 * time.Millisecond})
	p := dial(t, w, addr)
	p.Write([]byte("ping"))
	if err := w.RunUntil(time.Second, func() bool { return string(p.Received) == "ping" }); err != nil {
		t.Fatal(err)
	}
	// SYN and its answer, then bytes and theirs.
	if got := w.Now(); got != 40*time.Millisecond {
		t.Errorf("took %v, want 40ms", got)
	}
}

func TestASlowReaderHoldsBackTheLoopAndNotItsMemory(t *testing.T) {
	w, _, e, addr := start(t, sim.Link{Latency: time.Millisecond, Window: 16 << 10})
	p := dial(t, w, addr)
	p.Hold()
	want := bytes.Repeat([]byte("0123456789"), 100_000)
	p.Write(want)
	p.CloseWrite()
	if err := w.Run(time.Second); err != nil {
		t.Fatal(err)
	}
	if p.Unsent() == 0 {
		t.Error("the loop took all, though nobody reads its answers")
	}
	p.LimitReads(1000)
	p.Release()
	if err := w.RunUntil(time.Hour, func() bool { return p.EOF }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.Received, want) {
		t.Errorf("%d bytes of %d came back, or changed", len(p.Received), len(want))
	}
	if e.most > reactor.DefaultWatermark+64<<10 {
		t.Errorf("%d bytes waited in the loop", e.most)
	}
}

func TestALoopMeetsScriptedServers(t *testing.T) {
	w, l, e, _ := start(t, sim.Link{Latency: time.Millisecond})
	upstream, err := reactor.ParseAddr("10.0.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	var seen *sim.Peer
	if err := w.Serve(upstream, func(p *sim.Peer) {
		seen = p
		p.OnData = func(p *sim.Peer, b []byte) {
			if string(b) == "reset" {
				p.Reset()
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Serve(upstream, func(*sim.Peer) {}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("served twice: %v", err)
	}
	c, err := l.Dial(upstream, reactor.DialOptions{}, e)
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("reset"))
	if err := w.RunUntil(time.Second, func() bool { return len(e.errs) > 0 }); err != nil {
		t.Fatal(err)
	}
	if seen == nil || !errors.Is(e.errs[0], syscall.ECONNRESET) {
		t.Errorf("closed with %v", e.errs)
	}
}

func TestResetsReachPeers(t *testing.T) {
	w, l, _, addr := start(t, sim.Link{Latency: time.Millisecond})
	p := dial(t, w, addr)
	p.Write([]byte("x"))
	if err := w.RunUntil(time.Second, func() bool { return len(p.Received) > 0 }); err != nil {
		t.Fatal(err)
	}
	l.StopOffLoop() // with nothing unread, it ends with FIN
	if err := w.RunUntil(time.Second, func() bool { return p.EOF }); err != nil {
		t.Fatal(err)
	}
	p.Write([]byte("anybody there?"))
	if err := w.Run(time.Second); err != nil {
		t.Fatal(err)
	}
	refused := dial(t, w, addr) // waits in the backlog of a loop that has ended
	if err := w.Run(time.Second); err != nil {
		t.Fatal(err)
	}
	if refused.EOF || refused.Err != nil {
		t.Errorf("EOF %v, error %v", refused.EOF, refused.Err)
	}
}

func TestALoopThatSpinsIsFound(t *testing.T) {
	w, l, _, _ := start(t, sim.Link{})
	l.OnTick(l.Again, nil)
	l.WakeOffLoop()
	if err := w.Run(time.Second); !errors.Is(err, sim.ErrSpinning) {
		t.Errorf("error %v", err)
	}
	l.OnTick(nil, nil)
}

func TestAnHourOfTimersTakesNoTime(t *testing.T) {
	w, l, _, _ := start(t, sim.Link{})
	fired := 0
	var timer reactor.Timer
	timer.F = func() {
		fired++
		l.Schedule(&timer, time.Minute)
	}
	l.Schedule(&timer, time.Minute)
	if err := w.Run(time.Hour + time.Second); err != nil {
		t.Fatal(err)
	}
	if fired != 60 && fired != 59 { // each is a ms or so late
		t.Errorf("fired %d times in an hour", fired)
	}
	if l.Wall()-l.Now() != time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano() {
		t.Errorf("wall clock is %v", time.Unix(0, l.Wall()))
	}
}
