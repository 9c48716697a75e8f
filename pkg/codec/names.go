// SPDX-License-Identifier: Apache-2.0

package codec

import "encoding/binary"

// The known names. The order has no meaning.
const (
	NameOther Name = iota
	NameAccept
	NameAuthorization
	NameB3
	NameBaggage
	NameConnection
	NameContentLength
	NameContentType
	NameCookie
	NameDate
	NameExpect
	NameHost
	NameHTTP2Settings
	NameKeepAlive
	NameLocation
	NameMaxForwards
	NameProxyAuthenticate
	NameProxyAuthorization
	NameProxyConnection
	NameReferer
	NameRetryAfter
	NameServer
	NameSetCookie
	NameTE
	NameTraceparent
	NameTracestate
	NameTrailer
	NameTransferEncoding
	NameUpgrade
	NameUserAgent
	NameVia
	NameXB3Flags
	NameXB3ParentSpanID
	NameXB3Sampled
	NameXB3SpanID
	NameXB3TraceID
	NameXClientTraceID
	NameXEnvoyAttemptCount
	NameXEnvoyDecoratorOperation
	NameXEnvoyDownstreamServiceCluster
	NameXEnvoyDownstreamServiceNode
	NameXEnvoyExpectedRequestTimeout
	NameXEnvoyExternalAddress
	NameXEnvoyForceTrace
	NameXEnvoyHedgeOnPerTryTimeout
	NameXEnvoyInternal
	NameXEnvoyIPTags
	NameXEnvoyMaxRetries
	NameXEnvoyOriginalPath
	NameXEnvoyOverloaded
	NameXEnvoyRetriableHeaderNames
	NameXEnvoyRetriableStatusCodes
	NameXEnvoyRetryGRPCOn
	NameXEnvoyRetryOn
	NameXEnvoyUpstreamAltStatName
	NameXEnvoyUpstreamPerTryTimeout
	NameXEnvoyUpstreamRequestTimeout
	NameXEnvoyUpstreamTimeoutAltResponse
	NameXEnvoyUpstreamServiceTime
	NameXForwardedClientCert
	NameXForwardedFor
	NameXForwardedHost
	NameXForwardedPort
	NameXForwardedProto
	NameXRequestID
	nameCount
)

// names are the lower-case wire forms.
var names = [nameCount]string{
	NameAccept:                           "accept",
	NameAuthorization:                    "authorization",
	NameB3:                               "b3",
	NameBaggage:                          "baggage",
	NameConnection:                       "connection",
	NameContentLength:                    "content-length",
	NameContentType:                      "content-type",
	NameCookie:                           "cookie",
	NameDate:                             "date",
	NameExpect:                           "expect",
	NameHost:                             "host",
	NameHTTP2Settings:                    "http2-settings",
	NameKeepAlive:                        "keep-alive",
	NameLocation:                         "location",
	NameMaxForwards:                      "max-forwards",
	NameProxyAuthenticate:                "proxy-authenticate",
	NameProxyAuthorization:               "proxy-authorization",
	NameProxyConnection:                  "proxy-connection",
	NameReferer:                          "referer",
	NameRetryAfter:                       "retry-after",
	NameServer:                           "server",
	NameSetCookie:                        "set-cookie",
	NameTE:                               "te",
	NameTraceparent:                      "traceparent",
	NameTracestate:                       "tracestate",
	NameTrailer:                          "trailer",
	NameTransferEncoding:                 "transfer-encoding",
	NameUpgrade:                          "upgrade",
	NameUserAgent:                        "user-agent",
	NameVia:                              "via",
	NameXB3Flags:                         "x-b3-flags",
	NameXB3ParentSpanID:                  "x-b3-parentspanid",
	NameXB3Sampled:                       "x-b3-sampled",
	NameXB3SpanID:                        "x-b3-spanid",
	NameXB3TraceID:                       "x-b3-traceid",
	NameXClientTraceID:                   "x-client-trace-id",
	NameXEnvoyAttemptCount:               "x-envoy-attempt-count",
	NameXEnvoyDecoratorOperation:         "x-envoy-decorator-operation",
	NameXEnvoyDownstreamServiceCluster:   "x-envoy-downstream-service-cluster",
	NameXEnvoyDownstreamServiceNode:      "x-envoy-downstream-service-node",
	NameXEnvoyExpectedRequestTimeout:     "x-envoy-expected-rq-timeout-ms",
	NameXEnvoyExternalAddress:            "x-envoy-external-address",
	NameXEnvoyForceTrace:                 "x-envoy-force-trace",
	NameXEnvoyHedgeOnPerTryTimeout:       "x-envoy-hedge-on-per-try-timeout",
	NameXEnvoyInternal:                   "x-envoy-internal",
	NameXEnvoyIPTags:                     "x-envoy-ip-tags",
	NameXEnvoyMaxRetries:                 "x-envoy-max-retries",
	NameXEnvoyOriginalPath:               "x-envoy-original-path",
	NameXEnvoyOverloaded:                 "x-envoy-overloaded",
	NameXEnvoyRetriableHeaderNames:       "x-envoy-retriable-header-names",
	NameXEnvoyRetriableStatusCodes:       "x-envoy-retriable-status-codes",
	NameXEnvoyRetryGRPCOn:                "x-envoy-retry-grpc-on",
	NameXEnvoyRetryOn:                    "x-envoy-retry-on",
	NameXEnvoyUpstreamAltStatName:        "x-envoy-upstream-alt-stat-name",
	NameXEnvoyUpstreamPerTryTimeout:      "x-envoy-upstream-rq-per-try-timeout-ms",
	NameXEnvoyUpstreamRequestTimeout:     "x-envoy-upstream-rq-timeout-ms",
	NameXEnvoyUpstreamTimeoutAltResponse: "x-envoy-upstream-rq-timeout-alt-response",
	NameXEnvoyUpstreamServiceTime:        "x-envoy-upstream-service-time",
	NameXForwardedClientCert:             "x-forwarded-client-cert",
	NameXForwardedFor:                    "x-forwarded-for",
	NameXForwardedHost:                   "x-forwarded-host",
	NameXForwardedPort:                   "x-forwarded-port",
	NameXForwardedProto:                  "x-forwarded-proto",
	NameXRequestID:                       "x-request-id",
}

