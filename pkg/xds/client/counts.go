// SPDX-License-Identifier: Apache-2.0

package client

import (
	"slices"
	"time"
	"unique"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// counts are what has become of a subscription: to a name, or to all of a kind. They are
// what Envoy's statistics of subscriptions count. Each cluster with EDS has one, once
// something has come for it, so it must stay small.
type counts struct {
	accepted, rejected uint32                // responses
	changed            uint32                // of accepted, those that brought something new
	empty              uint32                // of accepted, those that had nothing
	timeouts           uint32                // first responses that were waited for in vain
	since              uint32                // failures of the source before the subscription began
	version            unique.Handle[string] // the last one accepted; zero: none
	// updated and reloaded are when one was accepted last, and one that brought something
	// new, in milliseconds since 1970; 0: never.
	updated, reloaded int64
}

// accept counts a response that was taken.
func (n *counts) accept(changed bool, version unique.Handle[string], now time.Time) {
	n.accepted++
	n.version, n.updated = version, now.UnixMilli()
	if changed {
		n.changed++
		n.reloaded = n.updated
	}
}

// asks reports whether a name is subscribed to.
func (t *typeState) asks(name string) bool {
	_, ok := t.names[name]
	return ok
}

// of are the counts of a name, nil where it is not subscribed to.
func (t *typeState) of(name string) *counts {
	n, ok := t.names[name]
	if ok && n == nil {
		n = new(counts)
		t.names[name] = n
	}
	return n
}

// renew makes the names of a subscription: those that were there before keep their counts.
// same says that they are the names before.
func (s *Stream) renew(before map[string]*counts, list []string) (names map[string]*counts, same bool) {
	names, same = make(map[string]*counts, len(list)), true
	for _, name := range list {
		n, was := before[name]
		if !was {
			same = false
			if s.failures > 0 {
				n = &counts{since: s.failures}
			}
		}
		names[name] = n
	}
	return names, same && len(names) == len(before)
}

// count counts an update for the subscriptions that it is about. changed says that it has
// brought something new. Good resources of a response with bad ones are taken, so only the
// names of the bad ones count it as rejected; all do where it is not known which those are.
func (s *source) count(u *Update, changed bool, now time.Time) {
	t := &s.stream.types[u.Kind]
	var version unique.Handle[string]
	if u.Received != "" {
		version = unique.Make(u.Received)
	}
	if t.wildcard {
		if u.Accepted {
			t.all.accept(changed, version, now)
		} else {
			t.all.rejected++
		}
		return
	}
	for i := range u.Set {
		if n := t.of(u.Set[i].Name); n != nil {
			n.accept(u.Set[i].Resource != nil, version, now)
		}
	}
	for _, name := range u.Removed {
		if n := t.of(name); n != nil {
			n.accept(false, version, now)
			if u.Kind == decode.Endpoints { // a route configuration stays as it is
				n.empty++
			}
		}
	}
	if slices.ContainsFunc(u.Rejected, func(r Rejection) bool { return r.Name == "" }) {
		for name := range t.names { // once, however many there are
			t.of(name).rejected++
		}
	} else {
		seen := make(map[string]bool, len(u.Rejected)) // a name may be bad in more than one way
		for i := range u.Rejected {
			name := u.Rejected[i].Name
			if n := t.of(name); n != nil && !seen[name] {
				n.rejected++
			}
			seen[name] = true
		}
	}
	// On a stream, what a response does not have stays as it is. A file or an answer to a
	// poll that is empty says that there is nothing.
	if u.Accepted && len(u.Set) == 0 && s.polled() {
		for name := range t.names {
			n := t.of(name)
			n.accept(false, version, now)
			n.empty++
		}
	}
}

// polled reports whether the source is read again and again, and not a stream.
func (s *source) polled() bool {
	return s.src.Kind == decode.SourcePath || s.src.Kind == decode.SourceREST
}

// countExpired counts the waits for first responses that have been given up.
func (c *Client) countExpired() {
	for _, n := range c.asm.expired {
		for _, s := range c.sources {
			switch t := &s.stream.types[n.kind]; {
			case t.wildcard && (n.name == "" || n.kind == decode.VirtualHost):
				t.all.timeouts++
			case t.asks(n.name):
				t.of(n.name).timeouts++
			}
		}
	}
	c.asm.expired = nil
}
