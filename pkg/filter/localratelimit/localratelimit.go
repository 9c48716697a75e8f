// SPDX-License-Identifier: Apache-2.0

// Package localratelimit is the HTTP filter that refuses requests for which a token
// bucket of this process has no token (Envoy's envoy.filters.http.local_ratelimit): one
// default bucket, and more for requests that have certain descriptors. All workers take
// from the same buckets. They belong to their configuration: when it is changed, they
// are new, and full.
//
// Descriptors are made as the actions of rate_limits say: descriptor.go. Limits of a
// whole mesh, by a service that all ask, are another filter's.
package localratelimit

import (
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/ratelimit"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// TypeURL is the type of the filter's configuration.
const TypeURL = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"

// Spec describes the filter, with counters of its own.
func Spec() filter.Spec {
	all := new(filter.Counters[counters])
	return filter.Spec{
		Name:     "envoy.filters.http.local_ratelimit",
		TypeURL:  TypeURL,
		PerRoute: true,
		Build: func(res any) any {
			l := res.(*resource.LocalRateLimit)
			return newLimits(l, all.Set(l.StatPrefix))
		},
		New: func(config any, w filter.Worker) filter.Filter {
			return &rateFilter{w: w, limits: config.(*limits)}
		},
		Counts: func(worker int, dst []filter.Count) []filter.Count { return counts(all, worker, dst) },
	}
}

// Salts of the draws of one exchange, beside those of other filters.
const (
	saltEnabled  = 0x1_0000
	saltEnforced = 0x2_0000
)

// connectionKeys is how many values of a descriptor left open a connection knows at a
// time, where each has buckets of its own: there may be many connections.
const connectionKeys = 64

// limits are settings with their buckets. All workers share them.
type limits struct {
	*resource.LocalRateLimit
	counters *filter.CounterSet[counters]
	exact    map[string]*rule // by descriptor, as descriptor.go writes it
	open     []*rule          // with values left open, in order
	rules    []*rule          // of all descriptors, in order
	shared   *buckets
}

// rule is a descriptor.
type rule struct {
	entries []resource.RateEntry
	shadow  bool
	config  ratelimit.Config
	keys    int // 0: one bucket, else one for each of so many values
}

// buckets are those of all connections, or of one.
type buckets struct {
	standard *ratelimit.Bucket // nil: none
	of       map[*rule]held    // those that all share have all of them, a connection those it has used
}

// held is what a rule charges: one of both.
type held struct {
	bucket *ratelimit.Bucket
	table  *ratelimit.Table
}

func newLimits(l *resource.LocalRateLimit, c *filter.CounterSet[counters]) *limits {
	out := &limits{LocalRateLimit: l, counters: c, exact: map[string]*rule{}, shared: newBuckets(l)}
	for i := range l.Descriptors {
		d := &l.Descriptors[i]
		r := &rule{entries: d.Entries, shadow: d.Shadow, config: ratelimit.Config(d.Bucket)}
		if r.isOpen() {
			r.keys = l.MaxDynamic
			if l.PerConnection {
				r.keys = min(r.keys, connectionKeys)
			}
			out.open = append(out.open, r)
		} else {
			var key []byte
			for _, e := range d.Entries {
				key = appendText(appendText(key, e.Key), e.Value)
			}
			out.exact[string(key)] = r
		}
		out.rules = append(out.rules, r)
		out.shared.of[r] = r.hold()
	}
	return out
}

func newBuckets(l *resource.LocalRateLimit) *buckets {
	b := &buckets{of: map[*rule]held{}}
	if l.Bucket != nil {
		b.standard = ratelimit.NewBucket(ratelimit.Config(*l.Bucket))
	}
	return b
}

// bucket returns what a descriptor that fits the rule is charged to. A connection makes
// its own when it first needs it.
func (b *buckets) bucket(r *rule, key []byte, now int64) *ratelimit.Bucket {
	h, ok := b.of[r]
	if !ok {
		h = r.hold()
		b.of[r] = h
	}
	if h.table != nil {
		return h.table.Bucket(key, now)
	}
	return h.bucket
}

func (r *rule) hold() held {
	if r.keys > 0 {
		return held{table: ratelimit.NewTable(r.config, r.keys)}
	}
	return held{bucket: ratelimit.NewBucket(r.config)}
}

func (r *rule) isOpen() bool {
	for _, e := range r.entries {
		if e.Value == "" {
			return true
		}
	}
	return false
}

// rateFilter serves the exchanges of one chain on one worker. All but the limits is
// loop-owned.
type rateFilter struct {
	w      filter.Worker
	limits *limits // where the route has none

	// of the request that is looked at
	charged []charge
	entries []span
	key     []byte
	scratch []byte
}

// charge is what a descriptor has found.
type charge struct {
	bucket *ratelimit.Bucket
	hits   uint32
	shadow bool
}

// of returns the limits that hold for a request.
func (f *rateFilter) of(x *filter.Exchange) *limits {
	if l, ok := x.Setting(f.w.Name).(*limits); ok {
		return l
	}
	return f.limits
}

// in returns the buckets for a request.
func (l *limits) in(x *filter.Exchange) *buckets {
	if !l.PerConnection || x.Connection == nil {
		return l.shared
	}
	if b, ok := x.Connection.Get(l).(*buckets); ok {
		return b
	}
	b := newBuckets(l.LocalRateLimit)
	x.Connection.Put(l, b)
	return b
}

// OnRequest takes a token for the request, and refuses it where there is none.
func (f *rateFilter) OnRequest(x *filter.Exchange) filter.Verdict {
	l := f.of(x)
	if !x.Draw(f.w.Percent(l.Enabled), saltEnabled+uint64(f.w.Slot)) {
		return filter.Next
	}
	c := l.counters.On(f.w.Index)
	c.enabled++
	b := l.in(x)
	f.charged = f.charged[:0]
	if len(l.Descriptors) > 0 {
		f.describe(l, b, x)
	}
	taken, ok := f.take(l, b, x.Now, c)
	if taken != nil && (l.XRateLimit || !ok) {
		x.Slots[f.w.Slot] = taken
	}
	if ok {
		c.ok++
		return filter.Next
	}
	c.limited++
	if !x.Draw(f.w.Percent(l.Enforced), saltEnforced+uint64(f.w.Slot)) {
		x.Editor.AddRequestHeaders(l.NotEnforcedAdd)
		return filter.Next
	}
	c.enforced++
	x.Local = filter.LocalReply{Status: l.Status, Body: refusal, Details: "local_rate_limited", Flags: record.RL}
	if l.ResourceExhausted {
		x.Local.GRPC = grpc.ResourceExhausted
	}
	return filter.Reply
}

var refusal = []byte("local_rate_limited")

// take takes what the request costs: of the slowest bucket first, so that what others
// have is not spent on a request that is refused. It returns the bucket that tells most
// about the request.
func (f *rateFilter) take(l *limits, b *buckets, now int64, c *counters) (*ratelimit.Bucket, bool) {
	for i := range f.charged {
		for k := i; k > 0 && f.charged[k].bucket.Slower(f.charged[k-1].bucket); k-- {
			f.charged[k], f.charged[k-1] = f.charged[k-1], f.charged[k]
		}
	}
	for i := range f.charged {
		ch := &f.charged[i]
		if ch.bucket.Take(ch.hits, now) {
			continue
		}
		if !ch.shadow {
			return ch.bucket, false
		}
		c.shadow++
	}
	none := len(f.charged) == 0
	if b.standard != nil && (none || l.AlwaysDefault) && !b.standard.Take(1, now) {
		return b.standard, false
	}
	if none {
		return b.standard, true
	}
	return f.charged[0].bucket, true
}

// OnResponse tells the client how many tokens are left.
func (f *rateFilter) OnResponse(x *filter.Exchange) filter.Verdict {
	if b, ok := x.Slots[f.w.Slot].(*ratelimit.Bucket); ok && f.of(x).XRateLimit {
		f.tell(x, b)
	}
	return filter.Next
}

// OnReply completes the refusal.
func (f *rateFilter) OnReply(x *filter.Exchange) {
	l := f.of(x)
	x.Editor.AddResponseHeaders(l.ResponseAdd)
	b, ok := x.Slots[f.w.Slot].(*ratelimit.Bucket)
	if !ok {
		return
	}
	h := &x.Response.Header
	if l.RetryAfter && x.Local.Status == 429 && h.Index("retry-after", 0) < 0 {
		h.Set("retry-after", f.number(max(1, seconds(b.Next(x.Now)))))
	}
	if l.XRateLimit {
		f.tell(x, b)
	}
}

// tell writes the fields of draft-polli-ratelimit-headers-03.
func (f *rateFilter) tell(x *filter.Exchange, b *ratelimit.Bucket) {
	h := &x.Response.Header
	h.Set("x-ratelimit-limit", f.number(uint64(b.Max())))
	h.Set("x-ratelimit-remaining", f.number(uint64(b.Left(x.Now))))
	h.Set("x-ratelimit-reset", f.number(seconds(b.Next(x.Now))))
}

func (f *rateFilter) number(n uint64) []byte {
	f.scratch = strconv.AppendUint(f.scratch[:0], n, 10)
	return f.scratch
}

// seconds rounds up.
func seconds(d time.Duration) uint64 { return uint64((d + time.Second - 1) / time.Second) }

var (
	_ filter.ResponseFilter = (*rateFilter)(nil)
	_ filter.ReplyFilter    = (*rateFilter)(nil)
)
