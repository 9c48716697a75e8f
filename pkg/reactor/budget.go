// SPDX-License-Identifier: Apache-2.0

package reactor

import "time"

const (
	// longTurn is how long the bytes of one turn may keep everybody else waiting before
	// the loop lets turns be shorter. What a connection sends in good faith costs 0.3 to
	// 1 ns a byte, 64 KiB of it a few tens of microseconds; the frames of a flood cost 8
	// to 20 ns a byte, 64 KiB of them more than a millisecond.
	longTurn = 128 * time.Microsecond
	// leastBudget bounds how short turns become.
	leastBudget = 4 << 10
	// measuredRead is the size from which a read is timed though it is shorter than a
	// turn: two looks at the clock are little beside it.
	measuredRead = 24 << 10
)

// timed reports whether it is worth while to time what n bytes that were read cost.
func (l *Loop) timed(n int) bool { return n >= l.budget || n >= measuredRead }

// delivered adapts the budget of a turn to what the bytes of one have cost: it is
// halved quickly and grows slowly, up to Config.ReadBudget.
func (l *Loop) delivered(took time.Duration) {
	switch {
	case took > longTurn:
		l.budget = max(l.budget/2, min(leastBudget, l.config.ReadBudget))
	case took < longTurn/4:
		l.budget = min(l.budget+l.budget/8+1, l.config.ReadBudget)
	}
}
