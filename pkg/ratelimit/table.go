// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"hash/maphash"
	"sync/atomic"
)

// ways is how many buckets share a place of a large table.
const ways = 32

// Table has a bucket for each key that comes up, all with the same settings, up to a
// bound: the bucket that was used longest ago makes room for a new key. Tables of more
// than 64 keys are divided by the keys' hash into sets, and the bound holds for
// each. Loops share a table without a lock: a set is replaced as a whole when a key
// comes, which is all that allocates.
//
// Of a key only a hash of 128 bits is kept, so that long keys take no more memory than
// short ones. Its seeds are the table's own, so that nobody can foresee which keys share a bucket.
type Table struct {
	// set once
	config Config
	seeds  [2]maphash.Seed
	sets   []tableSet
	limit  int // of keys in a set
}

type tableSet struct {
	entries atomic.Pointer[[]*entry]
}

// entry is a key with its bucket.
type entry struct {
	key    [2]uint64    // its hash; it does not change
	used   atomic.Int64 // when last, monotonic nanoseconds
	bucket Bucket
}

// NewTable makes a table for at most keys keys, rounded up to whole sets; keys is at least 1.
func NewTable(c Config, keys int) *Table {
	t := &Table{config: c, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, limit: keys, sets: make([]tableSet, 1)}
	if keys > 2*ways {
		t.limit, t.sets = ways, make([]tableSet, (keys+ways-1)/ways)
	}
	return t
}

// Bucket returns the bucket of a key, which is not kept. Of a key that was not used
// for long it may be a new one, and full.
func (t *Table) Bucket(key []byte, now int64) *Bucket {
	h := [2]uint64{maphash.Bytes(t.seeds[0], key), maphash.Bytes(t.seeds[1], key)}
	s := &t.sets[h[0]%uint64(len(t.sets))]
	var made *entry
	for {
		old := s.entries.Load()
		var list []*entry
		if old != nil {
			list = *old
		}
		for _, e := range list {
			if e.key == h {
				if e.used.Load() != now {
					e.used.Store(now)
				}
				return &e.bucket
			}
		}
		if made == nil {
			made = &entry{key: h}
			made.used.Store(now)
			made.bucket.init(t.config)
		}
		// Whoever replaces the set first has its entry in; the others look again.
		if next := t.with(list, made); s.entries.CompareAndSwap(old, &next) {
			return &made.bucket
		}
	}
}

// with returns the list with e in it.
func (t *Table) with(list []*entry, e *entry) []*entry {
	next := make([]*entry, len(list), len(list)+1)
	copy(next, list)
	if len(next) < t.limit {
		return append(next, e)
	}
	oldest := 0
	for i := range next {
		if next[i].used.Load() < next[oldest].used.Load() {
			oldest = i
		}
	}
	next[oldest] = e
	return next
}

// Keys is how many keys there are.
func (t *Table) Keys() int {
	n := 0
	for i := range t.sets {
		if l := t.sets[i].entries.Load(); l != nil {
			n += len(*l)
		}
	}
	return n
}
