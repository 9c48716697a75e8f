// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"math/bits"
	"slices"
)

// edf schedules by earliest deadline first: a host's next turn comes one step
// after its last, a step being inverse to its weight. Turns of hosts interleave
// evenly, and weights may change at any turn.
//
// What a host waits is rounded down to a power of two, and what that makes its turn
// too early is added to its next step: shares are exact in the long run, and no gap
// is longer than two steps. All that wait equally long form a queue, first in, first
// out, which has the earliest of them in front: a pick compares the fronts, no more
// than there are powers of two, and touches two hosts, whatever the number of hosts
// and however their weights differ. Source of the classes: Ramabhadran and Pasquale,
// "Stratified Round Robin".
type edf struct {
	turns  []turn // by host
	queues []queue
	used   uint64 // which queues have hosts
	now    uint64 // deadline of the last turn; wraps as all deadlines do
	lowest int    // log2 of what hosts in queues[1] wait; queues[0] is of first turns
	top    int    // queue of the host whose turn it is
}

type turn struct {
	deadline uint64 // wraps; compared by difference
	early    uint32 // by this part of the wait, in 2^-32, the turn is too early
	next     uint32 // host behind in the queue
}

// queue is a list of hosts, which is empty where its bit of used is not set.
type queue struct {
	deadline    uint64 // of the first
	first, last uint32
}

// stepOfOne is the step of weight 1: steps of the largest weights stay distinct.
const stepOfOne = 1 << 40

// maxStep bounds steps that are inflated by requests in flight or by slow start:
// waits of up to two steps span less than half of the range of a uint64.
const maxStep = 1 << 61

// spareQueues are for steps that grow by requests in flight: more memory is needed
// only when hosts that had none at first get so many doublings of them.
const spareQueues = 4

// stepOf is the step of a host of that weight.
func stepOf(weight float64) uint64 { return uint64(min(max(stepOfOne/weight, 1), maxStep)) }

// scheduled is what a turn needs of a host, in one place.
type scheduled struct {
	host *Host
	step uint64 // by its weight
}

// scheduleOf lists the hosts with their steps; nil where there are no weights.
func scheduleOf(hosts []*Host, weights []float64) []scheduled {
	if weights == nil {
		return nil
	}
	list := make([]scheduled, len(hosts))
	for i, w := range weights {
		list[i] = scheduled{hosts[i], stepOf(w)}
	}
	return list
}

// reset schedules n hosts anew, each after an exponentially distributed part of
// its steps: whose turn is first is then by weight exactly, so that shares hold
// even if resets come more often than rounds. Uniform parts would favour the
// heavy hosts.
func (e *edf) reset(n int, rng *uint64, step func(host int) uint64) {
	e.turns = slices.Grow(e.turns[:0], n)[:n]
	least, most := uint64(maxStep), uint64(1)
	for i := range e.turns {
		*rng += 0x9e3779b97f4a7c15
		uniform := (float64(mix(*rng)>>11) + .5) / (1 << 53)
		whole := step(i)
		least, most = min(least, whole), max(most, whole)
		e.turns[i] = turn{deadline: uint64(min(float64(whole)*-math.Log(uniform), maxStep))}
	}
	e.lowest = bits.Len64(least) - 1
	e.queues, e.used, e.now = e.queues[:0], 0, 0
	e.reach(min(bits.Len64(most)+spareQueues, bits.Len64(maxStep)))
	e.queueFirst()
}

// firstParts is into how many parts each doubling of first deadlines is sorted.
const firstParts = 8

// queueFirst queues all hosts for their first turns in time that is linear in their
// number: the earliest in front, and others as late as an eighth of their deadline.
func (e *edf) queueFirst() {
	var last [64 * firstParts]uint32 // of rings, 1 + host
	earliest := 0
	for i := range e.turns {
		t := &e.turns[i]
		if t.deadline < e.turns[earliest].deadline {
			earliest = i
		}
		d := max(t.deadline, firstParts)
		exp := bits.Len64(d) - 1
		l := &last[exp*firstParts+int(d>>(exp-3))%firstParts]
		if *l == 0 {
			t.next, *l = uint32(i), uint32(i)+1
			continue
		}
		before := &e.turns[*l-1]
		t.next, before.next = before.next, uint32(i)
		if i != earliest { // else it is in front
			*l = uint32(i) + 1
		}
	}
	q := &e.queues[0]
	for _, l := range last {
		if l == 0 {
			continue
		}
		first := e.turns[l-1].next
		if e.used == 0 {
			e.used = 1
			q.first, q.deadline = first, e.turns[first].deadline
		} else {
			e.turns[q.last].next = first
		}
		q.last = l - 1
	}
}

// pick is the host whose turn it is.
func (e *edf) pick() int {
	top := bits.TrailingZeros64(e.used)
	least := int64(e.queues[top].deadline - e.now)
	for u := e.used & (e.used - 1); u != 0; u &= u - 1 {
		k := bits.TrailingZeros64(u)
		// Which is earlier cannot be foreseen: without a branch.
		sooner := int64(e.queues[k].deadline-e.now) - least
		sooner &= sooner >> 63
		least += sooner
		top += (k - top) & int(sooner>>63)
	}
	e.top = top
	return int(e.queues[top].first)
}

// following is the host that is now in front of the queue of the last turn.
func (e *edf) following() int { return int(e.queues[e.top].first) }

// advance gives the host that was picked its next turn.
func (e *edf) advance(step uint64) {
	q := &e.queues[e.top]
	i := q.first
	t := &e.turns[i]
	used := e.used
	if i == q.last {
		used &^= 1 << e.top
	}
	e.used = used
	q.first = t.next // which is any host where the queue is empty now
	q.deadline = e.turns[t.next].deadline
	e.now += uint64(max(int64(t.deadline-e.now), 0))
	wait := step
	if e.top > 0 {
		wait += uint64(t.early) << 32 >> (64 - e.lowest - e.top + 1)
	}
	exp := bits.Len64(wait) - 1
	t.deadline = e.now + 1<<exp
	t.early = uint32(wait << (64 - exp) >> 32)
	e.push(e.reach(exp), i)
}

// push puts the host behind others of the queue.
func (e *edf) push(k int, i uint32) {
	q := &e.queues[k]
	if e.used&(1<<k) == 0 {
		e.used |= 1 << k
		q.first, q.deadline = i, e.turns[i].deadline
	} else {
		e.turns[q.last].next = i
	}
	q.last = i
}

// reach is the queue of the hosts that wait for 2^exp. It makes room for it and all
// between.
func (e *edf) reach(exp int) int {
	if below := e.lowest - exp; below > 0 {
		e.queues = slices.Insert(e.queues, 1, make([]queue, below)...)
		e.used = e.used&1 | e.used&^1<<below
		e.lowest = exp
	}
	k := exp - e.lowest + 1
	if more := k + 1 - len(e.queues); more > 0 {
		e.queues = slices.Grow(e.queues, more)[:k+1]
	}
	return k
}
