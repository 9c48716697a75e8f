// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// retryState is what an exchange knows of its retries.
type retryState struct {
	on           resource.RetryOn
	hostAttempts int
	max          int // by policy
	used         int // by policy
	safeUsed     bool
	budget       *breaker.Limits // holds a retry of ours until the exchange ends
	timeout      time.Duration   // of the whole request, 0: none
	perTry       time.Duration
	hedge        bool // an attempt goes on beyond perTry, beside the next one
	// altTimeout: a timeout is answered with 204 (x-envoy-upstream-rq-timeout-alt-response).
	altTimeout bool
	codes      [8]int // of x-envoy-retriable-status-codes
	// most is the most that a peer may ask for that may only ask for less; see askedRetries.
	most    int
	hasMost bool
	at      int64 // when the next attempt may start; 0: not waiting
	// over: a policy has retried the request as far as it goes, ours or one behind us.
	over bool
}

// initRetry joins the route's policy with the headers of trusted peers.
func (x *exchange) initRetry() {
	r, h := &x.retry, &x.Request
	if p := x.route.action.retry; p != nil && matchAny(p.RequestHeaders, x) {
		r.on, r.max, r.hostAttempts = p.On, p.NumRetries, p.HostAttempts
	}
	r.hedge = x.route.action.hedge
	if v := h.Known(codec.NameXEnvoyHedgeOnPerTryTimeout); v != nil {
		r.hedge = string(v) == "true"
		h.RemoveKnown(codec.NameXEnvoyHedgeOnPerTryTimeout)
	}
	if v := h.Known(codec.NameXEnvoyRetryGRPCOn); v != nil {
		r.on |= parseRetryOn(v) & grpcConditions
		h.RemoveKnown(codec.NameXEnvoyRetryGRPCOn)
		r.max = max(r.max, 1)
	}
	if v := h.Known(codec.NameXEnvoyRetryOn); v != nil {
		r.on |= parseRetryOn(v)
		h.RemoveKnown(codec.NameXEnvoyRetryOn)
		r.max = max(r.max, 1)
	}
	if v := h.Known(codec.NameXEnvoyRetriableStatusCodes); v != nil {
		n := 0
		for part := range bytes.SplitSeq(v, []byte(",")) {
			if c, err := strconv.Atoi(string(bytes.TrimSpace(part))); err == nil && n < len(r.codes) {
				r.codes[n] = c
				n++
			}
		}
		h.RemoveKnown(codec.NameXEnvoyRetriableStatusCodes)
	}
	if v := h.Known(codec.NameXEnvoyRetriableHeaderNames); v != nil {
		x.retryNames = append(x.retryNames[:0], bytes.ToLower(v)...)
		h.RemoveKnown(codec.NameXEnvoyRetriableHeaderNames)
	}
	if v := h.Known(codec.NameXEnvoyMaxRetries); v != nil {
		if n, err := strconv.ParseUint(string(v), 10, 16); err == nil {
			r.max = int(n)
		}
		h.RemoveKnown(codec.NameXEnvoyMaxRetries)
	}
	if r.hasMost {
		r.max = min(r.max, r.most)
	}
}

// askedRetries takes x-envoy-max-retries of a peer that is not trusted, whose headers of
// that kind are about to be removed. Fewer retries are less work and nobody else's
// matter. Timeouts are not taken from such peers: endpoints and circuits answer for them.
func (x *exchange) askedRetries() {
	if n, err := strconv.ParseUint(string(x.Request.Known(codec.NameXEnvoyMaxRetries)), 10, 16); err == nil {
		x.retry.most, x.retry.hasMost = int(n), true
	}
}

// matchAny: without matchers every request may be retried.
func matchAny(list []resource.HeaderMatch, x *exchange) bool {
	for i := range list {
		v, ok := requestValue(&x.Request, list[i].Name, &x.w.joined)
		if matchHeader(&list[i], v, ok) {
			return true
		}
	}
	return len(list) == 0
}

