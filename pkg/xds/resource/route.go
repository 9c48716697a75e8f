// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"regexp"
	"strings"
	"time"
)

// RouteConfig is a named list of virtual hosts.
type RouteConfig struct {
	Name             string
	VirtualHosts     []*VirtualHost
	HeaderEdits      HeaderEdits
	InternalOnly     []string // internal_only_headers, lower case
	MostSpecificLast bool     // most_specific_header_mutations_wins
	VHDS             bool     // virtual hosts on demand by VHDS
	ValidateClusters bool
	MaxDirectBody    int // default 4 KiB
	IgnorePortInHost bool
}

// VirtualHost is what one set of domains answers.
type VirtualHost struct {
	Name        string
	Domains     []string // exact, "*.suffix", "prefix.*", "*"; lower case
	Routes      []*Route // in order; the first match wins
	RequireTLS  RequireTLS
	HeaderEdits HeaderEdits
	Retry       *RetryPolicy
	Hedge       HedgePolicy
	Hash        []HashPolicy
	Mirrors     []Mirror
	// AttemptCount headers: include_request_attempt_count and
	// include_attempt_count_in_response.
	RequestAttemptCount  bool
	ResponseAttemptCount bool
	RetryBufferLimit     int // per_request_buffer_limit_bytes, 0: default 64 KiB
	Metadata             Metadata
}

// RequireTLS redirects plain requests.
type RequireTLS uint8

// The requirements.
const (
	TLSNotRequired RequireTLS = iota
	TLSExternalOnly
	TLSAll
)

// Route is a match and what to do with it. Exactly one of Action, Redirect and
// Direct is set.
type Route struct {
	Name        string
	Match       RouteMatch
	Action      *RouteAction
	Redirect    *Redirect
	Direct      *DirectResponse
	HeaderEdits HeaderEdits
	Decorator   string // span operation
	Tracing     *Tracing
	StatPrefix  string
	RetryBuffer int // request_body_buffer_limit, 0: the virtual host's
	Metadata    Metadata
	// FilterConfig are per-filter overrides by filter name, parsed.
	FilterConfig map[string]any
	// RateLimits make descriptors for filters that limit rates, HostRateLimits are those
	// of the virtual host; they count beside the route's where IncludeHostRateLimits.
	RateLimits, HostRateLimits []RateLimit
	IncludeHostRateLimits      bool
}

// PathKind is how a path is matched.
type PathKind uint8

// The kinds.
const (
	PathPrefix PathKind = iota
	PathExact
	PathRegex
	PathSeparatedPrefix
	PathConnect // CONNECT requests
)

// RouteMatch is what a request must have.
type RouteMatch struct {
	Kind     PathKind
	Path     string // prefix or path, without query
	Regex    *regexp.Regexp
	CaseFold bool // case_sensitive: false
	Headers  []HeaderMatch
	Query    []QueryMatch
	Fraction *Percent
	GRPCOnly bool
}

// StringMatch matches text.
type StringMatch struct {
	Kind  StringKind
	Value string
	Regex *regexp.Regexp
	Fold  bool // without case; Value is in lower case then
}

// MatchString reports whether the text matches. A matcher of the kind MatchRegex
// without an expression matches nothing.
func (m *StringMatch) MatchString(s string) bool {
	if m.Fold {
		s = strings.ToLower(s)
	}
	switch m.Kind {
	case MatchExact:
		return s == m.Value
	case MatchPrefix:
		return strings.HasPrefix(s, m.Value)
	case MatchSuffix:
		return strings.HasSuffix(s, m.Value)
	case MatchContains:
		return strings.Contains(s, m.Value)
	}
	return m.Regex != nil && m.Regex.MatchString(s)
}

// StringKind is a way to match text.
type StringKind uint8

// The kinds.
const (
	MatchExact StringKind = iota
	MatchPrefix
	MatchSuffix
	MatchContains
	MatchRegex
)

