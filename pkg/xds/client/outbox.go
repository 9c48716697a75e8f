// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

const (
	// Requests are limited to a burst and a rate, whatever a server provokes.
	requestBurst = 100
	requestRate  = 50 // per second
	// againDelay is how long the NACK of a response that was refused before waits.
	againDelay = 5 * time.Second
	// maxQueued bounds delta requests that a server does not read.
	maxQueued = 4096
)

// outbox holds the requests that wait to be sent. Of requests with the state of
// the world only the last of each type matters; delta requests are changes and
// all go out, in order.
type outbox struct {
	mu     sync.Mutex
	latest [decode.KindCount]*pending
	order  []decode.Kind // of latest, oldest first
	queue  []Request     // delta
	over   bool
	wake   chan struct{} // capacity 1
}

type pending struct {
	req Request
	at  time.Time
}

func (o *outbox) init() { o.wake = make(chan struct{}, 1) }

// post adds requests. It never blocks.
func (o *outbox) post(list []Request) {
	if len(list) == 0 {
		return
	}
	o.mu.Lock()
	for _, r := range list {
		if r.Delta != nil {
			if len(o.queue) >= maxQueued {
				o.over = true
				continue
			}
			o.queue = append(o.queue, r)
			continue
		}
		p := &pending{req: r}
		if r.Again {
			p.at = time.Now().Add(againDelay)
		}
		if last := o.latest[r.Kind]; last == nil {
			o.order = append(o.order, r.Kind)
		} else if r.World.Node == nil {
			r.World.Node = last.req.World.Node // it may be the stream's first, which says whose it is
		}
		o.latest[r.Kind] = p
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// reset drops everything: a new connection starts over.
func (o *outbox) reset() {
	o.mu.Lock()
	o.latest, o.order, o.queue, o.over = [decode.KindCount]*pending{}, nil, nil, false
	o.mu.Unlock()
}

// take removes the next request that may go out. Without one it returns how long
// until there can be, 0 for unknown.
func (o *outbox) take(now time.Time) (*Request, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) > 0 {
		r := o.queue[0]
		o.queue = o.queue[1:]
		return &r, 0
	}
	var soon time.Duration
	for i, k := range o.order {
		p := o.latest[k]
		if wait := p.at.Sub(now); wait > 0 {
			if soon == 0 || wait < soon {
				soon = wait
			}
			continue
		}
		o.order = append(o.order[:i:i], o.order[i+1:]...)
		o.latest[k] = nil
		return &p.req, 0
	}
	return nil, soon
}

// peek returns the last request of a kind, which stays: REST repeats it.
func (o *outbox) peek(kind decode.Kind) *Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.latest[kind]; p != nil {
		return &p.req
	}
	return nil
}

func (o *outbox) overrun() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.over
}

// bucket is a token bucket.
type bucket struct {
	tokens float64
	last   time.Time
}

// wait returns how long until a token is there; it takes it if that is now.
func (b *bucket) wait(now time.Time) time.Duration {
	if b.last.IsZero() {
		b.tokens, b.last = requestBurst, now
	}
	b.tokens = min(requestBurst, b.tokens+now.Sub(b.last).Seconds()*requestRate)
	b.last = now
	if b.tokens >= 1 {
		b.tokens--
		return 0
	}
	return time.Duration((1 - b.tokens) / requestRate * float64(time.Second))
}

// send passes requests to f until ctx ends or f fails.
func (o *outbox) send(ctx context.Context, f func(*Request) error) error {
	var limit bucket
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	pause := func(d time.Duration) bool {
		if d == 0 {
			d = time.Hour
		}
		timer.Reset(d)
		select {
		case <-ctx.Done():
			return false
		case <-o.wake:
		case <-timer.C:
		}
		return true
	}
	for {
		r, soon := o.take(time.Now())
		if r == nil {
			if !pause(soon) {
				return ctx.Err()
			}
			continue
		}
		for d := limit.wait(time.Now()); d > 0; d = limit.wait(time.Now()) {
			timer.Reset(d)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
		}
		if err := f(r); err != nil {
			return err
		}
	}
}
