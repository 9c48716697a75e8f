// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"
	"time"
)

const (
	// freeKept is how many items a free list may keep for ever.
	freeKept = 64
	// trimEvery is how long a list keeps what a burst needed.
	trimEvery = 10 * time.Second
)

// freeList holds items of one worker that are used over and over. It never has
// more of them than were in use at once, so a steady load allocates nothing
// however many connections carry it; trim gives back what the load of the last
// while did not need.
type freeList[T any] struct {
	items []*T
	used  int // handed out
	peak  int // most that were handed out since the last trim
}

// take returns an item, nil where a new one has to be made.
func (f *freeList[T]) take() *T {
	f.used++
	f.peak = max(f.peak, f.used)
	n := len(f.items) - 1
	if n < 0 {
		return nil
	}
	x := f.items[n]
	f.items[n] = nil
	f.items = f.items[:n]
	return x
}

// give takes an item back. It reports whether the list now has more than it may
// keep for ever, so that it has to be trimmed some time.
func (f *freeList[T]) give(x *T) bool {
	f.used--
	f.items = append(f.items, x)
	return len(f.items) > freeKept
}

// trim calls release for each item that was not needed since the last trim and
// forgets it. It reports whether there may be more to let go of next time.
func (f *freeList[T]) trim(release func(*T)) bool {
	keep := max(f.peak-f.used, freeKept)
	f.peak = f.used
	if len(f.items) > keep {
		for _, x := range f.items[keep:] {
			release(x)
		}
		f.items = slices.Clone(f.items[:keep]) // the array of a burst goes too
	}
	return len(f.items) > freeKept
}