func parseRetryOn(v []byte) (on resource.RetryOn) {
	for part := range bytes.SplitSeq(v, []byte(",")) {
		on |= resource.RetryCondition(bytes.TrimSpace(part))
	}
	return on
}

// attemptFailed ends a failed attempt and starts the next one, or answers.
func (x *exchange) attemptFailed(a *attempt, f *failure) filter.Verdict {
	x.main = nil
	a.finish(f)
	if f.Reason != "" {
		x.Record.TransportReason = f.Reason
	}
	if v, again := x.tryAgain(f.Class, f); again {
		return v
	}
	return x.giveUp(f)
}

// retryResponse decides whether the response that came calls for another
// attempt, or one that goes on beside it is to be waited for. Where not, the response
// goes downstream.
func (x *exchange) retryResponse(a *attempt) (v filter.Verdict, again bool) {
	if x.retry.on == 0 || x.switches() {
		return filter.Next, false
	}
	if !x.wantsRetry(&x.Response) {
		x.limits().PayRetry()
		return filter.Next, false
	}
	if x.retriedBehind() {
		x.retry.over = true
		return x.giveUpResponse(a)
	}
	if !x.mayRetry() || !x.takeRetry() {
		return x.giveUpResponse(a)
	}
	asked := x.rateLimited()
	x.main = nil
	x.hasResponse = false
	a.finish(nil)
	return x.backOff(asked)
}

// tryAgain decides on another attempt after a failure. What surely was not
// processed, and what is idempotent and had no byte of an answer, is tried once
// more whatever the policy, outside of budgets; the policy decides on the rest.
func (x *exchange) tryAgain(class failureClass, f *failure) (v filter.Verdict, again bool) {
	if x.responseStarted || !x.replayable() {
		return 0, false
	}
	safe := class == classConnect || class == classShort || class == classUnsent || class == classRefused || (class == classReset && x.Request.Method.Idempotent())
	if safe && !x.retry.safeUsed && x.retriesDone() < max(x.retry.max, 1) {
		x.retry.safeUsed = true
		x.on.stats.retries++
		return x.restart(), true
	}
	// An overloaded endpoint is not reason enough for two requests to each one of a
	// cluster that is overloaded as a whole: this is inside the budget.
	if class == classOverloaded && !x.retry.safeUsed && x.retriesDone() < max(x.retry.max, 1) {
		if !x.takeRetry() {
			return 0, false
		}
		x.retry.safeUsed = true
		return x.restart(), true
	}
	if !x.retry.covers(class, x.Request.Method) {
		return 0, false
	}
	if !x.mayRetry() || !x.takeRetry() {
		return 0, false
	}
	return x.backOff(0)
}

// covers reports whether the policy retries a class of failure.
func (r *retryState) covers(class failureClass, m codec.Method) bool {
	switch class {
	case classConnect, classShort:
		return r.on&(resource.RetryConnectFailure|resource.Retry5xx|resource.RetryReset|resource.RetryResetBeforeRequest|resource.RetryGatewayError) != 0
	case classUnsent:
		return r.on&(resource.RetryResetBeforeRequest|resource.Retry5xx|resource.RetryReset|resource.RetryGatewayError) != 0
	case classRefused:
		return r.on&(resource.RetryRefusedStream|resource.Retry5xx|resource.RetryReset|resource.RetryGatewayError) != 0
	case classOverloaded:
		return r.on&(resource.Retry5xx|resource.RetryGatewayError) != 0
	case classReset, classPerTry, classProtocol:
		return r.on&(resource.Retry5xx|resource.RetryReset|resource.RetryGatewayError) != 0
	}
	return false
}

// mayRetry reports whether another attempt by policy is possible at all.
func (x *exchange) mayRetry() bool {
	if x.responseStarted || !x.replayable() {
		return false
	}
	if x.retriesDone() >= x.retry.max {
		if x.retry.max > 0 {
			x.Record.Flags |= record.URX
			x.on.stats.retryLimit++
			x.retry.over = true
		}
		return false
	}
	return true
}

