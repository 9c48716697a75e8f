// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
)

func TestATickGoesInOrder(t *testing.T) {
	r := kernelRig(t, "127.0.0.1:0")
	near, far := r.pairOn(t)
	otherNear, otherFar := r.pairOn(t)
	r.settle()
	var order []string
	say := func(s string) func() { return func() { order = append(order, s) } }
	var timer reactor.Timer
	timer.F = say("timer")
	far.onData = func(in []byte) int {
		say("data")()
		far.c.Close(nil)
		return len(in)
	}
	far.onClose = func(error) {
		say("close")()
		otherFar.c.Write([]byte(", bye"))
	}
	r.far.Schedule(&timer, 0)
	r.far.PostOffLoop(say("post"))
	near.c.Write([]byte("x"))
	start := r.near.Now()
	for r.near.Now()-start < int64(5*time.Millisecond) { // the timer is due then
		r.near.Tick(time.Millisecond)
	}
	r.far.OnTick(say("begin"), func() {
		say("end")()
		otherFar.c.Write([]byte("end hook"))
	})
	r.far.Tick(0)
	r.far.OnTick(nil, nil)
	want := []string{"begin", "data", "post", "timer", "end", "close"}
	if !slices.Equal(order, want) {
		t.Errorf("a tick went %v, want %v", order, want)
	}
	// All that was written in the tick has left in it.
	if got := otherFar.c.Buffered(); got != 0 {
		t.Errorf("%d bytes wait after the tick", got)
	}
	r.until("bytes", func() bool { return string(otherNear.got) == "end hook, bye" })
}

func TestAgainKeepsALoopFromSleeping(t *testing.T) {
	r := kernelRig(t, "127.0.0.1:0")
	r.near.Tick(0)
	r.near.Again()
	start := time.Now()
	r.near.Tick(time.Minute)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("slept for %v", took)
	}
	if at, ok := r.near.Due(); ok {
		t.Errorf("more to do at %d", at)
	}
	if wall := time.Unix(0, r.near.Wall()); time.Since(wall).Abs() > time.Minute {
		t.Errorf("wall clock is %v", wall)
	}
}

func TestAnotherHandlerTakesOver(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		successor := &script{c: far.c}
		far.onData = func(in []byte) int { // a protocol switch in the middle of the input
			n := len(in)
			if i := bytes.IndexByte(in, '|'); i >= 0 {
				n = i + 1
				far.c.SetHandler(successor)
				far.c.Redeliver()
			}
			far.got = append(far.got, in[:n]...)
			return n
		}
		near.c.Write([]byte("old|new"))
		r.until("rest", func() bool { return string(successor.got) == "new" })
		if string(far.got) != "old|" || far.c.Handler() != successor {
			t.Errorf("the first handler got %q", far.got)
		}
		near.c.Close(nil)
		r.until("close", successor.isClosed2)
		if far.closes > 0 || far.eof {
			t.Error("the first handler was told of the end")
		}
	})
}

func TestPostedFunctionsRunInTheOrderOfTheirSender(t *testing.T) {
	l := runLoop(t, reactor.Config{})
	const senders, each = 8, 1000
	got := make([][]int, senders)
	var wait sync.WaitGroup
	for s := range senders {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range each {
				l.PostOffLoop(func() { got[s] = append(got[s], i) })
			}
		}()
	}
	wait.Wait()
	done := make(chan struct{})
	l.PostOffLoop(func() { close(done) })
	<-done
	for s := range senders {
		if len(got[s]) != each || !slices.IsSorted(got[s]) {
			t.Errorf("sender %d: %d functions ran, in order %v", s, len(got[s]), slices.IsSorted(got[s]))
		}
	}
}

// runLoop runs a loop of the kernel in a goroutine until the test ends.
func runLoop(t *testing.T, c reactor.Config) *reactor.Loop {
	t.Helper()
	l, err := reactor.NewLoop(c)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	t.Cleanup(func() {
		l.StopOffLoop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the loop does not end")
		}
	})
	return l
}

