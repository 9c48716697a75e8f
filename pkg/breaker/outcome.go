// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Outcome is what became of a request, in Hystrix's terms.
type Outcome uint8

// The outcomes. Success and the errors (Failure, Timeout, ConnectFailure and
// Rejected) make up a circuit's health; the others are only counted.
const (
	Success Outcome = iota
	Failure
	Timeout
	ConnectFailure // shown as a failure by the stream
	Rejected       // by a limit
	ShortCircuited // by the open circuit
	BadRequest     // an error of a class that does not count
	FallbackSuccess
	FallbackFailure
	FallbackRejection
	FallbackMissing
	outcomes

	// Not an outcome: calls that were slow, counted beside theirs.
	slow    = outcomes
	counted = outcomes + 1
)

var outcomeNames = [outcomes]string{
	"success", "failure", "timeout", "connect-failure", "rejected", "short-circuited",
	"bad-request", "fallback-success", "fallback-failure", "fallback-rejection", "fallback-missing",
}

// String is the outcome's name in lower case with hyphens.
func (o Outcome) String() string { return outcomeNames[o] }

// isError reports whether the outcome makes a circuit less healthy.
func (o Outcome) isError() bool { return o >= Failure && o <= Rejected }

// Result is how an exchange with the upstream ended.
type Result uint8

// The results.
const (
	Response   Result = iota // a response; its status decides
	TimedOut                 // the request or a try of it
	NotConnect               // no connection could be made
	Reset                    // the connection broke before the response was complete
)

// classify applies the rules about which classes count as errors. A response of a
// class that does not count is a success: the cluster answered.
func classify(cfg *resource.CircuitBreaker, r Result, status int) Outcome {
	switch r {
	case TimedOut:
		return countIf(cfg.CountTimeout, Timeout)
	case NotConnect:
		return countIf(cfg.CountConnectFailure, ConnectFailure)
	case Reset:
		return countIf(cfg.CountReset, Failure)
	}
	if status >= 500 && cfg.Count5xx || status >= 400 && status < 500 && cfg.Count4xx ||
		slices.Contains(cfg.CountStatus, status) {
		return Failure
	}
	return Success
}

func countIf(yes bool, o Outcome) Outcome {
	if yes {
		return o
	}
	return BadRequest
}

// Counts are what one loop has seen of one circuit since the last Flush. The loop
// owns them and increments them as it likes.
type Counts struct {
	Success, Failure, Timeout, ConnectFailure, Rejected, ShortCircuited, BadRequest uint32
	FallbackSuccess, FallbackFailure, FallbackRejection, FallbackMissing            uint32
	Slow                                                                            uint32 // of those above

	latency *latencies // made by the first Observe
}

// Add counts one outcome.
func (n *Counts) Add(o Outcome) { *n.field(o)++ }

// Observe counts the duration of an execution in nanoseconds.
func (n *Counts) Observe(nanos int64) {
	if n.latency == nil {
		n.latency = new(latencies)
	}
	n.latency.observe(nanos)
}

func (n *Counts) field(o Outcome) *uint32 {
	switch o {
	case Success:
		return &n.Success
	case Failure:
		return &n.Failure
	case Timeout:
		return &n.Timeout
	case ConnectFailure:
		return &n.ConnectFailure
	case Rejected:
		return &n.Rejected
	case ShortCircuited:
		return &n.ShortCircuited
	case BadRequest:
		return &n.BadRequest
	case FallbackSuccess:
		return &n.FallbackSuccess
	case FallbackFailure:
		return &n.FallbackFailure
	case FallbackRejection:
		return &n.FallbackRejection
	case slow:
		return &n.Slow
	}
	return &n.FallbackMissing
}