// retriesDone counts attempts behind the first, whatever they were allowed by.
func (x *exchange) retriesDone() int { return int(x.Record.Attempts) - x.fallen.attempts - 1 }

// takeRetry counts a retry by policy, inside the cluster's budget.
func (x *exchange) takeRetry() bool {
	l := x.limits()
	if x.retry.budget == nil {
		if !l.TryRetry() {
			return x.retryOverflow()
		}
		x.retry.budget = l
	}
	if !l.SpendRetry() {
		return x.retryOverflow()
	}
	x.retry.used++
	x.on.stats.retries++
	return true
}

// retryOverflow counts a retry that the budget did not allow.
func (x *exchange) retryOverflow() bool {
	x.on.stats.retryOverflow++
	x.Record.Flags |= record.UO
	x.retry.over = true
	return false
}

// restart goes back to admit at once.
func (x *exchange) restart() filter.Verdict {
	x.phase = admitPhase - 1
	return filter.Next
}

// wantsRetry applies the policy's conditions to a response.
func (x *exchange) wantsRetry(h *codec.ResponseHead) bool {
	on, s := x.retry.on, h.Status
	switch {
	case on&resource.Retry5xx != 0 && s >= 500,
		on&resource.RetryGatewayError != 0 && s >= 502 && s <= 504,
		on&resource.RetryRetriable4xx != 0 && s == 409:
		return !h.HasKnown(codec.NameXEnvoyOverloaded) || s != 503
	case on&resource.RetryEnvoyRateLimited != 0 && s == 429 && h.Get("x-envoy-ratelimited") != nil:
		return true
	}
	if on&grpcConditions != 0 && on&grpcCondition(h.Get("grpc-status")) != 0 {
		return true
	}
	if on&resource.RetryStatusCodes != 0 && s != 0 && slices.Contains(x.retry.codes[:], s) {
		return true
	}
	if on&resource.RetryHeaders != 0 && len(x.retryNames) > 0 && hasNamed(&h.Header, x.retryNames) {
		return true
	}
	p := x.route.action.retry
	if p == nil {
		return false
	}
	if on&resource.RetryStatusCodes != 0 && slices.Contains(p.StatusCodes, s) {
		return true
	}
	if on&resource.RetryHeaders != 0 {
		for i := range p.Headers {
			v, ok := joinedValue(&h.Header, p.Headers[i].Name, &x.w.joined)
			if matchHeader(&p.Headers[i], v, ok) {
				return true
			}
		}
	}
	return false
}

// hasNamed reports whether there is a field of one of the names, which are in lower case
// and separated by commas.
func hasNamed(h *codec.Header, names []byte) bool {
	for name := range bytes.SplitSeq(names, []byte(",")) {
		if name = bytes.TrimSpace(name); len(name) > 0 && h.Get(string(name)) != nil {
			return true
		}
	}
	return false
}

const grpcConditions = resource.RetryGRPCCancelled | resource.RetryGRPCDeadlineExceeded | resource.RetryGRPCInternal |
	resource.RetryGRPCResourceExhausted | resource.RetryGRPCUnavailable

// grpcCondition is the condition that a grpc-status in the response's head meets.
func grpcCondition(status []byte) resource.RetryOn {
	switch string(status) {
	case "1":
		return resource.RetryGRPCCancelled
	case "4":
		return resource.RetryGRPCDeadlineExceeded
	case "8":
		return resource.RetryGRPCResourceExhausted
	case "13":
		return resource.RetryGRPCInternal
	case "14":
		return resource.RetryGRPCUnavailable
	}
	return 0
}

func (x *exchange) limits() *breaker.Limits {
	return x.on.spec.priority(x.route.action.res.HighPriority)
}

// releaseAdmission gives back what the exchange as a whole holds.
func (x *exchange) releaseAdmission() {
	if x.retry.budget != nil {
		x.retry.budget.ReleaseRetry()
		x.retry.budget = nil
		if x.hasResponse && !x.local && !x.wantsRetry(&x.Response) {
			x.on.stats.retrySuccess++
		}
	}
}
