// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"net/netip"
	"time"
)

// TokenBucket are the settings of a bucket: it fills by PerFill tokens in each Interval,
// up to Max.
type TokenBucket struct {
	Max      uint32
	PerFill  uint32 // default 1
	Interval time.Duration
}

// LocalRateLimit are the settings of envoy.filters.http.local_ratelimit.
type LocalRateLimit struct {
	StatPrefix string
	Status     int          // 429 by default
	Bucket     *TokenBucket // the default bucket; nil: none
	// Enabled is the part of requests that are charged, Enforced the part of those
	// without a token that are refused. Default none.
	Enabled, Enforced Percent
	NotEnforcedAdd    []HeaderOption // request_headers_to_add_when_not_enforced
	ResponseAdd       []HeaderOption // to refusals
	Descriptors       []RateDescriptor
	Stage             uint32
	PerConnection     bool // each downstream connection has buckets of its own
	XRateLimit        bool // enable_x_ratelimit_headers
	VHRateLimits      VHRateLimits
	AlwaysDefault     bool // always_consume_default_token_bucket, default true
	ResourceExhausted bool // of calls of gRPC that are refused; else UNAVAILABLE
	RateLimits        []RateLimit
	HasRateLimits     bool // RateLimits take the place of the route's
	MaxDynamic        int  // keys of a descriptor with a value left open; default 20
	RetryAfter        bool // enable_retry_after_header
}

// VHRateLimits says when a virtual host's rate limits count beside its route's.
type VHRateLimits uint8

// The options.
const (
	VHOverride VHRateLimits = iota // where the route has none
	VHInclude
	VHIgnore
)

// RateDescriptor is a bucket for what has these entries.
type RateDescriptor struct {
	Entries []RateEntry
	Bucket  TokenBucket
	Shadow  bool // what finds no token is counted, and not refused
}

// RateEntry is a part of a descriptor. No value stands for any, each with a bucket of
// its own.
type RateEntry struct{ Key, Value string }

// RateLimit makes a descriptor of a request: an entry by each action. Where one
// has none to make, there is no descriptor.
type RateLimit struct {
	Stage   uint32
	Actions []RateAction
	Hits    uint32 // tokens that a request takes; default 1
}

// RateActionKind is what an entry's value is taken from.
type RateActionKind uint8

// The kinds.
const (
	RateSourceCluster RateActionKind = iota
	RateDestinationCluster
	RateRequestHeader
	RateQueryParameter
	RateRemoteAddress
	RateMaskedRemoteAddress
	RateGenericKey
	RateHeaderMatch
	RateQueryMatch
	RateRemoteAddressMatch
)

// RateAction makes an entry of a descriptor.
type RateAction struct {
	Kind         RateActionKind
	Key          string
	Name         string // of the header (lower case) or parameter
	SkipIfAbsent bool   // no entry, rather than no descriptor
	Value        Format // of the kinds that have one
	Default      string // where Value is empty
	Headers      []HeaderMatch
	Query        []QueryMatch
	Expect       bool // that all of Headers or Query match; false: that one does not
	V4, V6       int  // bits of the address that count
	Prefixes     []netip.Prefix
	Invert       bool // addresses outside of Prefixes
}

// ConnectionRateLimit are the settings of envoy.filters.network.local_ratelimit: a
// connection that finds no token is closed.
type ConnectionRateLimit struct {
	StatPrefix string
	Bucket     TokenBucket
	Enabled    Percent // all or nothing
	ShareKey   string  // chains with the same one and the same bucket share it
}
