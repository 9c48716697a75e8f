// SPDX-License-Identifier: Apache-2.0

// Package adaptiveconcurrency is the HTTP filter that lets as many requests be under
// way as the upstreams take without becoming slower (Envoy's
// envoy.filters.http.adaptive_concurrency, with its gradient controller).
//
// A controller belongs to one filter of one configuration and is shared by all
// workers: what is under way and the limit are exact over them. Latencies go into a
// histogram of atomics; who ends a request after a window is over computes the next
// limit, once, and nobody waits for it.
//
// Source: Envoy's documentation of the filter and of its gradient controller.
package adaptiveconcurrency

import (
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// TypeURL is the type of the filter's configuration.
const TypeURL = "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency"

// Spec describes the filter.
func Spec() filter.Spec {
	s := &store{}
	return filter.Spec{
		Name:    "envoy.filters.http.adaptive_concurrency",
		TypeURL: TypeURL,
		Parse: func(config []byte) (any, error) {
			c, err := parse(config)
			if err != nil {
				return nil, err
			}
			return &shared{config: c}, nil
		},
		New: func(config any, w filter.Worker) filter.Filter {
			sh := config.(*shared)
			return &limiter{slot: w.Slot, now: w.Loop.Now, shared: sh, blocked: s.show(w.StatPrefix, sh)}
		},
		Counts: s.counts,
	}
}

// limiter serves the exchanges of one chain on one worker.
type limiter struct {
	slot       int
	now        func() int64
	shared     *shared
	blocked    *atomic.Uint64
	controller *Controller // nil before the first request
	free       []*passage
}

const maxFree = 64

// passage is a request that was let through.
type passage struct{ since int64 }

var tooMany = []byte("reached concurrency limit")

// OnRequest lets the request through or refuses it.
func (f *limiter) OnRequest(x *filter.Exchange) filter.Verdict {
	if !f.shared.config.Enabled {
		return filter.Next
	}
	now := f.now()
	if f.controller == nil {
		f.controller = f.shared.controller(f.blocked, now, x.Random)
	}
	if !f.controller.Allow(now) {
		x.Local = filter.LocalReply{Status: f.shared.config.Status, Body: tooMany, Details: "reached_concurrency_limit"}
		return filter.Reply
	}
	p := f.take()
	p.since = now
	x.Slots[f.slot] = p
	return filter.Next
}

// broken are the flags of exchanges whose response did not come to its end: their
// time says nothing.
const broken = record.DC | record.UPE | record.LR | record.DPE

// OnDone takes the time that the request took.
func (f *limiter) OnDone(x *filter.Exchange) {
	p, ok := x.Slots[f.slot].(*passage)
	if !ok {
		return
	}
	x.Slots[f.slot] = nil
	if x.Record.Flags&broken != 0 || x.Record.Status == 0 {
		f.controller.Cancel()
	} else {
		f.controller.Done(p.since, f.now())
	}
	if len(f.free) < maxFree {
		f.free = append(f.free, p)
	}
}

func (f *limiter) take() *passage {
	n := len(f.free)
	if n == 0 {
		return new(passage)
	}
	p := f.free[n-1]
	f.free = f.free[:n-1]
	return p
}
