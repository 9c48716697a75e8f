// SPDX-License-Identifier: Apache-2.0

package health

import (
	"container/heap"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// Bounds of Checks where Config says nothing.
const (
	DefaultConcurrent = 256
	DefaultKept       = 512
)

// Config are the bounds and surroundings of Checks. Zero fields have defaults.
type Config struct {
	Concurrent int // checks under way at a time; those that are due wait
	Kept       int // connections kept between checks (reuse_connection); others are closed
	// Events opens the file that events are appended to, a line of JSON each; the writer
	// must neither block for long nor keep the line. nil: no events are written.
	Events func(path string) (func(line []byte), error)
	// Changed is told of results that have changed a host's health, and of first ones
	// that failed; nil: nobody is. It must not block.
	Changed func(*Event)
	Log     *slog.Logger
}

// Checks are the health checks of a process. Any goroutine but a loop may call its
// methods and those of its clusters, unless they say otherwise.
type Checks struct {
	config Config
	wake   chan struct{} // holds one
	checks sync.WaitGroup

	mu      sync.Mutex // guards the rest, and what is said to be so of Cluster and target
	due     queue
	running int
	kept    int
	dirty   map[*Cluster]bool // with verdicts that their views do not show
	ended   bool
}

// New makes the checks of a process; Run makes them happen.
func New(c Config) *Checks {
	if c.Concurrent <= 0 {
		c.Concurrent = DefaultConcurrent
	}
	if c.Kept <= 0 {
		c.Kept = DefaultKept
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Checks{config: c, wake: make(chan struct{}, 1), dirty: map[*Cluster]bool{}}
}

// Run checks until the context ends, and returns when the last check has.
func (c *Checks) Run(ctx context.Context) {
	defer c.end()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := c.turn(ctx, time.Now())
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// end waits for what is under way and closes what is kept.
func (c *Checks) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.checks.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.due {
		t.index = -1 // clusters that are still told of something find it nowhere
		c.drop(t)
	}
	c.due = nil
}

// longest is how long the goroutine sleeps at most.
const longest = time.Hour

// turn begins what is due, makes views, and returns how long there is nothing to do.
func (c *Checks) turn(ctx context.Context, now time.Time) time.Duration {
	c.mu.Lock()
	for c.running < c.config.Concurrent && len(c.due) > 0 && !c.due[0].at.After(now) && !c.ended {
		t := heap.Pop(&c.due).(*target)
		c.begin(ctx, t, now)
	}
	wait := longest
	if c.running < c.config.Concurrent && len(c.due) > 0 {
		wait = min(wait, c.due[0].at.Sub(now))
	}
	var publish []*Cluster
	for cl := range c.dirty {
		if d := cl.publishAt.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		publish = append(publish, cl)
		delete(c.dirty, cl)
	}
	c.mu.Unlock()
	for _, cl := range publish {
		cl.publish()
		wait = 0 // others may have become due meanwhile
	}
	return max(wait, 0)
}

// begin starts the check of a host that is due. Under mu.
func (c *Checks) begin(ctx context.Context, t *target, now time.Time) {
	cl := t.cluster
	cl.stats.Attempts++
	if now.Sub(t.at) > late {
		cl.stats.Late++
	}
	c.running++
	t.running = true
	a := attempt{cluster: cl.name, check: cl.check, host: t.host, hooks: &cl.hooks, kept: t.kept}
	if t.kept != nil {
		t.kept = nil
		c.kept--
	}
	checking, cancel := context.WithCancel(ctx)
	t.cancel = cancel
	c.checks.Go(func() {
		defer cancel()
		r := a.run(checking)
		c.done(t, &a, r)
	})
}

// late is how long after its time a check begins at most without being counted.
const late = time.Second

// done takes the result of a check.
func (c *Checks) done(t *target, a *attempt, r Result) {
	now := time.Now()
	c.mu.Lock()
	c.running--
	t.running, t.cancel = false, nil
	cl := t.cluster
	if t.gone || c.ended {
		c.mu.Unlock()
		a.close()
		c.signal()
		return
	}
	stale := a.check != cl.check // by a new one it may be otherwise
	if stale {
		a.close()
		t.at = now
	} else {
		e := cl.take(t, &r, now)
		if a.kept != nil && c.kept < c.config.Kept {
			t.kept, a.kept = a.kept, nil
			c.kept++
		}
		defer cl.log(e)
	}
	heap.Push(&c.due, t)
	c.mu.Unlock()
	a.close()
	c.signal()
}

// drop closes what a host's checks have kept. Under mu.
func (c *Checks) drop(t *target) {
	if t.kept != nil {
		t.kept.close()
		t.kept = nil
		c.kept--
	}
}

// signal wakes Run.
func (c *Checks) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Use is what the checks take at the moment.
type Use struct{ Running, Waiting, Kept int }

// Use reads it.
func (c *Checks) Use() Use {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Use{Running: c.running, Waiting: len(c.due), Kept: c.kept}
}

// target is a host that is checked.
type target struct {
	cluster *Cluster
	host    *lb.Host
	// Guarded by Checks.mu.
	state   State
	at      time.Time // of the next check
	last    time.Time // of the last result
	reason  string    // of the last failure
	index   int       // in the queue
	running bool
	gone    bool
	cancel  func() // ends the running check
	kept    *link
}

// queue has those that wait for their time, the next one first.
type queue []*target

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	t := x.(*target)
	t.index = len(*q)
	*q = append(*q, t)
}

func (q *queue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	t.index = -1
	return t
}

func random() uint64 { return rand.Uint64() }
