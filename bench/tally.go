// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// tally is what one connection of an own generator has seen.
type tally struct {
	count, failures int64
	first           error // the first failure
	took            []time.Duration
}

// sampledEvery is which of a connection's operations are timed: all would be much
// memory, and sorting it much time.
const sampledEvery = 8

func (t *tally) done(began time.Time) {
	if t.count%sampledEvery == 0 {
		t.took = append(t.took, time.Since(began))
	}
	t.count++
}

func (t *tally) fail(err error) {
	t.failures++
	if t.first == nil {
		t.first = err
	}
}

// graceTime is how long after its end a load may take to come to rest.
const graceTime = 10 * time.Second

// together runs a load on connections of their own until the target's time is over.
// An error of a connection is a failed operation.
func together(ctx context.Context, t *target, connections int, load func(net.Conn, time.Time) (tally, error)) (outcome, error) {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	d := net.Dialer{Timeout: graceTime, KeepAlive: -1}
	for range connections {
		c, err := d.DialContext(ctx, "tcp4", t.address())
		if err != nil {
			return outcome{}, err
		}
		conns = append(conns, c)
	}
	began := time.Now()
	until := began.Add(t.duration)
	tallies := make([]tally, connections)
	var all sync.WaitGroup
	for i, c := range conns {
		if err := c.SetDeadline(until.Add(graceTime)); err != nil {
			return outcome{}, err
		}
		all.Go(func() {
			var err error
			if tallies[i], err = load(c, until); err != nil {
				tallies[i].fail(fmt.Errorf("connection %d: %w", i, err))
			}
		})
	}
	all.Wait()
	out := sum(tallies)
	out.Seconds = time.Since(began).Seconds()
	return out, ctx.Err()
}

func sum(tallies []tally) (out outcome) {
	var took []time.Duration
	for i := range tallies {
		t := &tallies[i]
		out.Done, out.Failed = out.Done+t.count, out.Failed+t.failures
		if out.Failure == nil {
			out.Failure = t.first
		}
		took = append(took, t.took...)
	}
	slices.Sort(took)
	if n := len(took); n > 0 {
		out.P50, out.P99 = took[n/2], took[n*99/100]
	}
	return out
}
