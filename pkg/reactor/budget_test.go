// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
)

// While bytes cost much, a turn has fewer of them, so that who wants little does not wait
// for long; and as many as before when they are cheap again.
func TestATurnOfExpensiveBytesIsShort(t *testing.T) {
	const budget, least = 64 << 10, 4 << 10
	r := simRig(t, 1, sim.Link{Latency: time.Millisecond, Window: 1 << 20})
	near, far := r.pair()
	var cost time.Duration // of 1 000 bytes
	var turns []int        // bytes of each tick
	far.onData = func(in []byte) int {
		r.world.Work(cost * time.Duration(len(in)) / 1000)
		turns[len(turns)-1] += len(in)
		return len(in)
	}
	r.far.OnTick(func() { turns = append(turns, 0) }, nil)
	near.c.SetWatermark(4 << 20)
	// read has the far end read 1 MiB that waits for it, and returns the turns in which it did.
	read := func(price time.Duration) []int {
		t.Helper()
		cost = price
		far.c.Pause()
		before := far.c.ReadBytes()
		near.c.Write(pattern(1 << 20))
		r.settle()
		turns = nil
		far.c.Resume()
		r.until("all of it", func() bool { return far.c.ReadBytes() == before+1<<20 })
		return slices.DeleteFunc(turns, func(n int) bool { return n == 0 })
	}
	for range 2 { // once more, from where the first time has ended
		if cheap := read(0); slices.Max(cheap) != budget {
			t.Errorf("turns of cheap bytes: %v, want some of %d", cheap, budget)
		}
		dear := read(20 * time.Microsecond)
		if settled := dear[5:]; slices.Max(settled) > 16<<10 || slices.Min(settled[:len(settled)-1]) < least {
			t.Errorf("turns of bytes that cost 20 ns: %v", dear)
		}
		if dearest := read(time.Millisecond); slices.Max(dearest[5:]) != least {
			t.Errorf("turns of bytes that cost 1 µs: %v, want them to come down to %d", dearest, least)
		}
	}
}
