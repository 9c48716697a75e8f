// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"bytes"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// A reader that takes nothing is too slow at the bound, and its source brings no more than
// one bounded read; when the bound has gone all goes on.
func TestBoundsKeepWhatWaitsSmall(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		const read, watermark = 1 << 10, 2 << 10
		r.far.SetBounds(reactor.Bounds{Read: read, Watermark: watermark, Relay: -1, Socket: 16 << 10})
		near, far := r.pair()
		far.echo()
		largest := 0
		echo := far.onData
		far.onData = func(in []byte) int {
			largest = max(largest, len(in))
			return echo(in)
		}
		near.c.Pause()
		sent := pattern(1 << 20)
		near.c.Write(sent)
		r.until("the far side to stop", func() bool { return far.high > far.low })
		r.settle()
		if n := far.c.Buffered(); n > watermark+read || largest > read {
			t.Errorf("%d bytes wait, the largest read was %d", n, largest)
		}
		r.far.SetBounds(reactor.Bounds{})
		near.c.Resume()
		r.until("all to come back", func() bool { return len(near.got) == len(sent) })
		if !bytes.Equal(near.got, sent) {
			t.Error("what came back is something else")
		}
	})
}

// What a loop holds is what it has read and not written, with its connections.
func TestALoopTellsWhatItHolds(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.onData = func([]byte) int { return 0 }
		near.c.Write(pattern(5000))
		r.until("the bytes", func() bool { return far.c.Unconsumed() == 5000 })
		if n, conns := r.far.Held(); n != 5000 || conns != 1 {
			t.Errorf("%d bytes and %d connections", n, conns)
		}
		far.onData = func(in []byte) int {
			far.c.Write(in)
			return len(in)
		}
		far.c.Redeliver()
		r.until("them to come back", func() bool { return len(near.got) == 5000 })
		far.c.Close(nil)
		r.until("the end", far.isClosed)
		if n, conns := r.far.Held(); n != 0 || conns != 0 {
			t.Errorf("%d bytes and %d connections in the end", n, conns)
		}
	})
}

// One tick may bring what has come for many connections: the owner is told within it, and
// what it bounds then holds for the rest of the tick.
func TestGrowthIsToldWithinATick(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		const step, all = 4 << 10, 16 << 10
		near, far := r.pair()
		var sizes []int
		told := 0
		far.onData = func(in []byte) int {
			sizes = append(sizes, len(in))
			return 0
		}
		r.far.OnGrowth(step, func() {
			told++
			r.far.SetBounds(reactor.Bounds{Read: 1 << 10})
		})
		r.far.SetBounds(reactor.Bounds{Read: step})
		far.c.Pause()
		near.c.Write(pattern(all))
		r.until("all to be under way", func() bool { return near.c.Buffered() == 0 })
		r.settle()
		far.c.Resume()
		r.until("the bytes", func() bool { return far.c.Unconsumed() == all })
		if told == 0 || len(sizes) < 1+(all-step)/(1<<10) {
			t.Errorf("told %d times, %d reads", told, len(sizes))
		}
	})
}