// HeaderMatch matches a header. All values of the name, joined with commas, are
// what it sees.
type HeaderMatch struct {
	Name       string // lower case; ":method", ":path", ":authority", ":scheme" too
	Kind       HeaderMatchKind
	String     StringMatch // HeaderString
	Start, End int64       // HeaderRange: [Start, End)
	Present    bool        // HeaderPresent
	Invert     bool
	MissingOK  bool // treat_missing_header_as_empty
}

// HeaderMatchKind is a way to match a header.
type HeaderMatchKind uint8

// The kinds.
const (
	HeaderPresent HeaderMatchKind = iota
	HeaderString
	HeaderRange
)

// QueryMatch matches a query parameter.
type QueryMatch struct {
	Name    string
	Present bool // only presence, where String is nil
	String  *StringMatch
}

// RouteAction forwards the request.
type RouteAction struct {
	// Clusters has one entry for a single cluster; ClusterHeader names the header
	// that carries the cluster's name instead.
	Clusters      []WeightedCluster
	TotalWeight   uint32
	ClusterHeader string // lower case
	NotFound      int    // cluster_not_found_response_code, default 503

	PrefixRewrite     string // "" : none
	HasPrefixRewrite  bool
	RegexRewrite      *RegexRewrite
	HostRewrite       string
	HostRewriteHeader string // lower case
	HostRewritePath   *RegexRewrite
	AutoHostRewrite   bool
	AppendXFH         bool // append_x_forwarded_host

	Timeout        time.Duration // 0: none; default 15 s
	IdleTimeout    time.Duration // 0: the manager's
	HasIdleTimeout bool
	MaxDuration    time.Duration
	GRPCTimeout    GRPCTimeout
	Retry          *RetryPolicy // nil: the virtual host's
	Hedge          *HedgePolicy // nil: the virtual host's
	HighPriority   bool
	Hash           []HashPolicy
	Mirrors        []Mirror
	Fallback       *Fallback // nil: the cluster's
	Upgrades       []Upgrade // each overrides the manager's of its type

	MetadataMatch *MetadataMatch // of requests without a WeightedCluster; nil: none
}

// GRPCTimeout says what grpc-timeout of calls is to a route. The zero value leaves
// it to the endpoint.
type GRPCTimeout struct {
	Kind   GRPCTimeoutKind
	Max    time.Duration // the longest that a caller may ask for, 0: no limit
	Offset time.Duration // by which a caller's time is shortened
}

// GRPCTimeoutKind is what a caller's time takes the place of.
type GRPCTimeoutKind uint8

// The kinds.
const (
	GRPCTimeoutIgnored  GRPCTimeoutKind = iota
	GRPCTimeoutRoute                    // max_grpc_timeout: of the timeout, also where a caller names none
	GRPCTimeoutDuration                 // grpc_timeout_header_max: of the maximal duration, where a caller names one
)

// Upgrade says of a protocol whether requests may switch to it, and so become a
// tunnel.
type Upgrade struct {
	Type    string // lower case, as in the Upgrade field; UpgradeConnect for CONNECT
	Enabled bool
	// Terminate: the tunnel of CONNECT ends here, and its bytes go to the endpoint as
	// they are (connect_config). Of routes only.
	Terminate bool
}

// UpgradeConnect is the type of tunnels that CONNECT asks for.
const UpgradeConnect = "connect"

// WeightedCluster is one of several clusters of a route.
type WeightedCluster struct {
	Name         string
	Header       string // cluster_header
	Weight       uint32
	HeaderEdits  HeaderEdits
	HostRewrite  string
	FilterConfig map[string]any
	// MetadataMatch is the action's with the cluster's own over it; nil: none.
	MetadataMatch *MetadataMatch
}

// RegexRewrite substitutes in the path (without query).
type RegexRewrite struct {
	Regex        *regexp.Regexp
	Substitution string // \1 style, turned into Go's ${1} by decode
}

// Redirect answers with a Location.
type Redirect struct {
	Status        int // 301 by default
	HTTPS         bool
	Scheme        string
	Host          string
	Port          uint32
	Path          string // path_redirect, may carry a query
	PrefixRewrite string
	HasPrefix     bool
	RegexRewrite  *RegexRewrite
	StripQuery    bool
}

