// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// peakEWMA takes of two random hosts, drawn by weight, the one with less latency ×
// load: the estimate of its round-trip time × (requests in flight + 1). The estimate
// follows a peak at once and forgets it exponentially, so that it is the worst of
// late. Sources: Finagle and Linkerd, "Peak EWMA".
type peakEWMA struct {
	decay      float64 // nanoseconds
	defaultRTT float64 // nanoseconds, of hosts that have not answered yet
	penalty    float64 // cost of those of them that have requests
}

func newPeakEWMA(cfg *resource.LoadBalancing, _ uint64) Picker {
	c := &cfg.PeakEWMA
	return &peakEWMA{
		decay: float64(max(c.Decay, 1)), defaultRTT: float64(c.DefaultRTT),
		penalty: c.Penalty * float64(time.Millisecond),
	}
}

// Pick implements Picker.
func (p *peakEWMA) Pick(v *View, r *Request) *Host { return pick(p, v, r, false) }

func (p *peakEWMA) next(s *Set, _ int, r *Request, attempt int) int {
	n := len(s.Hosts)
	x := mix(r.Random + uint64(attempt)*0x9e3779b97f4a7c15)
	var i, j int
	if a, ok := s.table.(*alias); ok {
		i, j = a.find(x, 0), a.find(mix(x), 0)
	} else {
		i, j = below(uint32(x), n), below(uint32(x>>32), max(n-1, 1))
		if j >= i && n > 1 {
			j++ // two different ones
		}
	}
	if i != j && p.cheaper(s.Hosts[j], s.Hosts[i], r.Now) {
		return j
	}
	return i
}

// cheaper reports whether h costs less than other. What estimates decay by is
// compared as exponents: an exponential function is the dearest part of a pick.
func (p *peakEWMA) cheaper(h, other *Host, now int64) bool {
	x, xAge := p.cost(h, now)
	y, yAge := p.cost(other, now)
	if xAge != yAge {
		y *= math.Exp((xAge - yAge) / p.decay)
	}
	return x < y
}

// cost is a host's of a time before now, by its age in nanoseconds. Since then it
// has decayed: without answers it falls to nothing, so that a slow host gets another
// chance.
func (p *peakEWMA) cost(h *Host, now int64) (cost, age float64) {
	active := float64(max(h.Active.Load(), 0))
	if l := h.learned.Load(); l != nil {
		if w := l.rtt.Load(); w != 0 {
			return w.estimate() * (active + 1), w.age(now)
		}
	}
	if active > 0 && p.penalty > 0 {
		return p.penalty + active, 0
	}
	return p.defaultRTT * (active + 1), 0
}

// learned is what a host's answers have told.
type learned struct {
	rtt    atomicRTT // of peak_ewma
	weight reported  // of client_side_weighted_round_robin
}

// learn makes room on the hosts where the policy goes by their answers.
func learn(hosts []*Host, policy resource.LBPolicy) {
	if policy != resource.PeakEWMA && policy != resource.ClientWeighted {
		return
	}
	for _, h := range hosts {
		if h.learned.Load() == nil {
			h.learned.CompareAndSwap(nil, new(learned))
		}
	}
}

// ObserveRTT tells peak_ewma how long the host took to answer, in nanoseconds, or
// what a failure counts for. now is monotonic, in nanoseconds. Any loop calls it,
// once per answer.
func (h *Host) ObserveRTT(cfg *resource.LatencyEstimate, took, now int64) {
	l := h.learned.Load()
	if l == nil {
		return
	}
	for {
		old := l.rtt.Load()
		if l.rtt.CompareAndSwap(old, old.observe(float64(max(took, 1)), now, float64(max(cfg.Decay, 1)))) {
			return
		}
	}
}

// rtt is an estimate and its time in one word, so that workers agree on both: the
// estimate in nanoseconds as a float32 above, the time in steps of 2^20 ns below.
// The zero rtt is none.
type rtt uint64

const rttStep = 20 // bits; steps of about one millisecond wrap after 52 days

func newRTT(estimate float64, now int64) rtt {
	return rtt(math.Float32bits(float32(estimate)))<<32 | rtt(uint32(now>>rttStep))
}

func (r rtt) estimate() float64 { return float64(math.Float32frombits(uint32(r >> 32))) }

// keeps is how much of the estimate is left after the time since it was made.
func (r rtt) keeps(now int64, decay float64) float64 { return math.Exp(-r.age(now) / decay) }

// age is the nanoseconds since the estimate was made, at least 0.
func (r rtt) age(now int64) float64 {
	return float64(max(int32(uint32(now>>rttStep)-uint32(r)), 0)) * (1 << rttStep)
}

func (r rtt) observe(took float64, now int64, decay float64) rtt {
	if old := r.estimate(); r != 0 && took < old {
		k := r.keeps(now, decay)
		took = old*k + took*(1-k)
	}
	return newRTT(took, now)
}

// atomicRTT is an rtt that all workers share.
type atomicRTT struct{ word atomic.Uint64 }

func (a *atomicRTT) Load() rtt { return rtt(a.word.Load()) }

func (a *atomicRTT) CompareAndSwap(old, next rtt) bool {
	return a.word.CompareAndSwap(uint64(old), uint64(next))
}

var _ chooser = (*peakEWMA)(nil)
