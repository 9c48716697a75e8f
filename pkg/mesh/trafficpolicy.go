// SPDX-License-Identifier: Apache-2.0

package mesh

import "strings"

// TrafficPolicy says how sidecars treat the instances of one service.
type TrafficPolicy struct {
	Header
	Spec TrafficPolicySpec `json:"spec" rule:"required" doc:"The policy; what is not said keeps the mesh's defaults."`
}

// TrafficPolicySpec is the policy's body. A nil part keeps the defaults.
type TrafficPolicySpec struct {
	TargetRef          TargetRef           `json:"targetRef" rule:"required" doc:"The service that the policy is for."`
	LoadBalancer       *LoadBalancer       `json:"loadBalancer,omitempty" doc:"How an instance is picked."`
	Limits             *Limits             `json:"limits,omitempty" doc:"What one sidecar has open to the service at a time."`
	CircuitBreaker     *CircuitBreaker     `json:"circuitBreaker,omitempty" doc:"When requests stop for a while because too many fail."`
	OutlierDetection   *OutlierDetection   `json:"outlierDetection,omitempty" doc:"When a single instance is left out for a while."`
	Retries            *Retries            `json:"retries,omitempty" doc:"What is tried again when no route says so."`
	Hedging            *Hedging            `json:"hedging,omitempty" doc:"When another attempt is made while one goes on; never when empty."`
	Timeouts           *Timeouts           `json:"timeouts,omitempty" doc:"Timeouts when no route says so."`
	Fallback           *Fallback           `json:"fallback,omitempty" doc:"The answer while the circuit is open, no instance is left, or none answers."`
	SessionPersistence *SessionPersistence `json:"sessionPersistence,omitempty" doc:"Clients that stay at their instance; requests are balanced one by one when empty."`
	Subsets            *Subsets            `json:"subsets,omitempty" doc:"Where requests go that choose a subset which has no instance, or choose none; nowhere and to any instance when empty."`
	RateLimit          *RateLimit          `json:"rateLimit,omitempty" doc:"How many requests an instance takes over time."`
	Fault              *Fault              `json:"fault,omitempty" doc:"Requests that are late or fail on purpose."`
	HealthCheck        *HealthCheck        `json:"healthCheck,omitempty" doc:"How instances are asked whether they are well: by their own sidecars, which tell the registry, and by callers where an instance has none."`
	TLS                *PolicyTLS          `json:"tls,omitempty" doc:"Who may speak with the instances in the clear, in a mesh with identities; nobody when empty, for instances that have one."`
}

// Balancing policies.
const (
	PolicyRoundRobin   = "round_robin"
	PolicyLeastRequest = "least_request"
	PolicyRandom       = "random"
	PolicyRingHash     = "ring_hash"
	PolicyMaglev       = "maglev"
	PolicyPeakEWMA     = "peak_ewma"
	// By load reports of the instances.
	PolicyClientWeighted = "client_side_weighted_round_robin"
	PolicyPickFirst      = "pick_first"
)

// LoadBalancer picks instances.
type LoadBalancer struct {
	Policy            string    `json:"policy,omitempty" rule:"enum=round_robin|least_request|random|ring_hash|maglev|peak_ewma|client_side_weighted_round_robin|pick_first" doc:"least_request when empty."`
	HashOn            *HashOn   `json:"hashOn,omitempty" doc:"What ring_hash and maglev hash; exactly one field."`
	SlowStart         *Duration `json:"slowStart,omitempty" rule:"mindur=1s,maxdur=1h" doc:"How long an instance that has just become healthy gets less than its share, growing from 10 %; of round_robin, least_request and client_side_weighted_round_robin, not at all when empty."`
	HashBalanceFactor *uint32   `json:"hashBalanceFactor,omitempty" rule:"min=100,max=10000" doc:"The most of its share of the requests under way that an instance gets, in percent; what ring_hash and maglev would send beyond it goes elsewhere. No bound when empty."`
}

// HashOn is what a request is hashed on: exactly one field is set.
type HashOn struct {
	Header   string      `json:"header,omitempty" rule:"maxlen=256" doc:"A request header."`
	Cookie   *HashCookie `json:"cookie,omitempty" doc:"A cookie, made when it is missing and has a ttl."`
	SourceIP bool        `json:"sourceIP,omitempty" doc:"The client's address."`
	Query    string      `json:"query,omitempty" rule:"maxlen=256" doc:"A query parameter."`
}

// HashCookie is the cookie to hash on.
type HashCookie struct {
	Name string    `json:"name" rule:"required,maxlen=256" doc:"Name of the cookie."`
	TTL  *Duration `json:"ttl,omitempty" doc:"Life of a cookie that the sidecar makes; 0s makes a session cookie, empty makes none."`
	Path string    `json:"path,omitempty" rule:"maxlen=256" doc:"Path of a cookie that the sidecar makes."`
}

// Limits are Envoy's circuit-breaker thresholds, per sidecar. 0 and empty keep the default.
type Limits struct {
	Connections     *uint32  `json:"connections,omitempty" rule:"min=1,max=4294967295" doc:"Open connections; 1024 when empty."`
	PendingRequests *uint32  `json:"pendingRequests,omitempty" rule:"min=1,max=4294967295" doc:"Requests that wait for a connection; 1024 when empty."`
	Requests        *uint32  `json:"requests,omitempty" rule:"min=1,max=4294967295" doc:"Requests under way; 1024 when empty."`
	Retries         *uint32  `json:"retries,omitempty" rule:"max=4294967295" doc:"Retries under way, instead of a budget."`
	RetryBudget     *Percent `json:"retryBudget,omitempty" doc:"Retries as a share of requests under way, and of those that succeed; 20% when empty."`
}

