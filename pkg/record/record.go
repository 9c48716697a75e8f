// SPDX-License-Identifier: Apache-2.0

package record

import (
	"net/netip"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// Kind says what a record is about.
type Kind uint8

// The kinds.
const (
	HTTPExchange Kind = iota
	TCPConnection
	Periodic // an exchange or connection that still runs
)

// Never is a time that did not come.
const Never int64 = -1

// Trace is the trace context of one exchange: the ids of the span that this
// proxy makes of it.
type Trace struct {
	TraceID  [16]byte // left half zero for 64-bit ids
	SpanID   [8]byte
	ParentID [8]byte // zero: a root
	Sampled  bool
	Debug    bool // B3 flags: 1
	Client   bool // CLIENT span (outbound), else SERVER
	Shared   bool // the span id is the caller's (B3 shared spans)
	ID128    bool
}

// Record is what is known about one exchange. Strings are names from immutable
// configuration; bytes of the exchange itself (paths, header values) are the
// captures. Times other than Start are nanoseconds since Start, Never where
// they did not come.
type Record struct {
	Kind     Kind
	Consumer Consumer

	Start            int64 // unix nanoseconds
	RequestEnd       int64 // last byte of the request from downstream
	UpstreamRequest  int64 // first byte to the upstream of the last attempt
	UpstreamResponse int64 // first byte of the response from upstream
	ResponseStart    int64 // first byte of the response to downstream
	End              int64

	Status           uint16
	UpstreamStatus   uint16
	Attempts         uint16
	Flags            Flags
	Protocol         codec.Protocol
	UpstreamProtocol codec.Protocol
	HasUpstream      bool
	HealthCheck      bool // a health check of this proxy, by the filter for them

	Details         string // RESPONSE_CODE_DETAILS, static
	CloseDetails    string // CONNECTION_TERMINATION_DETAILS, static
	TransportReason string // UPSTREAM_TRANSPORT_FAILURE_REASON

	BytesReceived        uint64 // request body
	BytesSent            uint64 // response body
	RequestHeaderBytes   uint64
	ResponseHeaderBytes  uint64
	WireReceived         uint64 // downstream: all bytes of the messages, with framing and 1xx
	WireSent             uint64
	UpstreamWireSent     uint64 // of all attempts
	UpstreamWireReceived uint64

	Remote           netip.AddrPort // after x-forwarded-for rules
	DirectRemote     netip.AddrPort
	Local            netip.AddrPort
	UpstreamAddr     netip.AddrPort
	UpstreamPath     string // a Unix socket upstream
	UpstreamLocal    netip.AddrPort
	UpstreamHostname string

	Route       string
	VirtualHost string
	Cluster     string
	FilterChain string
	Operation   string // span name from a decorator

	Security *Security // of the downstream connection; nil: plaintext

	ConnectionID         uint64
	UpstreamConnectionID uint64
	StreamID             [16]byte // for %STREAM_ID%

	Trace Trace

	// Captures are encoded values in the order of the exchange's capture plan,
	// the Fixed ones first. See AppendCapture and Capture.
	Captures []byte
}

// Fixed captures, at the front of every HTTP record's captures.
const (
	CaptureMethod = iota
	CapturePath   // as received: x-envoy-original-path or the path
	CaptureAuthority
	CaptureRequestID
	CaptureUserAgent
	FixedCaptures
)

// MaxCapture is the number of bytes kept of one captured value.
const MaxCapture = 4096

const absent = 0xffff

// AppendCapture appends one value to captures, cut to MaxCapture; nil means the
// value is absent.
func AppendCapture(dst, value []byte) []byte {
	if value == nil {
		return append(dst, 0xff, 0xff)
	}
	if len(value) > MaxCapture {
		value = value[:MaxCapture]
	}
	dst = append(dst, byte(len(value)>>8), byte(len(value)))
	return append(dst, value...)
}

// Capture returns the i-th captured value; ok is false where it is absent or
// was not captured.
func (r *Record) Capture(i int) (value []byte, ok bool) {
	b := r.Captures
	for len(b) >= 2 {
		n := int(b[0])<<8 | int(b[1])
		b = b[2:]
		if n == absent {
			if i == 0 {
				return nil, false
			}
			i--
			continue
		}
		if n > len(b) {
			return nil, false
		}
		if i == 0 {
			return b[:n:n], true
		}
		b = b[n:]
		i--
	}
	return nil, false
}

// Consumer takes records off the loop. Consume is called by the ring's reader
// only; the record is valid until it returns.
type Consumer interface {
	Consume(r *Record)
}
