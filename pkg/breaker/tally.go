// SPDX-License-Identifier: Apache-2.0

package breaker

import "sync/atomic"

// Origins of what a tally counts.
const (
	external    = iota // a response of the host, or all where nothing is split
	localOrigin        // failures that the host did not send, where they are split
	origins
)

// Tally is what one loop has seen of one host: one writer, so that its counters
// are atomic only for Tick to read. 128 bytes, so that no two loops write to one
// cache line.
type Tally struct {
	host Host
	next *Tally // until Tick has taken it

	// Written by the loop.
	success, failure [origins]atomic.Uint64
	retryAt          atomic.Int64 // before then the host does not want to be asked

	last [origins]rate // at the end of the last interval; guarded by detector.mu
	_    [32]byte
}

// rate is how often a host succeeded and failed.
type rate struct{ success, failure uint64 }

func (r rate) volume() uint64 { return r.success + r.failure }

// percent is the share of successes.
func (r rate) percent() float64 { return float64(r.success) * 100 / float64(r.volume()) }

// Measures reports whether Result, Connected and Local are to be given a tally,
// because rates are measured.
func (o *Outlier) Measures() bool {
	cfg := o.config.Load()
	return cfg != nil && cfg.Rates()
}

// Tally makes the tally of one loop for one host, which the loop keeps as long as
// the host is in its cluster: it calls this once per host, not per request.
func (o *Outlier) Tally(h Host) *Tally {
	t := &Tally{host: h}
	for {
		t.next = o.tallies.Load()
		if o.tallies.CompareAndSwap(t.next, t) {
			return t
		}
	}
}

// RetryAt says that the host has asked to be left alone until then, which matters
// once it is ejected.
func (t *Tally) RetryAt(at int64) {
	if t != nil && at > t.retryAt.Load() {
		t.retryAt.Store(at)
	}
}

func (t *Tally) add(origin int, success bool) {
	switch {
	case t == nil:
	case success: // one writer: no need for an atomic addition
		t.success[origin].Store(t.success[origin].Load() + 1)
	default:
		t.failure[origin].Store(t.failure[origin].Load() + 1)
	}
}

// since is what was counted since the last call.
func (t *Tally) since(origin int) rate {
	now := rate{t.success[origin].Load(), t.failure[origin].Load()}
	d := rate{now.success - t.last[origin].success, now.failure - t.last[origin].failure}
	t.last[origin] = now
	return d
}
