// SPDX-License-Identifier: Apache-2.0

package proxy

import "sync/atomic"

// awake are the clusters that the merge tick has something to look at: what has a clock
// of its own (health checks, slow start, client weights), what had requests lately, and
// once what has just changed. Others cost a tick nothing.
type awake struct {
	woken atomic.Pointer[cluster] // a stack, by cluster.below
	list  []*cluster              // of who calls take
}

// wake has the next tick look at a cluster. It takes no lock; any goroutine may call it,
// after what the tick is to see has been stored.
func (a *awake) wake(c *cluster) {
	if c.awake.Load() || !c.awake.CompareAndSwap(false, true) {
		return
	}
	for {
		top := a.woken.Load()
		c.below = top
		if a.woken.CompareAndSwap(top, c) {
			return
		}
	}
}

// each calls back with the clusters that are awake and keeps those that want to stay so.
// One goroutine at a time calls it.
func (a *awake) each(look func(c *cluster, s *clusterSpec) (stays bool), again func(*cluster) bool) {
	for c := a.woken.Swap(nil); c != nil; {
		next := c.below
		c.below = nil
		a.list = append(a.list, c)
		c = next
	}
	kept := a.list[:0]
	for _, c := range a.list {
		s := c.spec.Load()
		if s != nil && look(c, s) {
			kept = append(kept, c)
			continue
		}
		c.awake.Store(false)
		// What was stored since was not seen, and who stored it saw c awake.
		if c.spec.Load() != s || s != nil && again(c) {
			a.wake(c)
		}
	}
	clear(a.list[len(kept):])
	a.list = kept
}
