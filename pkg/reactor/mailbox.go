// SPDX-License-Identifier: Apache-2.0

package reactor

import "sync/atomic"

// mailbox is a queue of functions from any goroutine to one loop. Senders push
// on a stack with a compare-and-swap; the loop takes all of it at once and
// turns it round, so that each sender's functions run in the order sent.
type mailbox struct{ head atomic.Pointer[letter] }

type letter struct {
	next *letter
	f    func()
}

// push reports whether the box was empty, so that the sender has to wake the loop.
func (m *mailbox) push(f func()) (first bool) {
	n := &letter{f: f}
	for {
		head := m.head.Load()
		n.next = head
		if m.head.CompareAndSwap(head, n) {
			return head == nil // n is the loop's from here on
		}
	}
}

func (m *mailbox) empty() bool { return m.head.Load() == nil }

// take returns all letters, oldest first.
func (m *mailbox) take() *letter {
	if m.empty() { // a load is cheaper than the swap, and the usual case
		return nil
	}
	var oldest *letter
	for n := m.head.Swap(nil); n != nil; {
		next := n.next
		n.next, oldest = oldest, n
		n = next
	}
	return oldest
}
