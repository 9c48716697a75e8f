// SPDX-License-Identifier: Apache-2.0

package reactor_test

import "testing"

// However many connections one event ends, others wait for a few closes only, and each
// is closed once.
func TestManyClosesLeaveOthersTheirTurn(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		const many, few = 100, 40
		pingNear, pingFar := r.pairOn(t)
		var ends [many]*script
		closed, most, inTick := 0, 0, 0
		for i := range ends {
			_, far := r.pairOn(t)
			far.onClose = func(error) { closed++; inTick++ }
			ends[i] = far
		}
		r.far.OnTick(func() { most, inTick = max(most, inTick), 0 }, nil)
		pingFar.onData = func(in []byte) int {
			if in[0] == '!' {
				for _, e := range ends {
					e.c.Close(nil)
				}
			}
			pingFar.c.Write(in)
			return len(in)
		}
		pingNear.c.Write([]byte("!"))
		r.until("the end of all", func() bool { return string(pingNear.got) == "!" })
		pingNear.c.Write([]byte("ping"))
		r.until("the closes", func() bool { return closed == many })
		r.until("an answer", func() bool { return string(pingNear.got) == "!ping" })
		r.settle()
		if most > few {
			t.Errorf("%d connections closed in a tick, want no more than %d", most, few)
		}
		for i, e := range ends {
			if e.closes != 1 {
				t.Errorf("connection %d closed %d times", i, e.closes)
			}
		}
	})
}
