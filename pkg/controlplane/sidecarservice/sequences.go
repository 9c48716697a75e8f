// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"container/list"
	"sync"
)

// maxSenders bounds the sidecar processes whose last sequence is remembered. The
// one that has been silent longest is forgotten first; should it come back, a
// batch of it may be stored twice, which "at least once" allows.
const maxSenders = 32_768

type senderKey struct{ what, node, boot string }

// sequences remembers the last stored sequence of each sender.
type sequences struct {
	limit int

	mu sync.Mutex
	// Guarded by mu.
	entries map[senderKey]*list.Element
	order   *list.List // of *sequence, the longest silent at the front
}

type sequence struct {
	key  senderKey
	last uint64
}

func newSequences(limit int) *sequences {
	return &sequences{limit: limit, entries: make(map[senderKey]*list.Element), order: list.New()}
}

func (s *sequences) last(key senderKey) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		return e.Value.(*sequence).last
	}
	return 0
}

func (s *sequences) advance(key senderKey, to uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		seq := e.Value.(*sequence)
		seq.last = max(seq.last, to)
		s.order.MoveToBack(e)
		return
	}
	if s.order.Len() == s.limit {
		oldest := s.order.Remove(s.order.Front()).(*sequence)
		delete(s.entries, oldest.key)
	}
	s.entries[key] = s.order.PushBack(&sequence{key, to})
}
