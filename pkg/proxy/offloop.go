// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"
)

// Records are taken off the rings rarely enough that a wake-up is shared by many
// records, and often enough for 200 000 requests a second: every drainEvery where they
// would fill more than calmFill of a ring in drainCalm, else every drainCalm; and at once
// where a ring is half full before that.
const (
	drainEvery = 20 * time.Millisecond
	drainCalm  = 100 * time.Millisecond
	calmFill   = 0.25
	drainBatch = 1024
)

// drainNext is how long to wait when that much of a ring was filled in the wait before.
func drainNext(fill float64, wait time.Duration) time.Duration {
	if fill*float64(drainCalm) > calmFill*float64(wait) {
		return drainEvery
	}
	return drainCalm
}

// wakeReader has readRecords look at once. On a loop: it never blocks.
func (p *Proxy) wakeReader() {
	select {
	case p.burst <- struct{}{}:
	default: // it is about to look
	}
}

// readRecords hands finished exchanges to their consumers, off the loops, until
// stop is closed; then it takes what is left.
func (p *Proxy) readRecords(stop <-chan struct{}) {
	wait := drainCalm
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		last := false
		select {
		case <-stop:
			last = true
		case <-timer.C:
		case <-p.burst:
		}
		n, fill := 0, 0.0
		for _, w := range p.workers {
			fill = max(fill, w.ring.Fill())
			for {
				k := w.ring.Drain(drainBatch)
				n += k
				if k < drainBatch {
					break
				}
			}
		}
		if n > 0 && p.options.AccessLogs != nil {
			p.options.AccessLogs.Flush()
		}
		if last {
			return
		}
		wait = drainNext(fill, wait)
		timer.Reset(wait)
	}
}

// RecordsWaiting is the number of finished exchanges whose records no consumer
// has seen yet.
func (p *Proxy) RecordsWaiting() (n int) {
	for _, w := range p.workers {
		n += w.ring.Len()
	}
	return n
}

// maintainEvery is the merge tick of breakers and outlier detection.
const maintainEvery = 50 * time.Millisecond

// maintain ticks the breakers and outlier detection of clusters in use.
func (p *Proxy) maintain(stop <-chan struct{}) {
	t := time.NewTicker(maintainEvery)
	defer t.Stop()
	base := p.monotonic(stop)
	start := time.Now()
	p.wall.Store(start.UnixNano() - base)
	var ticks int
	var crowd crowdWatch
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		p.tick(base + int64(time.Since(start)))
		p.refreshZones(nil)
		p.answers.ExpireOffLoop(base + int64(time.Since(start)))
		if ticks++; ticks%int(retryListeners/maintainEvery) == 0 {
			p.retryFailed()
			p.rotateFiles()
			p.watchCrowd(&crowd, time.Now())
		}
	}
}

// retryListeners is how often listeners that could not be opened are tried again.
const retryListeners = time.Second

// retryFailed tries listeners again whose port was busy when they came.
func (p *Proxy) retryFailed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.failed {
		res := p.snapshot.Listeners[name]
		if res == nil || p.applyListener(p.listeners[name], res) != nil {
			continue
		}
		delete(p.failed, name)
		p.log.Info("listener open after all", "listener", name)
	}
}

// quietAfter is how long after its last request a cluster is still looked at:
// longer than any window or ejection time that has to run out.
const quietAfter = int64(10 * time.Minute)

func (p *Proxy) tick(now int64) {
	p.tellPanics()
	busy := func(c *cluster) bool {
		last := c.lastUse.Load()
		return last != 0 && now-last <= quietAfter
	}
	p.awake.each(func(c *cluster, s *clusterSpec) bool {
		s.lb.Tick(now)
		s.tickHealth(now)
		p.watchCluster(c, s)
		if !busy(c) {
			return s.ticks()
		}
		if s.circuit != nil {
			s.circuit.Tick(now)
		}
		if s.outlier != nil {
			s.outlier.Tick(now)
		}
		return true
	}, busy)
}

// ticks reports whether the cluster is to be looked at though nobody uses it.
func (s *clusterSpec) ticks() bool {
	return s.health != nil || s.res.LB.ClientWeights != nil || s.res.LB.SlowStart.Window > 0
}
