// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"container/list"
	"errors"
	"slices"
	"sync"
)

// DefaultMaxBytes is the memory that a store may fill when nothing is said.
const DefaultMaxBytes = 64 << 20

// traceShare bounds one trace to that part of the store, so that a runaway trace
// cannot push all others out.
const traceShare = 8

// maxTraceSpans bounds the search for duplicates within one trace.
const maxTraceSpans = 10_000

// Config says how much a store keeps.
type Config struct {
	// MaxBytes bounds the estimated memory of the spans; 0 means DefaultMaxBytes.
	MaxBytes int
	// AutocompleteKeys are the tags whose values Zipkin's search form offers.
	AutocompleteKeys []string
}

// Stats is what a store has seen and holds.
type Stats struct {
	Accepted      uint64 // spans kept when they came
	Duplicates    uint64 // spans that were there already
	Refused       uint64 // spans that were not understood
	Dropped       uint64 // spans beyond the limit of their trace
	EvictedTraces uint64
	EvictedSpans  uint64
	Traces, Spans int
	Bytes         int
}

// Store keeps recent spans by trace.
type Store struct {
	// Set once.
	maxBytes      int
	maxTraceBytes int
	autocomplete  []string

	mu sync.RWMutex
	// Guarded by mu.
	traces   map[string]*trace
	order    *list.List // of *trace, the first to arrive at the front
	services map[string]*service
	values   map[string]map[string]int // autocomplete key → value → spans
	stats    Stats
}

// trace is the spans under one trace id, in the order of arrival.
type trace struct {
	id    string
	spans []*Span
	bytes int
	place *list.Element
}

// service counts the spans that bring a name into the lists of Zipkin's search
// form, so that the name leaves with the last of them.
type service struct {
	spans   int
	names   map[string]int
	remotes map[string]int
}

// NewStore makes an empty store.
func NewStore(c Config) (*Store, error) {
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.MaxBytes < 4096 {
		return nil, errors.New("span store: maxBytes: want at least 4096")
	}
	keys := slices.Clone(c.AutocompleteKeys)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	s := &Store{
		maxBytes:      c.MaxBytes,
		maxTraceBytes: c.MaxBytes / traceShare,
		autocomplete:  keys,
		traces:        make(map[string]*trace),
		order:         list.New(),
		services:      make(map[string]*service),
		values:        make(map[string]map[string]int, len(keys)),
	}
	for _, k := range keys {
		s.values[k] = make(map[string]int)
	}
	return s, nil
}

// Add keeps the spans, and forgets the oldest traces where room is needed.
func (s *Store) Add(list []*Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range list {
		s.add(span)
	}
	for s.stats.Bytes > s.maxBytes {
		s.evict(s.order.Front().Value.(*trace))
	}
}

// AddEncoded keeps spans that are each a Zipkin version 2 JSON object, and
// returns how many of them were not understood. The good ones are kept.
func (s *Store) AddEncoded(encoded [][]byte) (refused int) {
	good := make([]*Span, 0, len(encoded))
	for _, e := range encoded {
		span, err := DecodeSpan(e)
		if err != nil {
			refused++
			continue
		}
		good = append(good, span)
	}
	s.Add(good)
	s.refuse(refused)
	return refused
}

// Stats returns a copy of the counters.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.stats
}

func (s *Store) refuse(n int) {
	s.mu.Lock()
	s.stats.Refused += uint64(n)
	s.mu.Unlock()
}

func (s *Store) add(span *Span) {
	cost := span.cost()
	t := s.traces[span.TraceID]
	if t == nil {
		if cost > s.maxTraceBytes {
			s.stats.Dropped++
			return
		}
		t = &trace{id: span.TraceID}
		t.place = s.order.PushBack(t)
		s.traces[t.id] = t
		s.stats.Traces++
	} else {
		if slices.ContainsFunc(t.spans, span.equal) {
			s.stats.Duplicates++
			return
		}
		if t.bytes+cost > s.maxTraceBytes || len(t.spans) == maxTraceSpans {
			s.stats.Dropped++
			return
		}
	}
	t.spans = append(t.spans, span)
	t.bytes += cost
	s.stats.Bytes += cost
	s.stats.Spans++
	s.stats.Accepted++
	s.index(span, 1)
}

func (s *Store) evict(t *trace) {
	for _, span := range t.spans {
		s.index(span, -1)
	}
	s.order.Remove(t.place)
	delete(s.traces, t.id)
	s.stats.Bytes -= t.bytes
	s.stats.Spans -= len(t.spans)
	s.stats.Traces--
	s.stats.EvictedTraces++
	s.stats.EvictedSpans += uint64(len(t.spans))
}

// index adds delta to the counts of every name that the span carries.
func (s *Store) index(span *Span, delta int) {
	for key, values := range s.values {
		if v, ok := span.Tag(key); ok {
			count(values, v, delta)
		}
	}
	name := span.Local.ServiceName
	if name == "" {
		return
	}
	svc := s.services[name]
	if svc == nil {
		svc = &service{names: make(map[string]int), remotes: make(map[string]int)}
		s.services[name] = svc
	}
	svc.spans += delta
	if span.Name != "" {
		count(svc.names, span.Name, delta)
	}
	if span.Remote.ServiceName != "" {
		count(svc.remotes, span.Remote.ServiceName, delta)
	}
	if svc.spans == 0 {
		delete(s.services, name)
	}
}

func count(m map[string]int, key string, delta int) {
	if m[key] += delta; m[key] == 0 {
		delete(m, key)
	}
}
