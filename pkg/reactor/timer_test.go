// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"math/rand/v2"
	"testing"
	"time"
)

const granularity = time.Duration(1) << wheelShift

func newWheel(now int64) (*wheel, *owner) {
	w, o := &wheel{}, &owner{}
	w.start(now, o)
	return w, o
}

func TestTimersFireAfterTheirTimeAndSoonAfter(t *testing.T) {
	for _, d := range []time.Duration{
		0, 1, time.Microsecond, time.Millisecond, granularity, 63 * granularity, 64 * granularity, 65 * granularity, time.Second,
		time.Minute, time.Hour, 24 * time.Hour, 3000 * time.Hour, 30_000 * time.Hour, -time.Second,
	} {
		for _, start := range []int64{0, 1, 12345678901, int64(63 * granularity), int64(64*granularity) - 1, int64(4096 * granularity)} {
			w, _ := newWheel(start)
			var tm Timer
			w.arm(&tm, start, d)
			now, want := start, start+int64(max(d, 0))
			for rounds := 0; ; rounds++ {
				next, ok := w.deadline()
				if !ok {
					t.Fatalf("%v from %d: no deadline for an armed timer", d, start)
				}
				if rounds > 20 {
					t.Fatalf("%v from %d: still not fired after %d moves", d, start, rounds)
				}
				now = max(now, next)
				if got := w.due(now); got != nil {
					break
				}
			}
			if now < want || now > want+2*int64(granularity) {
				t.Errorf("%v from %d: fired %v off", d, start, time.Duration(now-want))
			}
			if tm.Armed() {
				t.Errorf("%v: armed after it fired", d)
			}
			if _, ok := w.deadline(); ok {
				t.Errorf("%v: a deadline with no timer", d)
			}
		}
	}
}

// The wheel against a sorted list: random timers are armed, re-armed and
// stopped while time moves in random steps.
func TestTheWheelAgreesWithASortedList(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := rng.Int64N(1 << 45)
		w, _ := newWheel(now)
		timers := make([]Timer, 50)
		due := map[*Timer]int64{} // when, in ns
		for range 2000 {
			tm := &timers[rng.IntN(len(timers))]
			switch rng.IntN(4) {
			case 0, 1:
				d := time.Duration(rng.Int64N(1 << (10 + rng.IntN(40))))
				w.arm(tm, now, d)
				due[tm] = now + int64(d)
			case 2:
				tm.Stop()
				delete(due, tm)
			case 3:
				now += rng.Int64N(1 << (10 + rng.IntN(38)))
				checkFired(t, seed, w, now, due)
			}
			if tm.Armed() != (due[tm] != 0) {
				t.Fatalf("seed %d: armed %v, want %v", seed, tm.Armed(), due[tm] != 0)
			}
			checkDeadline(t, seed, w, now, due)
		}
	}
}

func checkFired(t *testing.T, seed uint64, w *wheel, now int64, due map[*Timer]int64) {
	t.Helper()
	last := uint64(0)
	for {
		tm := w.due(now)
		if tm == nil {
			break
		}
		when, ok := due[tm]
		if !ok || when > now {
			t.Fatalf("seed %d: fired at %d what is due at %d (%v)", seed, now, when, ok)
		}
		if tm.when < last {
			t.Fatalf("seed %d: fired out of order", seed)
		}
		last = tm.when
		delete(due, tm)
	}
	for _, when := range due {
		if when+2*int64(granularity) <= now {
			t.Fatalf("seed %d: at %d, what is due at %d has not fired", seed, now, when)
		}
	}
}

func checkDeadline(t *testing.T, seed uint64, w *wheel, now int64, due map[*Timer]int64) {
	t.Helper()
	first := int64(-1)
	for _, when := range due {
		if first < 0 || when < first {
			first = when
		}
	}
	at, ok := w.deadline()
	if ok != (first >= 0) || ok && at > max(first, now)+2*int64(granularity) {
		t.Fatalf("seed %d: deadline %d %v, first timer %d", seed, at, ok, first)
	}
}

func TestTimersOfOneTickFireInTheOrderArmed(t *testing.T) {
	w, _ := newWheel(0)
	timers := make([]Timer, 10)
	for i := range timers {
		w.arm(&timers[i], 0, time.Millisecond)
	}
	for i := range timers {
		if got := w.due(int64(time.Second)); got != &timers[i] {
			t.Fatalf("timer %d did not come as number %d", i, i)
		}
	}
}

func TestATimerStopsAnotherThatIsDueInTheSameTick(t *testing.T) {
	w, _ := newWheel(0)
	var a, b, c Timer
	for _, tm := range []*Timer{&a, &b, &c} {
		w.arm(tm, 0, 100*time.Millisecond)
	}
	now := int64(time.Second)
	if w.due(now) != &a {
		t.Fatal("a is not first")
	}
	b.Stop()
	if w.due(now) != &c || w.due(now) != nil {
		t.Error("the stopped timer fired")
	}
}

func BenchmarkRearmTimer(b *testing.B) {
	w, _ := newWheel(0)
	timers := make([]Timer, 1000)
	b.ReportAllocs()
	for i := range b.N {
		w.arm(&timers[i%len(timers)], int64(i), time.Minute)
	}
}
