// SPDX-License-Identifier: Apache-2.0

// Package fault is the HTTP filter that makes requests late or fail on purpose (Envoy's
// envoy.filters.http.fault), to try how services take it: a delay, then maybe an abort,
// for a part of the requests that match, or as requests ask for by headers. How many
// faults there are at a time is bounded over all workers.
//
// Responses may be slow, too (response_rate_limit); the data path paces them. Counters by
// calling cluster are not kept, because callers would name them.
package fault

import (
	"slices"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// TypeURL is the type of the filter's configuration.
const TypeURL = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"

// Spec describes the filter, with counters of its own.
func Spec() filter.Spec {
	all := new(filter.Counters[counters])
	return filter.Spec{
		Name:     "envoy.filters.http.fault",
		TypeURL:  TypeURL,
		PerRoute: true,
		Build:    func(res any) any { return res },
		New: func(config any, w filter.Worker) filter.Filter {
			set := all.Set(w.StatPrefix)
			return &faultFilter{w: w, config: config.(*resource.Fault), set: set, counters: set.On(w.Index)}
		},
		Counts: func(worker int, dst []filter.Count) []filter.Count { return counts(all, worker, dst) },
	}
}

// The headers by which requests ask for faults.
const (
	delayHeader        = "x-envoy-fault-delay-request" // milliseconds
	delayPercentHeader = "x-envoy-fault-delay-request-percentage"
	abortHeader        = "x-envoy-fault-abort-request" // a status
	abortGRPCHeader    = "x-envoy-fault-abort-grpc-request"
	abortPercentHeader = "x-envoy-fault-abort-request-percentage"
	rateHeader         = "x-envoy-fault-throughput-response" // KiB a second
	ratePercentHeader  = "x-envoy-fault-throughput-response-percentage"
	nodeHeader         = "x-envoy-downstream-service-node"
)

// Salts of the draws of one exchange, beside those of other filters.
const (
	saltDelay = 0x3_0000
	saltAbort = 0x4_0000
	saltSlow  = 0x5_0000
)

// Bounds of a delay that a request or the runtime asks for, and of the free list.
const (
	maxDelay = 10 * time.Minute
	maxFree  = 64
)

// faultFilter serves the exchanges of one chain on one worker. All but the set is
// loop-owned.
type faultFilter struct {
	w        filter.Worker
	config   *resource.Fault // where the route has none
	set      *filter.CounterSet[counters]
	counters *counters
	scratch  []byte
	free     []*fault
}

// fault is what is kept of an exchange that has one; it counts as active until the
// exchange has ended.
type fault struct {
	timer reactor.Timer
	goOn  filter.Continuation
}

// OnTimer ends a delay.
func (t *fault) OnTimer(*reactor.Timer) { t.goOn.Resume() }

func (f *faultFilter) of(x *filter.Exchange) *resource.Fault {
	if c, ok := x.Setting(f.w.Name).(*resource.Fault); ok {
		return c
	}
	return f.config
}

// OnRequest delays or aborts the request.
func (f *faultFilter) OnRequest(x *filter.Exchange) filter.Verdict {
	c := f.of(x)
	if c.Delay == nil && c.Abort == nil && c.Slow == nil || !f.concerns(c, x) {
		return filter.Next
	}
	f.slow(c, x)
	d := f.delay(c.Delay, x)
	if d <= 0 {
		return f.abort(c, x)
	}
	t := f.begin(c, x)
	if t == nil {
		return f.abort(c, x)
	}
	f.counters.delays++
	x.Record.Flags |= record.DI
	t.goOn = x.Continuation()
	f.w.Loop.Schedule(&t.timer, d)
	return filter.Wait
}

// OnResume aborts what was delayed, if it is to be.
func (f *faultFilter) OnResume(x *filter.Exchange) filter.Verdict { return f.abort(f.of(x), x) }

// OnDone ends the fault with its exchange.
func (f *faultFilter) OnDone(x *filter.Exchange) {
	t, ok := x.Slots[f.w.Slot].(*fault)
	if !ok {
		return
	}
	x.Slots[f.w.Slot] = nil
	t.timer.Stop()
	t.goOn = filter.Continuation{}
	f.set.Active.Add(-1)
	if len(f.free) < maxFree {
		f.free = append(f.free, t)
	}
}

// begin counts the exchange as one that has a fault; nil: there are too many.
func (f *faultFilter) begin(c *resource.Fault, x *filter.Exchange) *fault {
	if t, ok := x.Slots[f.w.Slot].(*fault); ok {
		return t
	}
	most := f.w.Number(c.MaxActiveKey, float64(c.MaxActive))
	if n := f.set.Active.Add(1); most >= 0 && float64(n) > most {
		f.set.Active.Add(-1)
		f.counters.overflow++
		return nil
	}
	t := f.take()
	x.Slots[f.w.Slot] = t
	return t
}

func (f *faultFilter) take() *fault {
	n := len(f.free)
	if n == 0 {
		t := new(fault)
		t.timer.Target = t
		return t
	}
	t := f.free[n-1]
	f.free = f.free[:n-1]
	return t
}

// concerns reports whether the settings are for this request.
func (f *faultFilter) concerns(c *resource.Fault, x *filter.Exchange) bool {
	if c.Cluster != "" && c.Cluster != x.Record.Cluster {
		return false
	}
	if len(c.Nodes) > 0 && !slices.Contains(c.Nodes, string(x.Request.Get(nodeHeader))) {
		return false
	}
	for i := range c.Headers {
		v, ok := filter.RequestValue(&x.Request, c.Headers[i].Name, &f.scratch)
		if !filter.MatchHeader(&c.Headers[i], v, ok) {
			return false
		}
	}
	return true
}

// hit draws whether the request is of the percentage, which a request that asks for the
// fault may lower.
func (f *faultFilter) hit(p *resource.Percent, byHeader bool, header string, x *filter.Exchange, salt uint64) bool {
	limit := f.w.Percent(*p)
	if byHeader {
		if n, ok := number(x.Request.Get(header)); ok {
			limit = uint32(min(uint64(limit), n*(1_000_000/uint64(max(p.Denominator, 1)))))
		}
	}
	return x.Draw(limit, salt+uint64(f.w.Slot))
}

// delay is how long the request is held up; 0: not.
func (f *faultFilter) delay(d *resource.FaultDelay, x *filter.Exchange) time.Duration {
	if d == nil {
		return 0
	}
	long := d.Fixed
	if ms := f.w.Number(d.DurationKey, -1); ms >= 0 {
		long = time.Duration(min(ms, float64(maxDelay/time.Millisecond))) * time.Millisecond
	}
	if d.ByHeader {
		n, ok := number(x.Request.Get(delayHeader))
		if !ok {
			return 0
		}
		long = min(time.Duration(n)*time.Millisecond, maxDelay)
	}
	if !f.hit(&d.Percent, d.ByHeader, delayPercentHeader, x, saltDelay) {
		return 0
	}
	return long
}

// slow limits the rate of the response, if it is to be.
func (f *faultFilter) slow(c *resource.Fault, x *filter.Exchange) {
	s := c.Slow
	if s == nil {
		return
	}
	rate := s.Fixed
	if s.ByHeader {
		rate, _ = number(x.Request.Get(rateHeader))
	}
	if rate == 0 || !f.hit(&s.Percent, s.ByHeader, ratePercentHeader, x, saltSlow) || f.begin(c, x) == nil {
		return
	}
	f.counters.slow++
	x.ResponseRate = min(rate, resource.MaxFaultRate) << 10
}

// abort answers the request, if it is to be.
func (f *faultFilter) abort(c *resource.Fault, x *filter.Exchange) filter.Verdict {
	a := c.Abort
	if a == nil {
		return filter.Next
	}
	status, code := int(f.w.Number(a.HTTPKey, float64(a.HTTP))), a.GRPC
	switch {
	case a.ByHeader:
		n, ok := number(x.Request.Get(abortHeader))
		g, isGRPC := number(x.Request.Get(abortGRPCHeader))
		switch {
		case ok && n >= 200 && n <= 599:
			status, code = int(n), 0
		case isGRPC && g > 0 && g < uint64(grpc.Statuses):
			status, code = 200, int(g)
		default:
			return filter.Next
		}
	case a.IsGRPC:
		status, code = 200, int(f.w.Number(a.GRPCKey, float64(a.GRPC)))
	}
	if status < 200 || status > 599 || code < 0 || code >= int(grpc.Statuses) || !f.hit(&a.Percent, a.ByHeader, abortPercentHeader, x, saltAbort) {
		return filter.Next
	}
	if f.begin(c, x) == nil {
		return filter.Next
	}
	f.counters.aborts++
	x.Local = filter.LocalReply{Status: status, Body: a.Body, Details: "fault_filter_abort", Flags: record.FI, GRPC: grpc.Status(code)}
	return filter.Reply
}

// number reads a header's number; 9 digits are the most.
func number(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	return n, err == nil
}

var (
	_ filter.ResumeFilter = (*faultFilter)(nil)
	_ filter.DoneFilter   = (*faultFilter)(nil)
)
