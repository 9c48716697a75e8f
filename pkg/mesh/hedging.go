// SPDX-License-Identifier: Apache-2.0

package mesh

import "slices"

// Hedging makes another attempt while the first one goes on, and takes the first good
// answer: Envoy's hedge_on_per_try_timeout, for some methods only. Attempts count as
// retries: they are made inside the budget, by the bound of retries, elsewhere than
// where one is under way.
type Hedging struct {
	PerTryTimeout *Duration `json:"perTryTimeout,omitempty" rule:"mindur=1ms,maxdur=10m" doc:"How long an attempt has before another one is made beside it, from the whole request on; that of retries when empty."`
	Attempts      *uint32   `json:"attempts,omitempty" rule:"min=1,max=5" doc:"Further attempts after the first, hedges and retries together; those of retries when empty. A route's own retry.attempts go before it."`
	Methods       []string  `json:"methods,omitzero" rule:"maxitems=8,enum=GET|HEAD|OPTIONS|TRACE|PUT|DELETE|POST|PATCH" doc:"Methods whose requests are hedged; the idempotent ones (GET, HEAD, OPTIONS, TRACE, PUT, DELETE) when empty. Calls of gRPC are POST."`
}

// idempotent are the methods of RFC 9110 §9.2.2 that are hedged unless a policy names others.
var idempotent = []string{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}

// HedgedMethods are the methods whose requests are hedged, in the order of the policy.
func (h *Hedging) HedgedMethods() []string {
	if len(h.Methods) == 0 {
		return slices.Clone(idempotent)
	}
	return h.Methods
}

// After is how long an attempt has before another one is made; r may be nil. 0 where
// nothing says so, which no checked policy has.
func (h *Hedging) After(r *Retries) Duration {
	switch {
	case h.PerTryTimeout != nil:
		return *h.PerTryTimeout
	case r != nil && r.PerTryTimeout != nil:
		return *r.PerTryTimeout
	}
	return 0
}

// unhedged is the field of a rule that says that attempts end, or that there is one
// only: its requests are not hedged. Empty: there is none.
func (r *HTTPRule) unhedged() string {
	switch {
	case r.Timeouts != nil && r.Timeouts.BackendRequest != nil && *r.Timeouts.BackendRequest > 0:
		return "timeouts.backendRequest"
	case r.Retry != nil && r.Retry.Attempts != nil && *r.Retry.Attempts == 0:
		return "retry.attempts"
	}
	return ""
}

// Hedges reports whether a policy's hedging holds for the requests of a rule.
func (r *HTTPRule) Hedges() bool { return r.unhedged() == "" }

// defaultRequestTimeout is how long an exchange has where nothing says so.
const defaultRequestTimeout = Duration(15e9)

func (h *Hedging) check(f *faults, path string, s *TrafficPolicySpec) {
	after := h.After(s.Retries)
	if after == 0 {
		f.add(path+".perTryTimeout", "missing: neither it nor spec.retries.perTryTimeout says when another attempt is made")
	}
	if r := s.Retries; r != nil && r.Attempts != nil && *r.Attempts == 0 {
		f.add(path, "spec.retries.attempts of 0 allows no further attempt: leave it out, or hedging")
	}
	whole := defaultRequestTimeout
	if s.Timeouts != nil && s.Timeouts.Request != nil {
		whole = *s.Timeouts.Request
	}
	if whole > 0 && after >= whole {
		f.add(path+".perTryTimeout", "%s leaves no time for another attempt: the whole request has %s", after, whole)
	}
}
