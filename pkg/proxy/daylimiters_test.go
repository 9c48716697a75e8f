// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/adaptiveconcurrency"
	"github.com/outrigger-mesh/outrigger/pkg/filter/localratelimit"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// The filters of a day whose limits all workers share. Whatever the workers do at a time,
// and also where a new configuration takes the place of another meanwhile,
//
//   - a rate limit lets through what its bucket has, to the token and the nanosecond: it
//     never has less than nothing, and refuses only while it has less than one token;
//   - adaptive concurrency counts as under way what is, lets nothing more through than
//     its limit, and keeps that between the least and the most that is configured.

// dayBucket is a token bucket as it is reckoned here, in nanoseconds of filling.
type dayBucket struct {
	name        string // stat_prefix
	token, full time.Duration
	level       time.Duration
	at          time.Duration
	let, denied uint64 // as counted at the last look
}

// rateLimit draws a rate limit with a bucket that nobody has taken from.
func (d *day) rateLimit() *resource.LocalRateLimit {
	rng := d.rng
	b := &resource.TokenBucket{Max: uint32(1 + rng.IntN(30)), PerFill: one[uint32](rng, 1, 5), Interval: one(rng, 5*ms, 50*ms, 200*ms)}
	l := &resource.LocalRateLimit{
		StatPrefix: fmt.Sprintf("rl%d", len(d.buckets)), Status: 429, Enabled: partOf(100), Enforced: partOf(100), AlwaysDefault: true, MaxDynamic: 20,
		PerConnection: maybe(rng, 1, 4), Bucket: b,
	}
	token := b.Interval / time.Duration(b.PerFill)
	m := &dayBucket{name: l.StatPrefix, token: token, full: token * time.Duration(b.Max), level: token * time.Duration(b.Max), at: d.world.Now()}
	if l.PerConnection {
		m.token = 0 // there are many
	}
	d.buckets = append(d.buckets, m)
	return l
}

// rates takes from the buckets what the filters say that they took since the last look,
// all of which was at this time.
func (w *dayWatch) rates(d *day) {
	spec := d.plan.rates
	if spec == nil {
		return
	}
	w.counts = w.counts[:0]
	for i := range d.p.workers {
		w.counts = spec.Counts(i, w.counts)
	}
	for _, b := range d.buckets {
		let, denied := uint64(0), uint64(0)
		for i := range w.counts {
			switch c := &w.counts[i]; {
			case len(c.Scope) < len(b.name) || c.Scope[:len(b.name)] != b.name || c.Scope[len(b.name)] != '.':
			case c.Name == "ok":
				let += c.Value
			case c.Name == "rate_limited":
				denied += c.Value
			}
		}
		b.look(d, let, denied)
	}
}

func (b *dayBucket) look(d *day, let, denied uint64) {
	taken, refused := let-b.let, denied-b.denied
	b.let, b.denied = let, denied
	if b.token == 0 || taken == 0 && refused == 0 {
		return
	}
	now := d.world.Now()
	b.level = min(b.full, b.level+now-b.at) - time.Duration(taken)*b.token
	b.at = now
	d.sums.limited += int(refused)
	switch {
	case b.level < 0:
		d.fail("the bucket of %s has given %d tokens too many", b.name, (-b.level+b.token-1)/b.token)
	case refused > 0 && b.level >= b.token:
		d.fail("the bucket of %s has refused %d requests with %d tokens left", b.name, refused, b.level/b.token)
	}
}

// dayAdaptive is a configuration of adaptive concurrency.
type dayAdaptive struct {
	config      any
	least, most uint64
	outstanding uint64 // at the last look
	limit       uint64
}

// adaptive draws one.
func (d *day) adaptive() any {
	rng := d.rng
	a := &dayAdaptive{most: uint64(4 + rng.IntN(12))}
	measured, least := uint64(1+rng.IntN(3)), uint64(1+rng.IntN(4))
	a.least = min(measured, least)
	count := func(n uint64) []byte { return append([]byte{1 << 3}, byte(n)) }
	span := func(t time.Duration) []byte {
		return binary.AppendUvarint([]byte{2 << 3}, uint64(t))
	}
	percent := append([]byte{1<<3 | 1}, binary.LittleEndian.AppendUint64(nil, math.Float64bits(float64(rng.IntN(100))))...)
	b := message(1, message(1, percent,
		2, message(2, count(a.most), 3, span(one(rng, 20*ms, 100*ms)), 4, count(least)),
		3, message(1, span(one(rng, 50*ms, 900*ms)), 2, count(uint64(1+rng.IntN(8))), 4, count(measured)),
	))
	config, err := adaptiveconcurrency.Spec().Parse(b)
	if err != nil {
		d.fail("%v", err)
	}
	a.config = config
	d.adaptives = append(d.adaptives, a)
	return config
}

// concurrency looks at what adaptive concurrency lets through.
func (w *dayWatch) concurrency(d *day) {
	for _, a := range d.adaptives {
		s := adaptiveconcurrency.StateForTest(a.config)
		if s.Outstanding > a.outstanding && s.Outstanding > max(s.Limit, a.limit) {
			d.fail("%d requests are under way by adaptive concurrency, %d before, its limit is %d, and was %d", s.Outstanding, a.outstanding, s.Limit, a.limit)
		}
		if s.Limit < a.least || s.Limit > a.most {
			d.fail("the limit of adaptive concurrency is %d, want %d to %d", s.Limit, a.least, a.most)
		}
		if s.Limit != a.limit {
			d.sums.adapted++
		}
		a.outstanding, a.limit = s.Outstanding, s.Limit
	}
}

// auditPassages compares what is counted with the requests that hold a place.
func (d *day) auditPassages(found map[any]uint64) {
	for _, a := range d.adaptives {
		if s := adaptiveconcurrency.StateForTest(a.config); s.Outstanding != found[a.config] {
			d.fail("adaptive concurrency counts %d requests, there are %d", s.Outstanding, found[a.config])
		}
	}
}

// passage adds the place that an exchange holds.
func passage(x *exchange, found map[any]uint64) {
	if x.manager == nil {
		return
	}
	for i, f := range x.manager.res.Filters {
		if f.TypeURL == adaptiveconcurrency.TypeURL && i < len(x.Slots) && x.Slots[i] != nil {
			found[f.Config]++
		}
	}
}

// drawLimiters draws the filters.
func (d *day) drawLimiters(add func(filter.Spec, any)) {
	rng := d.rng
	if maybe(rng, 1, 3) {
		s := localratelimit.Spec()
		d.plan.rates = &s
		add(s, d.rateLimit())
	}
	if maybe(rng, 1, 3) {
		add(adaptiveconcurrency.Spec(), d.adaptive())
	}
}

// swapFilters puts other settings of those filters into service, whose buckets and
// counts begin anew while requests of the old ones are under way.
func (d *day) swapFilters() {
	name := "l"
	l, fc := *d.snap.Listeners[name], *d.snap.Listeners[name].FilterChains[0]
	m := *fc.HTTP
	m.Filters = slices.Clone(m.Filters)
	for i := range m.Filters {
		switch f := &m.Filters[i]; f.TypeURL {
		case localratelimit.TypeURL:
			f.Config = d.plan.rates.Build(d.rateLimit())
		case adaptiveconcurrency.TypeURL:
			f.Config = d.adaptive()
		}
	}
	if maybe(d.rng, 1, 2) {
		fc.Name += "~"
	}
	fc.HTTP = &m
	l.FilterChains = []*resource.FilterChain{&fc}
	d.snap.Listeners[name] = &l
	d.note("other limits of filters")
	d.apply()
}
