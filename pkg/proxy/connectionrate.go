// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"maps"
	"slices"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/ratelimit"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// connectionRate is how many connections a filter chain takes over time.
type connectionRate struct {
	res     *resource.ConnectionRateLimit
	bucket  *ratelimit.Bucket
	refused *atomic.Uint64 // of the stat_prefix
}

// connectionRates is what Apply knows of them; guarded by Proxy.mu.
type connectionRates struct {
	shared  map[sharedRate]*ratelimit.Bucket
	refused map[string]*atomic.Uint64 // by stat_prefix; those that have gone stay
}

// sharedRate is what chains have in common that share a bucket.
type sharedRate struct {
	key    string
	bucket resource.TokenBucket
}

// maxRates bounds what is kept of configurations that have gone.
const maxRates = 1000

// compile makes the rates of a chain; what has not changed keeps its bucket.
func (r *connectionRates) compile(ch *chain, list []*resource.ConnectionRateLimit) {
	if r.shared == nil || len(r.shared) > maxRates {
		r.shared = map[sharedRate]*ratelimit.Bucket{}
	}
	if r.refused == nil || len(r.refused) > maxRates {
		r.refused = map[string]*atomic.Uint64{}
	}
	old := ch.rates.Load()
	var out []connectionRate
	for i, res := range list {
		c := connectionRate{res: res, refused: r.refused[res.StatPrefix]}
		if c.refused == nil {
			c.refused = new(atomic.Uint64)
			r.refused[res.StatPrefix] = c.refused
		}
		key := sharedRate{res.ShareKey, res.Bucket}
		switch {
		case old != nil && i < len(*old) && (*old)[i].res.Bucket == res.Bucket && (*old)[i].res.ShareKey == res.ShareKey:
			c.bucket = (*old)[i].bucket
		case res.ShareKey != "" && r.shared[key] != nil:
			c.bucket = r.shared[key]
		default:
			c.bucket = ratelimit.NewBucket(ratelimit.Config(res.Bucket))
		}
		if res.ShareKey != "" {
			r.shared[key] = c.bucket
		}
		out = append(out, c)
	}
	if out == nil {
		ch.rates.Store(nil)
		return
	}
	ch.rates.Store(&out)
}

// tooMany takes a token of each rate of the chain; true: there was none.
func (ch *chain) tooMany(p *Proxy, now int64) bool {
	rates := ch.rates.Load()
	if rates == nil {
		return false
	}
	for i := range *rates {
		r := &(*rates)[i]
		if p.runtimePercent(r.res.Enabled) > 0 && !r.bucket.Take(1, now) {
			r.refused.Add(1)
			return true
		}
	}
	return false
}

func (r *connectionRates) samples(s *sampler) {
	for _, prefix := range slices.Sorted(maps.Keys(r.refused)) {
		name := statName(prefix)
		s.in(metrics.NewScope("local_rate_limit."+name, "local_rate_limit", metrics.Tag{Name: "envoy_local_network_ratelimit_prefix", Value: name}))
		s.add("rate_limited", "Connections closed because there were too many in the time.", counter, r.refused[prefix].Load())
	}
	s.in(nil)
}
