// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
)

// judge tells the circuit how an attempt ended. What makes it slow is the time to the
// beginning of its answer: a stream that lasts is none.
func (on *clusterOn) judge(c *breaker.Circuit, a *attempt, r breaker.Result, now int64) {
	o := c.Classify(r, a.judged())
	slow := false
	if a.sentAt != 0 {
		on.counts.Observe(now - a.startedAt)
		answered := now
		if a.headAt != 0 {
			answered = a.headAt
		}
		slow = c.Slow(answered - a.startedAt)
	}
	if a.retryAt != 0 && o != breaker.Success {
		c.RetryAt(a.retryAt, now)
	}
	c.Count(&on.counts, o, slow)
	if a.token.Probe() {
		c.ReportCall(a.token, o, slow, now)
	}
	on.changed()
}

// heeds reports whether it matters to the cluster how long an endpoint wants to be
// left alone.
func heeds(s *clusterSpec) bool {
	return s.res.Outlier != nil && s.res.Outlier.RetryAfter || s.circuit != nil && s.res.Breaker.RetryAfter
}

// tellRetryAfter says when a request that an open circuit has refused may come again,
// unless it was given a fallback.
func (x *exchange) tellRetryAfter() {
	if x.retryIn <= 0 || x.Response.Status < 400 {
		return
	}
	seconds := (x.retryIn + time.Second - 1) / time.Second
	x.w.value = strconv.AppendInt(x.w.value[:0], int64(seconds), 10)
	x.Response.SetKnown(codec.NameRetryAfter, x.w.value)
	if grpc.Is(&x.Request.Header) && !x.asksConnect() {
		x.w.value = strconv.AppendInt(x.w.value[:0], x.retryIn.Milliseconds()+1, 10)
		x.Response.Set("grpc-retry-pushback-ms", x.w.value)
	}
}
