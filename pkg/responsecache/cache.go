// SPDX-License-Identifier: Apache-2.0

package responsecache

import (
	"bytes"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// Bounds.
const (
	// MaxBytes is the most that answers take which are kept, by their bytes and a share
	// for what holds them.
	MaxBytes = 6 << 20
	// MaxDraftBytes is the most that answers take which are still coming, by what has come
	// of them.
	MaxDraftBytes = 2 << 20
	// MaxAge is how long an answer is kept at most.
	MaxAge = 24 * time.Hour
	// renewAfter is how old an answer has to be before it is replaced by a newer one: the
	// copies would cost more than they are worth.
	renewAfter = time.Second
	buckets    = 1024 // a power of two
	ways       = 4    // variants of a URI are in one bucket, with others by chance
	// entryBytes and fieldBytes are what an entry costs beside its bytes.
	entryBytes = 512
	fieldBytes = 24
)

// Cache keeps answers. It is for loops; see the package's doc.
type Cache struct {
	seed    maphash.Seed
	table   [buckets][ways]atomic.Pointer[entry]
	bytes   atomic.Int64
	drafts  atomic.Int64 // bytes that they take
	hand    atomic.Uint32
	entries atomic.Int64
	counts  [counters]atomic.Uint64
	sweep   int // the bucket that ExpireOffLoop looks at next; its caller's
}

const (
	stored = iota
	evicted
	served
	missed
	refused
	counters
)

// New returns an empty cache.
func New() *Cache { return &Cache{seed: maphash.MakeSeed()} }

// Stats are what the cache holds, and what it has done so far.
type Stats struct {
	Entries, Bytes                           int64
	Stored, Evicted, Refused, Served, Missed uint64
}

// StatsOffLoop returns them. Any goroutine may call it.
func (c *Cache) StatsOffLoop() Stats {
	return Stats{c.entries.Load(), c.bytes.Load(), c.counts[stored].Load(), c.counts[evicted].Load(), c.counts[refused].Load(), c.counts[served].Load(), c.counts[missed].Load()}
}

// Empty reports whether there is no answer.
func (c *Cache) Empty() bool { return c.entries.Load() == 0 }

// ExpireOffLoop drops what is older than MaxAge of a few buckets, of all in the course of
// some hundred calls. They must not overlap.
func (c *Cache) ExpireOffLoop(now int64) {
	if c.Empty() {
		return
	}
	for range 8 {
		b := &c.table[c.sweep&(buckets-1)]
		c.sweep++
		for i := range b {
			if e := b[i].Load(); e != nil && now-e.storedAt > int64(MaxAge) && b[i].CompareAndSwap(e, nil) {
				c.dropped(e)
			}
		}
	}
}

// AppendKey appends what a request is known by: scheme, authority and path with query.
func AppendKey(dst []byte, scheme []byte, h *codec.RequestHead) []byte {
	at := len(dst)
	dst = append(append(dst, scheme...), 0)
	dst = append(append(dst, h.Authority()...), 0)
	for i := at; i < len(dst); i++ {
		if c := dst[i]; c >= 'A' && c <= 'Z' {
			dst[i] = c + 'a' - 'A'
		}
	}
	return append(dst, h.Path()...)
}

func (c *Cache) bucket(key []byte) *[ways]atomic.Pointer[entry] {
	return &c.table[maphash.Bytes(c.seed, key)&(buckets-1)]
}

// Find returns the last answer to a request that owner's answers are kept for. What is
// older than maxAge is none, and what RFC 9111 forbids to use stale is none once it is.
func (c *Cache) Find(owner string, key []byte, req *codec.RequestHead, now int64, maxAge time.Duration) (Found, bool) {
	f, ok := c.find(owner, key, req, now, maxAge)
	if ok {
		c.counts[served].Add(1)
	} else {
		c.counts[missed].Add(1)
	}
	return f, ok
}

func (c *Cache) find(owner string, key []byte, req *codec.RequestHead, now int64, maxAge time.Duration) (f Found, ok bool) {
	if !Usable(req) || req.Get("if-match") != nil || req.Get("if-unmodified-since") != nil || req.Get("if-range") != nil {
		return f, false
	}
	asked := read(&req.Header)
	if asked.noCache || asked.noStore || !asked.any && req.Get("pragma") != nil {
		return f, false
	}
	e := c.newest(owner, key, req)
	if e == nil {
		return f, false
	}
	return e.usable(&asked, now, maxAge)
}

// newest returns the answer that is kept for a request; nil: none.
func (c *Cache) newest(owner string, key []byte, req *codec.RequestHead) (found *entry) {
	var space [256]byte
	scratch := space[:0]
	b := c.bucket(key)
	for i := range b {
		e := b[i].Load()
		if e == nil || e.owner != owner || !bytes.Equal(e.key, key) || found != nil && found.storedAt >= e.storedAt {
			continue
		}
		var ok bool
		if scratch, ok = e.answers(req, scratch); ok {
			found = e
		}
	}
	return found
}

// Forget drops all answers of a URI, whoever's they are.
func (c *Cache) Forget(key []byte) {
	b := c.bucket(key)
	for i := range b {
		if e := b[i].Load(); e != nil && bytes.Equal(e.key, key) && b[i].CompareAndSwap(e, nil) {
			c.dropped(e)
		}
	}
}

func (c *Cache) dropped(e *entry) {
	c.bytes.Add(-e.size)
	c.entries.Add(-1)
}

// put keeps an entry, in place of the one that it is newer than.
func (c *Cache) put(e *entry) {
	if c.bytes.Add(e.size); !c.makeRoom() {
		c.bytes.Add(-e.size)
		c.counts[refused].Add(1)
		return
	}
	b := c.bucket(e.key)
	at, oldest := 0, int64(1<<63-1)
	for i := range b {
		o := b[i].Load()
		if o == nil {
			if oldest >= 0 {
				at, oldest = i, -1 // unless its like is in another place
			}
			continue
		}
		if o.owner == e.owner && bytes.Equal(o.key, e.key) && bytes.Equal(o.vary, e.vary) {
			at = i
			break
		}
		if o.storedAt < oldest {
			at, oldest = i, o.storedAt
		}
	}
	c.entries.Add(1)
	c.counts[stored].Add(1)
	if old := b[at].Swap(e); old != nil {
		c.dropped(old)
	}
}

// makeRoom drops what a hand that goes round meets, until the cache is within its bound.
func (c *Cache) makeRoom() bool {
	for range buckets {
		if c.bytes.Load() <= MaxBytes {
			return true
		}
		b := &c.table[c.hand.Add(1)&(buckets-1)]
		for i := range b {
			if e := b[i].Swap(nil); e != nil {
				c.dropped(e)
				c.counts[evicted].Add(1)
			}
		}
	}
	return c.bytes.Load() <= MaxBytes
}
