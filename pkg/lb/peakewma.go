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
	decay      float64 // time steps of estimates in which they fall by half
	defaultRTT float64 // nanoseconds, of hosts that have not answered yet
	penalty    float64 // cost of those of them that have requests
}

func newPeakEWMA(cfg *resource.LoadBalancing, _ uint64) Picker {
	c := &cfg.PeakEWMA
	return &peakEWMA{
		decay: float64(max(c.Decay, 1)) * math.Ln2 / (1 << rttStep), defaultRTT: float64(c.DefaultRTT),
		penalty: c.Penalty * float64(time.Millisecond),
	}
}

// Pick implements Picker.
func (p *peakEWMA) Pick(v *View, r *Request) *Host {
	if s := v.plain(r); s != nil {
		return s.Hosts[p.next(s, v.first, r, 0)]
	}
	return pick(p, v, r, false)
}

func (p *peakEWMA) next(s *Set, _ int, r *Request, attempt int) int {
	n := len(s.Hosts)
	x := mix(r.Random + uint64(attempt)*0x9e3779b97f4a7c15)
	var i, j int
	if a, ok := s.table.(alias); ok {
		i, j = a.find(x, 0), a.find(mix(x), 0)
	} else {
		i, j = below(uint32(x), n), below(uint32(x>>32), max(n-1, 1))
		if n > 1 {
			j += 1 + (j-i)>>63 // two different ones: j+1 where j >= i
		}
	}
	if p.cheaper(s.Hosts[j], s.Hosts[i], r.Now) {
		return j
	}
	return i
}

// cheaper reports whether h costs less than other. What estimates decay by is
// compared as exponents: one exponential function for both.
func (p *peakEWMA) cheaper(h, other *Host, now int64) bool {
	// Both are read first: hosts are many, and lie anywhere in memory.
	x, y := h.rtt.Load(), other.rtt.Load()
	xActive, yActive := h.Active.Load(), other.Active.Load()
	cost := p.cost(x, xActive)
	return cost < p.cost(y, yActive)*exp2(float64(x.steps(now)-y.steps(now))/p.decay)
}

// cost is a host's at the time of its estimate. Since then it has decayed: without
// answers it falls to nothing, so that a slow host gets another chance.
func (p *peakEWMA) cost(r rtt, requests int32) float64 {
	active := float64(max(requests, 0))
	if r != 0 {
		return r.estimate() * (active + 1)
	}
	if active > 0 && p.penalty > 0 {
		return p.penalty + active
	}
	return p.defaultRTT * (active + 1)
}

// exp2 is 2^x with a relative error below 2e-10, and is exact for 0. math.Exp2 would be
// the dearest part of a pick, for digits that estimates do not have. What is out of
// range is as good as 0 or infinite.
func exp2(x float64) float64 {
	x = min(max(x, -1000), 1000) + 1023
	exponent := uint64(x)
	f := x - float64(exponent)
	// A polynomial through (2^f-1)/f at the Chebyshev nodes of [0, 1].
	f2 := f * f
	p := (0.6931471807718973 + 0.24022648620381593*f) + (0.05550443944761838+0.009616159879261071*f)*f2 +
		((0.0013389052822184314+0.00014609632157775468*f)+2.0731864628877723e-05*f2)*(f2*f2)
	return math.Float64frombits(exponent<<52) * (1 + f*p)
}

// ObserveRTT tells peak_ewma how long the host took to answer, in nanoseconds, or
// what a failure counts for. now is monotonic, in nanoseconds. Any loop calls it,
// once per answer.
func (h *Host) ObserveRTT(cfg *resource.LatencyEstimate, took, now int64) {
	for {
		old := h.rtt.Load()
		if h.rtt.CompareAndSwap(old, old.observe(float64(max(took, 1)), now, float64(max(cfg.Decay, 1)))) {
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

// age is the nanoseconds since the estimate was made.
func (r rtt) age(now int64) float64 { return float64(r.steps(now)) * (1 << rttStep) }

// steps is the age of the estimate in its own steps, at least 0; that of none is 0.
func (r rtt) steps(now int64) int32 {
	if r == 0 {
		return 0
	}
	return max(int32(uint32(now>>rttStep)-uint32(r)), 0)
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
