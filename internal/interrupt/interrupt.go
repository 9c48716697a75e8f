// SPDX-License-Identifier: Apache-2.0

// Package interrupt tells the signal that asks a process to end from the second
// one, which asks it to end at once. It takes no signals itself. A Watch belongs to
// one goroutine.
package interrupt

import (
	"os"
	"time"
)

// EchoWithin is how long after the first signal the same one is taken for the same
// request: timeout(1), shells and process managers signal a process and then its
// group, which reaches it twice. Nobody presses Ctrl-C twice as fast by intention.
const EchoWithin = 250 * time.Millisecond

// Meaning is what a signal says.
type Meaning uint8

// The meanings.
const (
	First  Meaning = iota // end in order
	Echo                  // the first again: nothing new
	Second                // end at once
)

// Watch has seen the signals so far; its zero value none.
type Watch struct {
	first os.Signal
	at    time.Time
}

// See says what a signal that came at now means, given those before.
func (w *Watch) See(sig os.Signal, now time.Time) Meaning {
	switch {
	case w.first == nil:
		w.first, w.at = sig, now
		return First
	case sig == w.first && now.Sub(w.at) < EchoWithin:
		return Echo
	}
	return Second
}

// Seen reports whether there was a signal.
func (w *Watch) Seen() bool { return w.first != nil }
