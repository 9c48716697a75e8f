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

// turnOf is how many bytes c may read in its turn. Only turns of connections that were
// accepted are ever short. Those that were dialled are as many as there are requests, and
// what they are not read of fills the kernel's buffers, which costs memory that no limit of
// ours bounds.
func (l *Loop) turnOf(c *Conn) int {
	if c.has(accepted) {
		return l.budget
	}
	return l.config.ReadBudget
}

// timed reports whether it is worth while to time what n bytes cost that c has read.
func (l *Loop) timed(c *Conn, n int) bool {
	return c.has(accepted) && (n >= l.budget || n >= measuredRead)
}

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
