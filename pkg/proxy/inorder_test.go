// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"
	"testing"
)

func TestInOrderGoesByTheKeysWhateverTheBodyRemoves(t *testing.T) {
	m := map[uint32]int{}
	for i := range uint32(2 * fewKeys) {
		m[7*i%(2*fewKeys)] = int(i)
	}
	var got []uint32
	for k := range inOrder(m) {
		got = append(got, k)
		delete(m, k)
		delete(m, k+1)
		m[k-1] = 0 // behind
	}
	if len(got) != fewKeys || !slices.IsSorted(got) {
		t.Errorf("went by %v", got)
	}
	if n := testing.AllocsPerRun(10, func() {
		for k := range inOrder(map[uint32]bool{1: true, 2: true}) {
			_ = k
		}
	}); n > 0 {
		t.Errorf("a few keys take %v allocations", n)
	}
}

type rolled struct{ at int }

func (r *rolled) place() *int { return &r.at }

func TestARollKeepsItsOrderAndMayChangeInItsLoop(t *testing.T) {
	var r roll[*rolled]
	items := make([]*rolled, 10)
	for i := range items {
		items[i] = &rolled{}
		r.add(items[i])
	}
	seen := map[*rolled]int{}
	for x := range r.each {
		seen[x]++
		switch {
		case x == items[9] && seen[x] == 1: // it takes the place of the first, and so comes again
			r.remove(items[0])
		case x == items[5]:
			r.remove(items[5])
			r.remove(items[4])
			r.add(&rolled{})
		}
	}
	for i, x := range items {
		if want := i != 0 && i != 4; seen[x] > 0 != want {
			t.Errorf("item %d was seen %d times", i, seen[x])
		}
		if want := i != 0 && i != 4 && i != 5; slices.Contains(r, x) != want || want && r[x.at] != x {
			t.Errorf("item %d at %d of %v", i, x.at, r)
		}
	}
	if len(r) != 8 || len(seen) != 8 {
		t.Errorf("%d are left, %d were seen", len(r), len(seen))
	}
}
