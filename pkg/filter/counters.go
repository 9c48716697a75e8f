// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"slices"
	"sync/atomic"
)

// maxSets bounds the names that a kind of filter counts under, those of configurations
// that have gone among them.
const maxSets = 4000

// Counters are the counters of a kind of filter: by name, such as a stat_prefix, and in
// each by worker. They outlive the filters. The zero value is empty. Sets are found
// when filters are made, off the loops; T must be a struct of plain numbers.
type Counters[T any] struct {
	sets atomic.Pointer[[]*CounterSet[T]]
}

// CounterSet are the counters of one name.
type CounterSet[T any] struct {
	Name string
	// Active is a number that all workers keep together, exactly.
	Active  atomic.Int64
	workers atomic.Pointer[[]*T]
}

// Set returns the counters of a name. Names beyond the bound share the counters of the
// first one.
func (c *Counters[T]) Set(name string) *CounterSet[T] {
	var made *CounterSet[T]
	for {
		old := c.sets.Load()
		list := c.All()
		for _, s := range list {
			if s.Name == name {
				return s
			}
		}
		if len(list) >= maxSets {
			return list[0]
		}
		if made == nil {
			made = &CounterSet[T]{Name: name}
		}
		next := append(slices.Clone(list), made)
		if c.sets.CompareAndSwap(old, &next) {
			return made
		}
	}
}

// All are the sets in the order in which they came.
func (c *Counters[T]) All() []*CounterSet[T] {
	if l := c.sets.Load(); l != nil {
		return *l
	}
	return nil
}

// On returns a worker's own counters, which belong to its loop. Once they are made this
// allocates nothing.
func (s *CounterSet[T]) On(worker int) *T {
	for {
		old := s.workers.Load()
		var list []*T
		if old != nil {
			list = *old
		}
		if worker < len(list) {
			return list[worker]
		}
		next := slices.Clone(list)
		for len(next) <= worker {
			next = append(next, new(T))
		}
		s.workers.CompareAndSwap(old, &next)
	}
}