func TestAPostWakesASleepingLoopAndTimersRunOnIt(t *testing.T) {
	l := runLoop(t, reactor.Config{})
	for range 200 { // now and then the post meets the loop on its way to sleep
		done := make(chan time.Duration)
		l.PostOffLoop(func() {
			start := l.Now()
			timer := &reactor.Timer{}
			timer.F = func() { done <- time.Duration(l.Now() - start) }
			l.Schedule(timer, 2*time.Millisecond)
		})
		if took := <-done; took < 2*time.Millisecond {
			t.Fatalf("fired after %v", took)
		}
	}
}

func TestPostsToAStoppedLoopAreHarmless(t *testing.T) {
	l, err := reactor.NewLoop(reactor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ran := false
	l.PostOffLoop(func() { ran = true })
	l.StopOffLoop()
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if !ran {
		t.Error("what was posted before the stop did not run")
	}
	l.PostOffLoop(func() { t.Error("ran after the stop") })
	l.WakeOffLoop()
	l.StopOffLoop()
	if l.Tick(0) {
		t.Error("a stopped loop ticks")
	}
}

func TestCountersReachOtherGoroutinesThoughTheLoopFallsAsleep(t *testing.T) {
	l := runLoop(t, reactor.Config{})
	l.PostOffLoop(func() {})
	l.PostOffLoop(func() {})
	deadline := time.Now().Add(5 * time.Second)
	for l.StatsOffLoop().Posted != 2 {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", l.StatsOffLoop())
		}
	}
	// And then it sleeps: a loop with nothing to do does not tick.
	r := simRig(t, 1, sim.Link{})
	r.pair()
	r.settle()
	before := r.far.Stats().Ticks
	if err := r.world.Run(time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := r.far.Stats().Ticks - before; n > 3 {
		t.Errorf("an idle loop ticked %d times in an hour", n)
	}
}

func TestAPanicEndsOneConnectionOnly(t *testing.T) {
	boom := func() { panic("boom") }
	for _, test := range []struct {
		name string
		arm  func(r *rig, far *script)
		err  error // of the victim; nil: it lives
	}{
		{"in OnData", func(_ *rig, s *script) { s.onData = func([]byte) int { panic("boom") } }, reactor.ErrPanic},
		{"OnData consumes too much", func(_ *rig, s *script) { s.onData = func(in []byte) int { return len(in) + 1 } }, reactor.ErrPanic},
		{"in OnEOF", func(_ *rig, s *script) { s.onEOF = boom }, reactor.ErrPanic},
		{"in OnData, then OnClose", func(_ *rig, s *script) {
			s.onData = func([]byte) int { panic("boom") }
			s.onClose = func(error) { panic("boom again") }
		}, reactor.ErrPanic},
		{"in OnHighWater", func(_ *rig, s *script) {
			s.onHigh = boom
			s.onData = func(in []byte) int {
				s.c.SetWatermark(1)
				s.c.Write(make([]byte, 100))
				s.c.Write(pattern(16 << 20))
				return len(in)
			}
		}, reactor.ErrPanic},
		{"in a posted function", func(r *rig, _ *script) { r.far.PostOffLoop(boom) }, nil},
		{"in a timer", func(r *rig, _ *script) {
			r.far.Schedule(&reactor.Timer{F: boom}, time.Millisecond)
		}, nil},
		{"in a hook", func(r *rig, _ *script) {
			once := boom
			r.far.OnTick(nil, func() {
				f := once
				once = func() {}
				f()
			})
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, r *rig) {
				near, far := r.pairOn(t)
				otherNear, otherFar := r.pairOn(t)
				otherFar.echo()
				test.arm(r, far)
				ran := false
				r.far.PostOffLoop(func() { ran = true })
				otherNear.c.Write([]byte("alive"))
				near.c.Write([]byte("x"))
				near.c.CloseWrite()
				r.until("panic", func() bool { return len(r.panics) > 0 })
				r.until("others", func() bool { return string(otherNear.got) == "alive" && ran })
				if test.err != nil {
					r.until("close", far.isClosed)
				}
				r.settle()
				if far.closes > 0 != (test.err != nil) || !errors.Is(far.err, test.err) || far.closes > 1 {
					t.Errorf("OnClose %d times with %v", far.closes, far.err)
				}
				if got := r.far.Stats().Panics; got != uint64(len(r.panics)) {
					t.Errorf("%d panics counted, %d reported", got, len(r.panics))
				}
			})
		})
	}
}

func TestAPanicInOnAcceptEndsThatConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		n := 0
		addr := r.listenFar(func() *script {
			if n++; n == 1 {
				panic("boom")
			}
			return (&script{}).echo()
		})
		first, second := &script{}, &script{}
		r.dial(addr, first)
		r.until("close", first.isClosed2)
		r.dial(addr, second)
		second.c.Write([]byte("hi"))
		r.until("echo", func() bool { return string(second.got) == "hi" })
	})
}

func TestAConnectionThatNobodyWantsIsClosed(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		addr := r.listenFar(func() *script { return nil })
		s := &script{}
		r.dial(addr, s)
		r.until("close", s.isClosed2)
	})
}

func TestAFirehoseLeavesOthersTheirTurn(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		hoseNear, hoseFar := r.pairOn(t)
		pingNear, pingFar := r.pairOn(t)
		pingFar.echo()
		longest, run := 0, 0
		hoseFar.onData = func(in []byte) int {
			run += len(in)
			longest = max(longest, run)
			return len(in)
		}
		r.far.OnTick(func() { run = 0 }, nil)
		hose := func() {
			for !hoseNear.c.AboveWatermark() {
				hoseNear.c.Write(pattern(32 << 10))
			}
		}
		hoseNear.c.SetWatermark(4 << 20)
		hoseNear.onLow = hose
		hose()
		for range 50 {
			pingNear.got = nil
			pingNear.c.Write([]byte("ping"))
			r.until("pong", func() bool { return string(pingNear.got) == "ping" })
		}
		if limit := 64<<10 + 64<<10; longest > limit {
			t.Errorf("one connection read %d bytes in a tick, want at most %d", longest, limit)
		}
		if hoseFar.c.ReadBytes() == 0 {
			t.Error("the hose ran dry")
		}
	})
}

func TestAnEndlessWriterLeavesOthersTheirTurn(t *testing.T) {
	r := kernelRig(t, "127.0.0.1:0")
	near, far := r.pairOn(t)
	chunk := pattern(8 << 10)
	near.c.SetWatermark(1 << 10)
	written, ticks := 0, r.near.Stats().Ticks
	near.onLow = func() {
		// The reader keeps up, within the very flush.
		r.far.Tick(0)
		written += len(chunk)
		if written > 64<<20 {
			t.Fatal("one tick wrote without end")
		}
		for !near.c.AboveWatermark() {
			near.c.Write(chunk)
		}
	}
	far.onData = func(in []byte) int { return len(in) }
	r.near.PostOffLoop(func() {
		for !near.c.AboveWatermark() {
			near.c.Write(chunk)
		}
	})
	// When it is writable again is the kernel's choice.
	for i := 0; i < 20 || written == 0 && i < 100_000; i++ {
		r.near.Tick(0)
		r.far.Tick(0)
	}
	if got := r.near.Stats().Ticks - ticks; got < 20 || written == 0 {
		t.Errorf("%d ticks, %d bytes written on low water", got, written)
	}
}

