// SPDX-License-Identifier: Apache-2.0

package lb

import "math"

// edf schedules by earliest deadline first: a host's next turn comes one step
// after its last, a step being inverse to its weight. Turns of hosts interleave
// evenly, and weights may change at any turn.
type edf struct {
	heap []turn // min-heap by deadline
}

type turn struct {
	deadline uint64 // wraps; compared by difference
	host     uint32
}

// arity makes the heap flat: half the levels of a binary one, and siblings side
// by side in memory.
const arity = 4

// stepOfOne is the step of weight 1: steps of the largest weights stay distinct,
// and the deadlines of a heap span less than half of the range of a uint64.
const stepOfOne = 1 << 40

// maxStep bounds steps that are inflated by requests in flight or by slow start.
const maxStep = 1 << 62

// stepOf is the step of a host of that weight.
func stepOf(weight float64) uint64 { return uint64(min(max(stepOfOne/weight, 1), maxStep)) }

// reset schedules n hosts anew, each after an exponentially distributed part of
// its steps: whose turn is first is then by weight exactly, so that shares hold
// even if resets come more often than rounds. Uniform parts would favour the
// heavy hosts.
func (e *edf) reset(n int, rng *uint64, step func(host int) uint64) {
	e.heap = e.heap[:0]
	for i := range n {
		*rng += 0x9e3779b97f4a7c15
		uniform := (float64(mix(*rng)>>11) + .5) / (1 << 53)
		first := min(float64(step(i))*-math.Log(uniform), maxStep)
		e.heap = append(e.heap, turn{uint64(first), uint32(i)})
	}
	for i := (len(e.heap) - 2) / arity; i >= 0 && len(e.heap) > 1; i-- {
		e.sink(i, e.heap[i])
	}
}

// top is the host whose turn it is.
func (e *edf) top() int { return int(e.heap[0].host) }

// advance gives the top host its next turn.
func (e *edf) advance(step uint64) {
	t := e.heap[0]
	t.deadline += step
	e.sink(0, t)
}

// sink places t at or below i.
func (e *edf) sink(i int, t turn) {
	h := e.heap
	for {
		first := arity*i + 1
		if first >= len(h) {
			break
		}
		c, least := first, h[first].deadline
		for k, u := range h[first+1 : min(first+arity, len(h))] {
			if int64(u.deadline-least) < 0 {
				c, least = first+1+k, u.deadline
			}
		}
		if int64(least-t.deadline) >= 0 {
			break
		}
		h[i] = h[c]
		i = c
	}
	h[i] = t
}
