// SPDX-License-Identifier: Apache-2.0

package server

import (
	"container/heap"
	"time"
)

// timers runs functions at their time, under the server's lock, from one
// goroutine. What is scheduled is small in number: holds of rejected
// resources, graces of unknown and removed names.
type timers struct {
	queue timerQueue
	wake  chan struct{}
}

type timer struct {
	at time.Time
	fn func(now time.Time)
}

// at schedules fn. The caller holds Server.mu.
func (t *timers) at(when time.Time, fn func(now time.Time)) {
	heap.Push(&t.queue, timer{when, fn})
	if t.queue[0].at.Equal(when) {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// due runs what is due and answers how long to wait for the next one.
func (t *timers) due(now time.Time) (time.Duration, bool) {
	for len(t.queue) > 0 && !t.queue[0].at.After(now) {
		heap.Pop(&t.queue).(timer).fn(now)
	}
	if len(t.queue) == 0 {
		return 0, false
	}
	return t.queue[0].at.Sub(now), true
}

// runTimers is the server's one goroutine; Close ends it and waits for it.
func (s *Server) runTimers() {
	defer close(s.timersDone)
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		s.mu.Lock()
		wait, some := s.timers.due(s.cfg.Clock())
		s.mu.Unlock()
		if !some {
			wait = time.Hour
		}
		alarm.Reset(wait)
		select {
		case <-s.ctx.Done():
			return
		case <-s.timers.wake:
		case <-alarm.C:
		}
	}
}

// timerQueue implements heap.Interface, earliest first.
type timerQueue []timer

func (q timerQueue) Len() int           { return len(q) }
func (q timerQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q timerQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *timerQueue) Push(x any)        { *q = append(*q, x.(timer)) }
func (q *timerQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = timer{}
	*q = old[:len(old)-1]
	return last
}