// String is the lower-case wire form.
func (n Name) String() string {
	if n < nameCount {
		return names[n]
	}
	return ""
}

// table finds a known name by its length and the bytes at one half and at three
// quarters of it. The factors were searched for so that no two names share a
// place, which a test checks: a new name may ask for new ones.
const tableSize = 512

var table = buildTable()

func hashName(half, threeQuarters byte, n int) uint32 {
	h := uint32(half|0x20)*0xd50f ^ uint32(threeQuarters|0x20)*0x387b ^ uint32(n)*0xfa1d
	return (h ^ h>>7) & (tableSize - 1)
}

func buildTable() (t [tableSize]Name) {
	for id := Name(1); id < nameCount; id++ {
		s := names[id]
		t[hashName(s[len(s)/2], s[len(s)*3/4], len(s))] = id
	}
	return t
}

// Lookup finds the known name that equals b without case.
func Lookup(b []byte) Name {
	if len(b) < 2 {
		return NameOther
	}
	id := table[hashName(b[len(b)/2], b[len(b)*3/4], len(b))]
	if !EqualFold(b, names[id]) {
		return NameOther
	}
	return id
}

// LookupString is Lookup for a string.
func LookupString(s string) Name {
	if len(s) < 2 {
		return NameOther
	}
	id := table[hashName(s[len(s)/2], s[len(s)*3/4], len(s))]
	if !equalFoldString(s, names[id]) {
		return NameOther
	}
	return id
}

// LookupToken is Lookup for a name that is known to be a token, which makes it
// cheaper: of two tokens that differ in the case bit only, both are the same
// letter, so eight bytes can be compared at a time.
func LookupToken(b []byte) Name {
	if len(b) < 2 {
		return NameOther
	}
	id := table[hashName(b[len(b)/2], b[len(b)*3/4], len(b))]
	if s := names[id]; len(s) != len(b) || !equalToken(b, s) {
		return NameOther
	}
	return id
}

const caseBits = 0x2020202020202020

// equalToken is EqualFold for tokens of the same length.
func equalToken(b []byte, lower string) bool {
	n := len(lower)
	if n < 8 {
		for i := range n {
			if b[i]|0x20 != lower[i] {
				return false
			}
		}
		return true
	}
	for i := 0; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(b[i:])|caseBits != load64(lower[i:]) {
			return false
		}
	}
	return binary.LittleEndian.Uint64(b[n-8:])|caseBits == load64(lower[n-8:])
}

// load64 is binary.LittleEndian.Uint64 of a string; the compiler makes one load
// of it.
func load64(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// EqualFold reports whether b equals the lower-case ASCII string s without case.
func EqualFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func equalFoldString(b, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
