// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"iter"
	"slices"
)

// What a worker does in the order of a map it does in another order each time, and a
// simulation that found something would not find it again.

// fewKeys is how many keys inOrder sorts without an allocation.
const fewKeys = 64

// inOrder iterates over a map by its keys, ascending. The loop's body may change the map:
// it does not see what was added, nor what was removed before its turn.
func inOrder[K cmp.Ordered, V any](m map[K]V) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		var few [fewKeys]K
		keys := few[:0]
		for k := range m {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			if v, ok := m[k]; ok && !yield(k, v) {
				return
			}
		}
	}
}

// roll lists items beside the map that finds them, in an order that depends on nothing
// but when they came and went.
type roll[T placed] []T

// placed is an item of a roll, which keeps its place there.
type placed interface{ place() *int }

func (r *roll[T]) add(v T) {
	*v.place() = len(*r)
	*r = append(*r, v)
}

// remove takes out an item that is there; the last one takes its place.
func (r *roll[T]) remove(v T) {
	list, last := *r, len(*r)-1
	i := *v.place()
	list[i] = list[last]
	*list[i].place() = i
	clear(list[last:])
	*r = list[:last]
}

// each iterates from the last to the first. The loop's body may remove any of them, and
// add some, which it does not see; an item that it has seen may come again if it removes
// another one that it has not.
func (r *roll[T]) each(yield func(T) bool) {
	for i := len(*r) - 1; i >= 0; i-- {
		if i < len(*r) && !yield((*r)[i]) {
			return
		}
	}
}
