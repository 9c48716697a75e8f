// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// admission spreads new streams: a fleet that reconnects at once after an
// outage is let in at a rate that leaves time to answer those already in. It
// is a bucket of tokens that may go into debt; the debt is the wait.
type admission struct {
	perSecond float64
	burst     float64
	tokens    float64
	last      time.Time
}

// reserve takes a token and answers how long its owner has to wait.
func (a *admission) reserve(now time.Time) time.Duration {
	if a.perSecond <= 0 {
		return 0
	}
	if a.last.IsZero() {
		a.tokens, a.last = a.burst, now
	}
	a.tokens = min(a.burst, a.tokens+now.Sub(a.last).Seconds()*a.perSecond)
	a.last = now
	a.tokens--
	if a.tokens >= 0 {
		return 0
	}
	return time.Duration(-a.tokens / a.perSecond * float64(time.Second))
}

// giveBack returns the token of somebody who did not wait for it.
func (a *admission) giveBack() { a.tokens = min(a.burst, a.tokens+1) }

// admit blocks the stream's own goroutine until its turn. A client that would
// wait longer than the limit is told to come back later, by its own backoff.
func (s *Server) admit(ctx context.Context) error {
	s.mu.Lock()
	if len(s.streams) >= s.cfg.MaxStreams {
		s.mu.Unlock()
		s.counters.refused.Add(1)
		return status.Errorf(codes.ResourceExhausted, "too many xDS streams: %d are open", s.cfg.MaxStreams)
	}
	wait := s.admission.reserve(s.cfg.Clock())
	if wait > s.cfg.MaxConnectWait {
		s.admission.giveBack()
		s.mu.Unlock()
		s.counters.refused.Add(1)
		return status.Error(codes.Unavailable, "too many new xDS streams at once: retry later")
	}
	s.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-s.ctx.Done():
		return status.Error(codes.Unavailable, "the control plane is stopping")
	}
}
