// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// However many want more than their share: who wants less goes first, and waits for
// the budget of one.
func TestManyFirehosesWaitBehindOthersAndShareABudget(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		const budget = 64 << 10
		pingNear, pingFar := r.pairOn(t)
		type hose struct {
			c      *reactor.Conn
			turn   int  // bytes of the last tick that brought some
			fresh  bool // none in this tick yet
			greedy bool // as the tick began
		}
		var hoses [8]hose
		read, most, turns, late := 0, 0, 0, 0
		for i := range hoses {
			h := &hoses[i]
			near, far := r.pairOn(t)
			h.c = far.c
			far.onData = func(in []byte) int {
				if h.fresh {
					h.turn, h.fresh = 0, false
				}
				h.turn += len(in)
				if h.greedy {
					read += len(in)
					most = max(most, read)
					turns++
				}
				return len(in)
			}
			near.onLow = func() {
				for !near.c.AboveWatermark() {
					near.c.Write(pattern(32 << 10))
				}
			}
			near.c.SetWatermark(4 << 20)
			near.onLow()
		}
		pingFar.onData = func(in []byte) int {
			if read > 0 {
				late++
			}
			pingFar.c.Write(in)
			return len(in)
		}
		r.far.OnTick(func() {
			read = 0
			for i := range hoses {
				hoses[i].fresh, hoses[i].greedy = true, hoses[i].turn >= budget
			}
		}, nil)
		for range 50 {
			pingNear.got = nil
			pingNear.c.Write([]byte("ping"))
			r.until("pong", func() bool { return string(pingNear.got) == "ping" })
		}
		if most >= 2*budget { // one that begins below it may end beyond
			t.Errorf("greedy connections read %d bytes in a tick, want less than %d", most, 2*budget)
		}
		if late > 0 {
			t.Errorf("%d of 50 pings were read behind them", late)
		}
		if turns == 0 {
			t.Error("the hoses ran dry")
		}
		for i := range hoses {
			before := hoses[i].c.ReadBytes()
			r.until("a turn of each", func() bool { return hoses[i].c.ReadBytes() > before })
		}
	})
}
