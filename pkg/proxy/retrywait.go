// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// backOff waits before another attempt, then goes back to admit: a random time below
// (2^N-1) times the base, capped; or what the endpoint asked for, see rateLimited, and
// up to half of that more.
func (x *exchange) backOff(asked time.Duration) (filter.Verdict, bool) {
	wait := time.Duration(0)
	if asked > 0 {
		x.on.stats.retryRateLimited++
		wait = asked + x.randomBelow(asked/2)
	} else {
		x.on.stats.retryExponential++
		base, limit := backOffOf(x.route.action.retry)
		wait = x.randomBelow(min(base*(1<<min(x.retry.used, 16)-1), limit))
	}
	x.phase = admitPhase
	x.retry.at = x.w.loop.Now() + int64(wait)
	x.ensure(x.retry.at)
	return filter.Wait, true
}

// backOffOf are the base and the longest wait of a policy, which may be nil.
func backOffOf(p *resource.RetryPolicy) (base, limit time.Duration) {
	if p == nil || p.BaseInterval <= 0 {
		return 25 * time.Millisecond, 250 * time.Millisecond
	}
	if p.MaxInterval == 0 {
		return p.BaseInterval, 10 * p.BaseInterval
	}
	return p.BaseInterval, p.MaxInterval
}

func (x *exchange) randomBelow(d time.Duration) time.Duration {
	return time.Duration(x.w.random.Uint64() % uint64(max(d, 1)))
}

// rateLimited is how long the response asks callers to wait, by the headers that the
// policy names; 0: it does not, or longer than the policy allows.
func (x *exchange) rateLimited() time.Duration {
	p := x.route.action.retry
	if p == nil || p.RateLimited == nil {
		return 0
	}
	for i := range p.RateLimited.Headers {
		h := &p.RateLimited.Headers[i]
		if d := resetTime(x.Response.Get(h.Name), h, x.w.loop.Wall()); d > 0 && d <= p.RateLimited.MaxInterval {
			return d
		}
	}
	return 0
}

// maxResetSeconds keeps what is parsed within a Duration.
const maxResetSeconds = uint64(1<<63-1) / uint64(time.Second)

func resetTime(v []byte, h *resource.ResetHeader, wall int64) time.Duration {
	n, err := strconv.ParseUint(string(v), 10, 63)
	if err != nil || n > maxResetSeconds {
		return 0
	}
	d := time.Duration(n) * time.Second
	if h.UnixTimestamp {
		d -= time.Duration(wall)
	}
	return d
}