// DirectResponse answers at once.
type DirectResponse struct {
	Status      int
	Body        []byte
	ContentType string // default text/plain where there is a body
}

// Mirror copies requests to another cluster and drops its answers.
type Mirror struct {
	Cluster       string
	ClusterHeader string
	Fraction      Percent
	TraceSampled  bool
	KeepHost      bool // disable_shadow_host_suffix_append
}

// HashKind is a source of a hash key.
type HashKind uint8

// The kinds.
const (
	HashHeader HashKind = iota
	HashCookie
	HashSourceIP
	HashQuery
)

// HashPolicy makes a part of the hash key.
type HashPolicy struct {
	Kind       HashKind
	Name       string // header (lower case), cookie or parameter
	Rewrite    *RegexRewrite
	TTL        time.Duration
	HasTTL     bool // a missing cookie is made; TTL 0 is a session cookie
	CookiePath string
	Terminal   bool
}

// RetryOn are the conditions of a retry policy.
type RetryOn uint32

// The conditions, by Envoy's names.
const (
	Retry5xx RetryOn = 1 << iota
	RetryGatewayError
	RetryReset
	RetryResetBeforeRequest
	RetryConnectFailure
	RetryEnvoyRateLimited
	RetryRetriable4xx
	RetryRefusedStream
	RetryStatusCodes
	RetryHeaders
	RetryHTTP3
	RetryGRPCCancelled
	RetryGRPCDeadlineExceeded
	RetryGRPCInternal
	RetryGRPCResourceExhausted
	RetryGRPCUnavailable
)

// retryConditions are the words of retry_on and of x-envoy-retry-on.
var retryConditions = [...]struct {
	word string
	on   RetryOn
}{
	{"5xx", Retry5xx}, {"gateway-error", RetryGatewayError}, {"reset", RetryReset},
	{"reset-before-request", RetryResetBeforeRequest}, {"connect-failure", RetryConnectFailure},
	{"envoy-ratelimited", RetryEnvoyRateLimited}, {"retriable-4xx", RetryRetriable4xx},
	{"refused-stream", RetryRefusedStream}, {"retriable-status-codes", RetryStatusCodes},
	{"retriable-headers", RetryHeaders}, {"http3-post-connect-failure", RetryHTTP3},
	{"cancelled", RetryGRPCCancelled}, {"deadline-exceeded", RetryGRPCDeadlineExceeded},
	{"internal", RetryGRPCInternal}, {"resource-exhausted", RetryGRPCResourceExhausted},
	{"unavailable", RetryGRPCUnavailable},
}

// RetryCondition finds a condition by its word; 0 for none.
func RetryCondition(word []byte) RetryOn {
	for i := range retryConditions {
		if string(word) == retryConditions[i].word {
			return retryConditions[i].on
		}
	}
	return 0
}

// Words are the conditions by Envoy's names, in its order.
func (on RetryOn) Words() []string {
	words := []string{}
	for i := range retryConditions {
		if on&retryConditions[i].on != 0 {
			words = append(words, retryConditions[i].word)
		}
	}
	return words
}

// RetryPolicy says what is tried again.
type RetryPolicy struct {
	On                 RetryOn
	NumRetries         int // default 1
	PerTryTimeout      time.Duration
	PerTryIdleTimeout  time.Duration
	BaseInterval       time.Duration // default 25 ms
	MaxInterval        time.Duration // default 10 × base
	StatusCodes        []int
	Headers            []HeaderMatch // retriable_headers: of the response
	RequestHeaders     []HeaderMatch // retriable_request_headers: of the request
	PreviousHosts      bool          // retry_host_predicate previous_hosts
	HostAttempts       int           // host_selection_retry_max_attempts, default 1
	PreviousPriorities int           // update frequency; 0: off
	Avoid              HostPredicates
	RateLimited        *RateLimitedBackOff // nil: none
}
