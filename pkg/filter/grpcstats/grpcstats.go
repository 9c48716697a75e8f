// SPDX-License-Identifier: Apache-2.0

// Package grpcstats is the HTTP filter that counts calls of gRPC by method: by
// status, and the messages of both directions (Envoy's
// envoy.filters.http.grpc_stats, under its names).
//
// Counters belong to the process, by worker and cluster, and outlive
// configurations. Names come from strangers, so that there are at most maxMethods
// of them, and a method gets its own only once an endpoint has answered a call of it
// with a message, or a status other than that there is none; the others are counted
// by cluster.
package grpcstats

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// TypeURL is the type of the filter's configuration.
const TypeURL = "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"

// Spec describes the filter, with counters of its own.
func Spec() filter.Spec {
	s := &store{}
	return filter.Spec{
		Name:    "envoy.filters.http.grpc_stats",
		TypeURL: TypeURL,
		Parse:   parse,
		New: func(config any, w filter.Worker) filter.Filter {
			return &statsFilter{slot: w.Slot, config: config.(*Config), table: s.table(w.Index)}
		},
		Counts: s.counts,
	}
}

const maxFree = 32

// statsFilter serves the exchanges of one chain on one worker. All is loop-owned.
type statsFilter struct {
	slot   int
	config *Config
	table  *table
	free   []*call
	key    []byte
}

// call is what is kept of a running call.
type call struct {
	to       *counters // nil until it is known where to count
	key      []byte    // of the method, until then; empty: it gets no name
	cluster  string
	sent     grpc.Counter
	received grpc.Counter
	answer   bool // the answer is one of gRPC
	endpoint bool // it is an endpoint's
	charged  bool // its status was counted
	requests uint64
}

// OnRequest begins to count a call.
func (f *statsFilter) OnRequest(x *filter.Exchange) filter.Verdict {
	if x.Record.Cluster == "" || !grpc.Is(&x.Request.Header) {
		return filter.Next
	}
	service, method, ok := grpc.SplitMethod(x.Request.Path())
	if !ok {
		return filter.Next
	}
	c := f.take()
	c.cluster = x.Record.Cluster
	x.Slots[f.slot] = c
	if f.config.named(service, method) {
		f.key = appendKey(f.key[:0], c.cluster, service, method, f.config.ReplaceDots)
		if c.to = f.table.find(f.key); c.to == nil && len(f.key) <= maxKey {
			c.key = append(c.key[:0], f.key...)
		}
	}
	if c.to == nil && len(c.key) == 0 {
		c.to = f.table.cluster(c.cluster)
	}
	return filter.Next
}

// OnRequestData counts the caller's messages.
func (f *statsFilter) OnRequestData(x *filter.Exchange, chunk []byte, _ bool) {
	c, ok := x.Slots[f.slot].(*call)
	if !ok {
		return
	}
	n := c.sent.Count(chunk)
	if c.to != nil {
		c.to.requests += n
	} else {
		c.requests += n
	}
}

// OnResponse counts the status of an answer that has it in its head.
func (f *statsFilter) OnResponse(x *filter.Exchange) filter.Verdict {
	c, ok := x.Slots[f.slot].(*call)
	if !ok {
		return filter.Next
	}
	h := &x.Response.Header
	c.answer = grpc.Is(h)
	c.endpoint = x.Record.UpstreamStatus != 0
	f.charge(c, h)
	return filter.Next
}

// OnResponseData counts the endpoint's messages. The first says that there is the
// method: a stream may have no end to wait for.
func (f *statsFilter) OnResponseData(x *filter.Exchange, chunk []byte, _ bool) {
	c, ok := x.Slots[f.slot].(*call)
	if !ok || !c.answer {
		return
	}
	if n := c.received.Count(chunk); n > 0 {
		f.settle(c, c.endpoint)
		c.to.responses += n
	}
}

// OnResponseTrailer counts the status.
func (f *statsFilter) OnResponseTrailer(x *filter.Exchange, h *codec.Header) {
	if c, ok := x.Slots[f.slot].(*call); ok {
		f.charge(c, h)
	}
}

// charge counts a call by its status, once.
func (f *statsFilter) charge(c *call, h *codec.Header) {
	v := h.Get("grpc-status")
	if v == nil || c.charged {
		return
	}
	c.charged = true
	status, known := grpc.ParseStatus(v)
	f.settle(c, c.endpoint && status != grpc.Unimplemented)
	switch {
	case known && status == grpc.OK:
		c.to.success++
	default:
		c.to.failure++
	}
	if known {
		c.to.by[status]++
	}
}

// settle decides where a call is counted: under its method's name if there is such
// a method as far as anybody knows.
func (f *statsFilter) settle(c *call, exists bool) {
	if c.to == nil {
		if exists {
			c.to = f.table.add(c.key)
		}
		if c.to == nil {
			c.to = f.table.cluster(c.cluster)
		}
		c.to.requests += c.requests
		c.requests = 0
	}
}

// OnDone gives back what was kept.
func (f *statsFilter) OnDone(x *filter.Exchange) {
	c, ok := x.Slots[f.slot].(*call)
	if !ok {
		return
	}
	x.Slots[f.slot] = nil
	f.settle(c, false)
	if len(f.free) < maxFree {
		f.free = append(f.free, c)
	}
}

func (f *statsFilter) take() *call {
	n := len(f.free)
	if n == 0 {
		return new(call)
	}
	c := f.free[n-1]
	f.free = f.free[:n-1]
	*c = call{key: c.key[:0]}
	return c
}