func TestEventsOfAClosedDescriptorDoNotReachItsSuccessor(t *testing.T) {
	// Both connections have events in the same tick. The first to run closes
	// the other and dials, which takes the lowest free descriptor and slot.
	for seed := range uint64(20) {
		r := simRig(t, seed, sim.Link{})
		aNear, aFar := r.pairOn(t)
		bNear, bFar := r.pairOn(t)
		heir := &script{}
		swap := func(other *script) func([]byte) int {
			return func(in []byte) int {
				if heir.c == nil {
					other.c.Close(nil)
					heir.c, _ = r.far.Dial(*r.again, reactor.DialOptions{}, heir)
				}
				return len(in)
			}
		}
		aFar.onData, bFar.onData = swap(bFar), swap(aFar)
		r.next = &script{}
		aNear.c.Write([]byte("a"))
		bNear.c.Write([]byte("b"))
		r.until("successor", func() bool { return heir.connected })
		r.settle()
		if heir.datas > 0 || heir.closes > 0 || aFar.closes+bFar.closes != 1 {
			t.Fatalf("seed %d: the successor got %d OnData and %d OnClose", seed, heir.datas, heir.closes)
		}
	}
}

func TestARunWithOneSeedIsTheSameEachTime(t *testing.T) {
	run := func(seed uint64) (uint64, time.Duration) {
		r := simRig(t, seed, hostile)
		near, far := r.pair()
		far.echo()
		near.c.Write(pattern(200_000))
		r.until("echo", func() bool { return len(near.got) == 200_000 })
		return r.world.Digest(), r.world.Now()
	}
	one, oneTime := run(7)
	two, twoTime := run(7)
	other, _ := run(8)
	if one != two || oneTime != twoTime {
		t.Errorf("digest %x after %v, then %x after %v", one, oneTime, two, twoTime)
	}
	if one == other {
		t.Error("another seed made no difference")
	}
}

func TestListenersRestWhenDescriptorsRunOut(t *testing.T) {
	r := simRig(t, 1, sim.Link{Latency: time.Millisecond})
	var held []*script
	addr := r.listenFar(func() *script {
		s := (&script{}).echo()
		held = append(held, s)
		return s
	})
	first := &script{}
	r.dial(addr, first)
	r.until("first", func() bool { return len(held) == 1 })
	r.world.SetFDLimit(r.world.OpenFDs() + 1) // one more, which the dial takes
	second := &script{}
	r.dial(addr, second)
	second.c.Write([]byte("hi"))
	start := r.far.Stats().Ticks
	if err := r.world.Run(50 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	s := r.far.Stats()
	if s.AcceptErrors != 1 || s.Ticks-start > 5 {
		t.Errorf("%d accept errors in %d ticks, want 1 in a few", s.AcceptErrors, s.Ticks-start)
	}
	// A close on the loop frees one: accepting goes on at once.
	held[0].c.Close(nil)
	r.until("second", func() bool { return string(second.got) == "hi" })
	if r.world.Now() > 100*time.Millisecond {
		t.Errorf("waited until %v", r.world.Now())
	}
	// With none freed, peers are refused after the rest, and are not left hanging.
	r.until("first end", func() bool { return first.isClosed2() })
	r.world.SetFDLimit(r.world.OpenFDs() + 1)
	third := &script{}
	r.dial(addr, third)
	r.until("refusal", third.isClosed2)
	if got := r.far.Stats().Shed; got != 1 {
		t.Errorf("%d connections shed, want 1", got)
	}
	r.world.SetFDLimit(1 << 20)
	fourth := &script{}
	r.dial(addr, fourth)
	fourth.c.Write([]byte("again"))
	r.until("recovery", func() bool { return string(fourth.got) == "again" })
}

func TestADialWithoutDescriptorsIsToldLater(t *testing.T) {
	r := simRig(t, 1, sim.Link{})
	r.world.SetFDLimit(0)
	s := &script{}
	r.dial(mustAddr(t, "127.0.0.1:1"), s)
	r.until("error", s.isClosed)
	if !errors.Is(s.err, syscall.EMFILE) {
		t.Errorf("closed with %v", s.err)
	}
}
