// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Bounds of one destination.
const (
	queueSpans   = 4096
	batchSpans   = 512
	flushEvery   = time.Second
	sendTimeout  = 10 * time.Second
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 10 * time.Second
	maxAttempts  = 6 // of one batch, about 20 s in all
	leaveTime    = 10 * time.Second
)

// Stats are the counts of one destination. Spans accepted are sent, failed or
// waiting.
type Stats struct {
	Destination string
	Accepted    uint64
	Dropped     uint64 // found the queue full
	Sent        uint64
	Failed      uint64 // given up after retries, or refused by the receiver
	Waiting     int
	Error       string // the last failure
}

// errPermanent marks a failure that trying again will not mend.
var errPermanent = errors.New("refused")

// batcher is the queue of one destination and the goroutine that empties it.
type batcher[T any] struct {
	name  string
	limit int
	send  func(ctx context.Context, items []T) error
	clean func() // after the last send
	wake  chan struct{}
	stop  context.CancelFunc
	ctx   context.Context // ends when sending must stop
	done  chan struct{}

	mu      sync.Mutex // guards the rest
	items   []T
	flying  int
	closing bool
	stats   Stats
}

func newBatcher[T any](name string, send func(context.Context, []T) error, clean func()) *batcher[T] {
	// The batcher outlives the call that configured it: Pool.Close ends it.
	ctx, stop := context.WithCancel(context.Background())
	b := &batcher[T]{
		name: name, limit: queueSpans, send: send, clean: clean, ctx: ctx, stop: stop,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go b.run()
	return b
}

// put queues an item, or drops it where the queue is full.
func (b *batcher[T]) put(item T) {
	b.mu.Lock()
	if len(b.items)+b.flying >= b.limit || b.closing {
		b.stats.Dropped++
		b.mu.Unlock()
		return
	}
	b.items = append(b.items, item)
	b.stats.Accepted++
	full := len(b.items) >= batchSpans
	b.mu.Unlock()
	if full {
		b.signal()
	}
}

func (b *batcher[T]) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items)+b.flying >= b.limit || b.closing {
		b.stats.Dropped++
		return true
	}
	return false
}

func (b *batcher[T]) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *batcher[T]) run() {
	defer close(b.done)
	defer b.clean()
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.wake:
		case <-tick.C:
		case <-b.ctx.Done():
		}
		for {
			batch, last := b.take()
			if len(batch) > 0 {
				b.deliver(batch)
				continue
			}
			if last {
				return
			}
			break
		}
	}
}

// take removes one batch; last says that none will follow an empty one.
func (b *batcher[T]) take() (batch []T, last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.items), batchSpans)
	batch = append(batch, b.items[:n]...)
	clear(b.items[:n])
	if b.items = b.items[n:]; len(b.items) == 0 {
		b.items = nil
	}
	b.flying = n
	return batch, b.closing
}

// deliver sends a batch, again where that may help, and counts how it ended.
func (b *batcher[T]) deliver(batch []T) {
	pause := firstBackoff
	var err error
	for attempt := 1; ; attempt++ {
		ctx, cancel := context.WithTimeout(b.ctx, sendTimeout)
		err = b.send(ctx, batch)
		cancel()
		if err == nil || errors.Is(err, errPermanent) || attempt == maxAttempts || !b.wait(pause) {
			break
		}
		pause = min(2*pause, maxBackoff)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying = 0
	if err != nil {
		b.stats.Failed += uint64(len(batch))
		b.stats.Error = err.Error()
		return
	}
	b.stats.Sent += uint64(len(batch))
}

// wait pauses between half and all of d; false means that it is time to end.
func (b *batcher[T]) wait(d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-b.ctx.Done():
		return false
	}
}

// close sends what waits until ctx ends, and then gives up.
func (b *batcher[T]) close(ctx context.Context) error {
	b.mu.Lock()
	b.closing = true
	b.mu.Unlock()
	b.signal()
	select {
	case <-b.done:
	case <-ctx.Done():
		b.stop()
		<-b.done
	}
	b.stop()
	if s := b.read(); s.Failed+uint64(s.Waiting) > 0 {
		return fmt.Errorf("%s: %d spans were not delivered: %s", b.name, s.Failed+uint64(s.Waiting), s.Error)
	}
	return nil
}

// leave sends what waits in a destination that nobody uses any more, for a while.
func (b *batcher[T]) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_ = b.close(ctx) // what was lost is in the counts
}

func (b *batcher[T]) read() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Destination, s.Waiting = b.name, len(b.items)+b.flying
	return s
}