// Classes of failure that a circuit breaker may count.
const (
	Class5xx            = "5xx"
	Class4xx            = "4xx"
	ClassTimeout        = "timeout"
	ClassConnectFailure = "connect-failure"
	ClassReset          = "reset"
	ClassOverflow       = "overflow"
)

// Retries says what is tried again. Without it only what surely was not processed is.
type Retries struct {
	Attempts      *uint32   `json:"attempts,omitempty" rule:"max=10" doc:"Retries after the first attempt; 1 when empty, 0 for none."`
	On            []string  `json:"on,omitzero" rule:"maxitems=16,enum=5xx|gateway-error|reset|reset-before-request|connect-failure|refused-stream|retriable-4xx|envoy-ratelimited" doc:"Conditions, in Envoy's words."`
	Codes         []uint16  `json:"codes,omitzero" rule:"maxitems=32" doc:"Response codes that are tried again, 400 to 599."`
	PerTryTimeout *Duration `json:"perTryTimeout,omitempty" doc:"Timeout of one attempt."`
	Backoff       *Duration `json:"backoff,omitempty" rule:"mindur=1ms,maxdur=1m" doc:"Base of the growing wait between attempts; 25ms when empty."`
}

// Timeouts of requests to the service. Zero switches one off.
type Timeouts struct {
	Connect *Duration `json:"connect,omitempty" rule:"mindur=1ms,maxdur=5m" doc:"Opening a connection; 1s when empty."`
	Request *Duration `json:"request,omitempty" doc:"Whole exchange with all retries; 15s when empty, 0s for none."`
	Idle    *Duration `json:"idle,omitempty" doc:"A stream without bytes in either direction; 5m when empty, 0s for none."`
}

func (p *TrafficPolicy) check(f *faults) {
	checkObjectName(f, p.Metadata.Name)
	checkServiceName(f, "spec.targetRef.name", p.Spec.TargetRef.Name)
	if lb := p.Spec.LoadBalancer; lb != nil {
		lb.check(f, "spec.loadBalancer")
	}
	if h := p.Spec.HealthCheck; h != nil {
		h.check(f, "spec.healthCheck")
	}
	if t := p.Spec.TLS; t != nil {
		t.check(f, "spec.tls")
	}
	if r := p.Spec.RateLimit; r != nil {
		r.check(f, "spec.rateLimit")
	}
	if t := p.Spec.Fault; t != nil {
		t.check(f, "spec.fault")
	}
	if l := p.Spec.Limits; l != nil && l.Retries != nil && l.RetryBudget != nil {
		f.add("spec.limits.retryBudget", "retries and retryBudget exclude each other")
	}
	if cb := p.Spec.CircuitBreaker; cb != nil {
		cb.check(f, "spec.circuitBreaker")
	}
	if o := p.Spec.OutlierDetection; o != nil {
		o.check(f, "spec.outlierDetection")
	}
	if r := p.Spec.Retries; r != nil {
		for i, c := range r.Codes {
			if c < 400 || c > 599 {
				f.add(index("spec.retries.codes", i), "want a code from 400 to 599, got %d", c)
			}
		}
		if t := p.Spec.Timeouts; t != nil && t.Request != nil && r.PerTryTimeout != nil && *t.Request > 0 && *r.PerTryTimeout > *t.Request {
			f.add("spec.retries.perTryTimeout", "%s is more than the whole request's %s", *r.PerTryTimeout, *t.Request)
		}
	}
	if h := p.Spec.Hedging; h != nil {
		h.check(f, "spec.hedging", &p.Spec)
	}
	if s := p.Spec.SessionPersistence; s != nil {
		s.check(f, "spec.sessionPersistence")
	}
	if s := p.Spec.Subsets; s != nil {
		s.check(f, "spec.subsets")
	}
	if fb := p.Spec.Fallback; fb != nil {
		fb.check(f, "spec.fallback", p.Spec.TargetRef.Name)
	}
}

func (lb *LoadBalancer) check(f *faults, path string) {
	hashes := lb.Policy == PolicyRingHash || lb.Policy == PolicyMaglev
	switch lb.Policy {
	case "", PolicyRoundRobin, PolicyLeastRequest, PolicyClientWeighted:
	default:
		if lb.SlowStart != nil {
			f.add(path+".slowStart", "only round_robin, least_request and client_side_weighted_round_robin start slowly, the policy is %s", lb.Policy)
		}
	}
	if lb.HashBalanceFactor != nil && !hashes {
		f.add(path+".hashBalanceFactor", "only ring_hash and maglev bound loads, the policy is %s", strings.TrimSpace(lb.Policy+" "))
	}
	h := lb.HashOn
	if h == nil {
		if hashes {
			f.add(path+".hashOn", "missing: %s needs something to hash", lb.Policy)
		}
		return
	}
	if !hashes {
		f.add(path+".hashOn", "only ring_hash and maglev hash, the policy is %s", strings.TrimSpace(lb.Policy+" "))
	}
	set := 0
	for _, s := range []bool{h.Header != "", h.Cookie != nil, h.SourceIP, h.Query != ""} {
		if s {
			set++
		}
	}
	if set != 1 {
		f.add(path+".hashOn", "want exactly one of header, cookie, sourceIP and query")
	}
	checkHeaderName(f, path+".hashOn.header", h.Header)
	if h.Cookie != nil && h.Cookie.Name != "" && !tokenPattern.MatchString(h.Cookie.Name) {
		f.add(path+".hashOn.cookie.name", "%q is not a cookie name", clip(h.Cookie.Name))
	}
}
