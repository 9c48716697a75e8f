// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/orca"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// otherRequests are those in flight to the cluster, of both priorities and all
// workers, without the one that asks, which has been admitted.
func (s *clusterSpec) otherRequests() int64 {
	return s.limits.AllRequests() - 1
}

// failurePenalty is the round-trip time that peak_ewma takes a failure for, so that
// a host that fails fast draws no requests. A host may ask for more, up to
// mostPenalty. Source: Linkerd.
const (
	failurePenalty = int64(5 * time.Second)
	mostPenalty    = int64(300 * time.Second)
)

// learn tells the policy of the head of an answer, where it goes by answers.
func (on *clusterOn) learn(a *attempt, h *codec.Header) {
	lb := &on.spec.res.LB
	if a.host == nil {
		return
	}
	now := on.w.loop.Now()
	if lb.Policy == resource.ClientWeighted {
		on.learnLoad(a, h)
	}
	if lb.Policy != resource.PeakEWMA {
		return
	}
	took := now - a.sentAt
	if a.refuses() {
		took = max(took, penalty(h))
	}
	a.host.ObserveRTT(&lb.PeakEWMA, took, now)
}

// learnFailure tells it of an attempt without an answer, and of calls of gRPC whose
// trailers say that they have failed.
func (on *clusterOn) learnFailure(a *attempt, r breaker.Result, now int64) {
	lb := &on.spec.res.LB
	if lb.Policy != resource.PeakEWMA || a.host == nil || r == breaker.Response && (!a.refuses() || refused(a.status)) {
		return
	}
	a.host.ObserveRTT(&lb.PeakEWMA, max(now-a.startedAt, failurePenalty), now)
}

// learnLoad tells it of the load report in a head or in trailers, if there is one.
func (on *clusterOn) learnLoad(a *attempt, h *codec.Header) {
	cfg := on.spec.res.LB.ClientWeights
	if cfg == nil || a.host == nil {
		return
	}
	if r, ok := orca.Parse(h, cfg.Metrics); ok {
		a.host.ReportLoad(cfg, &r, on.w.loop.Now())
	}
}

// refuses reports whether the answer is a failure of the host.
func (a *attempt) refuses() bool { return refused(a.judged()) }

func refused(status int) bool { return status >= 500 || status == 429 }

// penalty is what a failure counts for, by the host's own word where it says when
// to come again.
func penalty(h *codec.Header) int64 {
	if n := number(h.Known(codec.NameRetryAfter)); n > 0 {
		return min(n*int64(time.Second), mostPenalty)
	}
	if n := number(h.Get("grpc-retry-pushback-ms")); n > 0 {
		return min(n*int64(time.Millisecond), mostPenalty)
	}
	return failurePenalty
}

// number reads up to nine digits; 0 is anything else, a date too.
func number(b []byte) (n int64) {
	if len(b) > 9 {
		return 0
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
