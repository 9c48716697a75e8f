// SPDX-License-Identifier: Apache-2.0

// Package tap is the filter that copies exchanges, and of connections that are passed on
// as bytes what they were and how they began. Of exchanges it decides early which
// rules may match, keeps what they want within bounds, and when the exchange has
// ended pushes one record for each rule into the worker's ring.
//
// It runs on a loop. What happens to the records after that (redaction, spool,
// sinks) is pkg/tap's.
package tap

import (
	"math/bits"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

// TypeURL is the type of the filter's configuration, a JSON object.
const TypeURL = "type.googleapis.com/io.outrigger.v1.Tap"

// Spec describes the filter, bound to the hub that its records go to.
func Spec(hub *tap.Hub) filter.Spec {
	return filter.Spec{
		Name:    "io.outrigger.tap",
		TypeURL: TypeURL,
		Parse: func(config []byte) (any, error) {
			c, err := tap.ParseConfig(config)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		New: func(config any, w filter.Worker) filter.Filter {
			c := config.(*tap.Config)
			f := &tapFilter{slot: w.Slot, direction: c.Direction, rules: make([]ruleState, len(c.Rules))}
			for i, r := range c.Rules {
				f.rules[i] = newRuleState(r)
			}
			if len(c.Rules) > 0 {
				f.ring = hub.Ring(w.Index)
			}
			return f
		},
		Connection: &filter.ConnectionSpec{
			Parse: func(config []byte) (any, error) {
				c, err := tap.ParseConnections(config)
				if err != nil {
					return nil, err
				}
				return c, nil
			},
			New: func(config any, w filter.Worker) filter.ConnectionFilter {
				return newConnectionFilter(config.(*tap.Config), hub, w.Index)
			},
		},
	}
}

// Bounds of the free list of one filter.
const (
	maxFree      = 32
	keepBytes    = 32 << 10 // of each buffer of a capture that is kept
	maxHeadBytes = 64 << 10 // of the headers of one side
)

// tapFilter serves the exchanges of one chain on one worker. All is loop-owned.
type tapFilter struct {
	slot      int
	direction string
	rules     []ruleState
	ring      *tap.Ring
	free      []*capture
}

// ruleState is a rule with its token bucket.
type ruleState struct {
	*tap.Rule
	tokens float64
	last   int64 // monotonic nanoseconds of the last refill, 0 before the first
}

// capture is what is kept of a running exchange.
type capture struct {
	mask      uint32 // rules that may still match
	head      []byte // encoded request: line and headers
	respHead  []byte // encoded response headers
	meta      []byte // scratch of push
	req, resp body
}

// body is the kept front of a body.
type body struct {
	data     []byte
	limit    int
	reserved int // of the worker's budget
	total    uint64
	cut      bool // the budget ended it
}

// OnRequest picks the rules that may match and keeps the request's head. An
// exchange that no rule can match costs no memory.
func (f *tapFilter) OnRequest(x *filter.Exchange) filter.Verdict {
	if f.ring == nil {
		return filter.Next
	}
	mask := uint32(0)
	for i := range f.rules {
		if f.rules[i].mayMatch(x, uint64(i)) {
			mask |= 1 << i
		}
	}
	if mask == 0 {
		return filter.Next
	}
	c := f.take()
	c.mask = mask
	for i := range f.rules {
		if mask&(1<<i) != 0 {
			c.req.limit = max(c.req.limit, f.rules[i].Capture.RequestBody)
			c.resp.limit = max(c.resp.limit, f.rules[i].Capture.ResponseBody)
		}
	}
	c.head = appendRequest(c.head, &x.Request)
	x.Slots[f.slot] = c
	return filter.Next
}

// OnResponse drops the rules whose status does not match, and with the last of
// them all that was kept.
func (f *tapFilter) OnResponse(x *filter.Exchange) filter.Verdict {
	c, ok := x.Slots[f.slot].(*capture)
	if !ok {
		return filter.Next
	}
	for m := c.mask; m != 0; m &= m - 1 {
		i := bits.TrailingZeros32(m)
		if !f.rules[i].Match.Status.Holds(uint16(x.Response.Status)) {
			c.mask &^= 1 << i
		}
	}
	if c.mask == 0 {
		f.give(c)
		x.Slots[f.slot] = nil
		return filter.Next
	}
	c.respHead = appendHeaders(c.respHead[:0], tap.TagResponseHeader, &x.Response.Header)
	return filter.Next
}

// OnRequestData keeps the front of the body.
func (f *tapFilter) OnRequestData(x *filter.Exchange, chunk []byte, _ bool) {
	if c, ok := x.Slots[f.slot].(*capture); ok {
		c.req.total += uint64(len(chunk))
		c.req.keep(f.ring, chunk)
	}
}

// OnResponseData keeps the front of the body.
func (f *tapFilter) OnResponseData(x *filter.Exchange, chunk []byte, _ bool) {
	if c, ok := x.Slots[f.slot].(*capture); ok {
		c.resp.total += uint64(len(chunk))
		c.resp.keep(f.ring, chunk)
	}
}

// OnDone pushes the records of the rules that matched.
func (f *tapFilter) OnDone(x *filter.Exchange) {
	c, ok := x.Slots[f.slot].(*capture)
	if !ok {
		return
	}
	x.Slots[f.slot] = nil
	for m := c.mask; m != 0; m &= m - 1 {
		r := &f.rules[bits.TrailingZeros32(m)]
		if r.Match.Status.Holds(x.Record.Status) && r.Match.HoldsFlags(x.Record.Flags) && r.allow(x.Now) {
			f.push(x, c, r)
		}
	}
	f.give(c)
}

// push writes one record in pieces, so that bodies are copied once.
func (f *tapFilter) push(x *filter.Exchange, c *capture, r *ruleState) {
	c.meta = appendMeta(c.meta[:0], r.Name, f.direction, x)
	reqBody := c.req.data[:min(len(c.req.data), r.Capture.RequestBody)]
	respBody := c.resp.data[:min(len(c.resp.data), r.Capture.ResponseBody)]
	c.meta = appendSizes(c.meta, &c.req, len(reqBody), tap.TagRequestBytes, tap.TagRequestTruncated)
	c.meta = appendSizes(c.meta, &c.resp, len(respBody), tap.TagResponseBytes, tap.TagResponseTruncated)
	// The two body heads share one buffer: fields may come in any order.
	at := len(c.meta)
	c.meta = tap.AppendFieldHead(c.meta, tap.TagRequestBody, len(reqBody))
	mid := len(c.meta)
	c.meta = tap.AppendFieldHead(c.meta, tap.TagResponseBody, len(respBody))
	f.ring.Push(r.Rule, c.meta[:at], c.head, c.respHead, c.meta[at:mid], reqBody, c.meta[mid:], respBody)
}

// keep appends to the front of a body, within its limit and the worker's budget.
func (b *body) keep(ring *tap.Ring, chunk []byte) {
	n := min(len(chunk), b.limit-len(b.data))
	if n <= 0 || b.cut {
		return
	}
	size := cap(b.data)
	if need := len(b.data) + n; need > size {
		size = max(need, min(2*size, b.limit), 1024)
	}
	if size > b.reserved {
		if !ring.Reserve(size - b.reserved) {
			b.cut = true
			return
		}
		b.reserved = size
	}
	if size > cap(b.data) {
		bigger := make([]byte, len(b.data), size)
		copy(bigger, b.data)
		b.data = bigger
	}
	b.data = append(b.data, chunk[:n]...)
}

// give returns the body's share of the budget and makes it ready for another exchange.
func (b *body) give(ring *tap.Ring) {
	ring.Release(b.reserved)
	if cap(b.data) > keepBytes {
		b.data = nil
	}
	*b = body{data: b.data[:0]}
}

// take gets a capture from the free list.
func (f *tapFilter) take() *capture {
	n := len(f.free)
	if n == 0 {
		return &capture{}
	}
	c := f.free[n-1]
	f.free = f.free[:n-1]
	return c
}

// give returns a capture and its share of the budget. Small buffers stay with
// it: what a free list holds is bounded by its own limits.
func (f *tapFilter) give(c *capture) {
	c.req.give(f.ring)
	c.resp.give(f.ring)
	if len(f.free) >= maxFree {
		return
	}
	if cap(c.head) > keepBytes {
		c.head = nil
	}
	if cap(c.respHead) > keepBytes {
		c.respHead = nil
	}
	c.mask = 0
	c.head, c.respHead = c.head[:0], c.respHead[:0]
	f.free = append(f.free, c)
}

var (
	_ filter.ResponseFilter     = (*tapFilter)(nil)
	_ filter.RequestDataFilter  = (*tapFilter)(nil)
	_ filter.ResponseDataFilter = (*tapFilter)(nil)
	_ filter.DoneFilter         = (*tapFilter)(nil)
)
