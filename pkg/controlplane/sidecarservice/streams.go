// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"fmt"
	"sync"
)

// What a stream uploads.
const (
	uploadTap    = "tap"
	uploadSpans  = "spans"
	uploadEvents = "events"
	watchBundle  = "bundle" // a download, counted with them
)

// Bounds on the streams of one kind. A sidecar has one; those of broken connections
// linger until keepalive ends them. A caller, which is a service or a token at an
// address, or an address, has as many as sidecars on that host might: it invents the
// names of nodes.
const (
	maxNodeStreams   = 8
	maxCallerStreams = 512
)

// place is what an open stream takes: one of a node, and one of a caller.
type place struct{ what, account, node string }

// placeOf is the place of a caller's stream. Who is on this host is bounded by node
// only: it is no stranger, and a host may run any number of sidecars.
func placeOf(what string, c Caller, node string) place {
	if c.Means == ByHost {
		return place{what: what, node: node}
	}
	return place{what, c.account(), node}
}

// streams counts the open streams. The zero value is ready.
type streams struct {
	mu sync.Mutex
	// Guarded by mu. The places of callers have no node.
	counts map[place]int
}

// enter takes a place, or says which bound is reached.
func (s *streams) enter(p place) error {
	caller := place{p.what, p.account, ""}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts[p] >= maxNodeStreams {
		return fmt.Errorf("%d streams of this node are open, that is the limit", maxNodeStreams)
	}
	if p.account != "" && s.counts[caller] >= maxCallerStreams {
		return fmt.Errorf("%d streams of this caller are open, that is the limit", maxCallerStreams)
	}
	if s.counts == nil {
		s.counts = make(map[place]int)
	}
	s.counts[p]++
	s.counts[caller]++
	return nil
}

func (s *streams) leave(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range [...]place{p, {p.what, p.account, ""}} {
		if s.counts[p]--; s.counts[p] == 0 {
			delete(s.counts, p)
		}
	}
}

func (s *streams) open(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for p, count := range s.counts {
		if p.what == what && p.node == "" {
			n += count
		}
	}
	return n
}
