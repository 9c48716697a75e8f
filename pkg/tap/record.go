// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Record is one tapped exchange, or one tapped connection, whose Protocol is TCP and
// which has no head: its bodies are what each side has sent. Times and durations are
// nanoseconds; those that did not come are negative.
type Record struct {
	Tap       string // name of the rule
	ID        [16]byte
	Node      string
	Service   string // the sidecar's
	Direction string // "inbound", "outbound" or ""
	Start     int64  // unix nanoseconds

	Duration         int64 // to the end of the exchange
	RequestEnd       int64 // these since Start
	UpstreamResponse int64
	ResponseStart    int64

	Method, Scheme, Authority, Path []byte
	Protocol                        string
	Status                          uint16
	Flags, Details                  string
	Attempts                        uint16

	Route, VirtualHost, Cluster string
	Upstream                    string // address
	Remote, Local               string
	TransportFailure            string // why the upstream connection could not be made or ended

	// Of the downstream connection. ConnectionID is unique in one run of a sidecar.
	// ServerName and ALPN are of the TLS that a connection carries, else of the TLS that
	// the sidecar ended.
	ConnectionID     uint64
	ServerName, ALPN []byte
	Peer             []byte // verified: URIs of the certificate, else its subject

	TraceID, SpanID string // lower-case hex
	RequestID       []byte

	RequestHeaders  []Header
	ResponseHeaders []Header

	RequestBody, ResponseBody           []byte
	RequestBytes, ResponseBytes         uint64 // of the whole bodies
	RequestTruncated, ResponseTruncated bool   // the body here is not the whole
	Redacted                            uint32 // values that were hidden
}

// Header is one header field.
type Header struct{ Name, Value []byte }

// Version is the first byte of an encoded record. A reader refuses others.
const Version = 1

// Tags of the fields of an encoded record. Numbers are never used again; a
// reader skips those that it does not know.
const (
	TagTap = iota + 1
	TagID
	TagNode
	TagService
	TagDirection
	TagStart
	TagDuration
	TagRequestEnd
	TagUpstreamResponse
	TagResponseStart
	TagMethod
	TagScheme
	TagAuthority
	TagPath
	TagProtocol
	TagStatus
	TagFlags
	TagDetails
	TagAttempts
	TagRoute
	TagVirtualHost
	TagCluster
	TagUpstream
	TagRemote
	TagLocal
	TagTraceID
	TagSpanID
	TagRequestID
	TagRequestHeader
	TagResponseHeader
	TagRequestBody
	TagResponseBody
	TagRequestBytes
	TagResponseBytes
	TagRequestTruncated
	TagResponseTruncated
	TagRedacted
	TagConnectionID
	TagServerName
	TagALPN
	TagPeer
	TagTransportFailure
)

// AppendField appends a field of bytes: its tag, its length, itself.
func AppendField[T []byte | string](dst []byte, tag int, v T) []byte {
	dst = binary.AppendUvarint(dst, uint64(tag))
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	return append(dst, v...)
}

// AppendFieldHead appends a tag and the length of a value that follows.
func AppendFieldHead(dst []byte, tag, length int) []byte {
	dst = binary.AppendUvarint(dst, uint64(tag))
	return binary.AppendUvarint(dst, uint64(length))
}

// AppendInt appends a field that is a number.
func AppendInt(dst []byte, tag int, v int64) []byte {
	var b [binary.MaxVarintLen64]byte
	return AppendField(dst, tag, b[:binary.PutVarint(b[:], v)])
}

// AppendHeader appends a field that is a header.
func AppendHeader(dst []byte, tag int, name, value []byte) []byte {
	var b [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(b[:], uint64(len(name)))
	dst = AppendFieldHead(dst, tag, k+len(name)+len(value))
	dst = append(dst, b[:k]...)
	dst = append(dst, name...)
	return append(dst, value...)
}

// Append encodes r. Empty values are left out.
func (r *Record) Append(dst []byte) []byte {
	dst = append(dst, Version)
	text := func(tag int, v string) {
		if v != "" {
			dst = AppendField(dst, tag, v)
		}
	}
	raw := func(tag int, v []byte) {
		if len(v) > 0 {
			dst = AppendField(dst, tag, v)
		}
	}
	num := func(tag int, v int64) {
		if v != 0 {
			dst = AppendInt(dst, tag, v)
		}
	}
	text(TagTap, r.Tap)
	if r.ID != [16]byte{} {
		raw(TagID, r.ID[:])
	}
	text(TagNode, r.Node)
	text(TagService, r.Service)
	text(TagDirection, r.Direction)
	num(TagStart, r.Start)
	num(TagDuration, r.Duration)
	num(TagRequestEnd, r.RequestEnd)
	num(TagUpstreamResponse, r.UpstreamResponse)
	num(TagResponseStart, r.ResponseStart)
	raw(TagMethod, r.Method)
	raw(TagScheme, r.Scheme)
	raw(TagAuthority, r.Authority)
	raw(TagPath, r.Path)
	text(TagProtocol, r.Protocol)
	num(TagStatus, int64(r.Status))
	text(TagFlags, r.Flags)
	text(TagDetails, r.Details)
	num(TagAttempts, int64(r.Attempts))
	text(TagRoute, r.Route)
	text(TagVirtualHost, r.VirtualHost)
	text(TagCluster, r.Cluster)
	text(TagUpstream, r.Upstream)
	text(TagRemote, r.Remote)
	text(TagLocal, r.Local)
	text(TagTraceID, r.TraceID)
	text(TagSpanID, r.SpanID)
	raw(TagRequestID, r.RequestID)
	for _, h := range r.RequestHeaders {
		dst = AppendHeader(dst, TagRequestHeader, h.Name, h.Value)
	}
	for _, h := range r.ResponseHeaders {
		dst = AppendHeader(dst, TagResponseHeader, h.Name, h.Value)
	}
	raw(TagRequestBody, r.RequestBody)
	raw(TagResponseBody, r.ResponseBody)
	num(TagRequestBytes, int64(r.RequestBytes))
	num(TagResponseBytes, int64(r.ResponseBytes))
	num(TagRequestTruncated, flag(r.RequestTruncated))
	num(TagResponseTruncated, flag(r.ResponseTruncated))
	num(TagRedacted, int64(r.Redacted))
	num(TagConnectionID, int64(r.ConnectionID))
	raw(TagServerName, r.ServerName)
	raw(TagALPN, r.ALPN)
	raw(TagPeer, r.Peer)
	text(TagTransportFailure, r.TransportFailure)
	return dst
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

var (
	errEmpty     = errors.New("tap record: empty")
	errTruncated = errors.New("tap record: cut short")
)

// Decode reads an encoded record into r, whose slices are used again. Bytes of r
// point into b afterwards; strings are copies.
func (r *Record) Decode(b []byte) error {
	req, resp := r.RequestHeaders[:0], r.ResponseHeaders[:0]
	*r = Record{RequestHeaders: req, ResponseHeaders: resp}
	if len(b) == 0 {
		return errEmpty
	}
	if b[0] != Version {
		return fmt.Errorf("tap record: version %d is not known", b[0])
	}
	for b = b[1:]; len(b) > 0; {
		tag, k := binary.Uvarint(b)
		if k <= 0 {
			return errTruncated
		}
		n, m := binary.Uvarint(b[k:])
		if m <= 0 || n > uint64(len(b)-k-m) {
			return errTruncated
		}
		v := b[k+m : k+m+int(n) : k+m+int(n)]
		b = b[k+m+int(n):]
		if err := r.set(tag, v); err != nil {
			return err
		}
	}
	return nil
}

func (r *Record) set(tag uint64, v []byte) error {
	if p := r.text(tag); p != nil {
		if !utf8.Valid(v) {
			return fmt.Errorf("tap record: field %d is not text", tag)
		}
		*p = string(v)
		return nil
	}
	if p := r.raw(tag); p != nil {
		*p = v
		return nil
	}
	switch tag {
	case TagID:
		if len(v) != len(r.ID) {
			return fmt.Errorf("tap record: id of %d bytes", len(v))
		}
		copy(r.ID[:], v)
		return nil
	case TagRequestHeader, TagResponseHeader:
		n, k := binary.Uvarint(v)
		if k <= 0 || n > uint64(len(v)-k) {
			return errTruncated
		}
		h := Header{Name: v[k : k+int(n) : k+int(n)], Value: v[k+int(n):]}
		if tag == TagRequestHeader {
			r.RequestHeaders = append(r.RequestHeaders, h)
		} else {
			r.ResponseHeaders = append(r.ResponseHeaders, h)
		}
		return nil
	}
	return r.number(tag, v)
}

func (r *Record) number(tag uint64, v []byte) error {
	switch tag {
	case TagStart, TagDuration, TagRequestEnd, TagUpstreamResponse, TagResponseStart, TagStatus, TagAttempts,
		TagRequestBytes, TagResponseBytes, TagRequestTruncated, TagResponseTruncated, TagRedacted,
		TagConnectionID:
	default:
		return nil // of a later version
	}
	n, k := binary.Varint(v)
	if k != len(v) || k <= 0 {
		return fmt.Errorf("tap record: field %d is not a number", tag)
	}
	switch tag {
	case TagStart:
		r.Start = n
	case TagDuration:
		r.Duration = n
	case TagRequestEnd:
		r.RequestEnd = n
	case TagUpstreamResponse:
		r.UpstreamResponse = n
	case TagResponseStart:
		r.ResponseStart = n
	case TagStatus:
		r.Status = uint16(n)
	case TagAttempts:
		r.Attempts = uint16(n)
	case TagRequestBytes:
		r.RequestBytes = uint64(n)
	case TagResponseBytes:
		r.ResponseBytes = uint64(n)
	case TagRequestTruncated:
		r.RequestTruncated = n != 0
	case TagResponseTruncated:
		r.ResponseTruncated = n != 0
	case TagRedacted:
		r.Redacted = uint32(n)
	case TagConnectionID:
		r.ConnectionID = uint64(n)
	}
	return nil
}

func (r *Record) text(tag uint64) *string {
	switch tag {
	case TagTap:
		return &r.Tap
	case TagNode:
		return &r.Node
	case TagService:
		return &r.Service
	case TagDirection:
		return &r.Direction
	case TagProtocol:
		return &r.Protocol
	case TagFlags:
		return &r.Flags
	case TagDetails:
		return &r.Details
	case TagRoute:
		return &r.Route
	case TagVirtualHost:
		return &r.VirtualHost
	case TagCluster:
		return &r.Cluster
	case TagUpstream:
		return &r.Upstream
	case TagRemote:
		return &r.Remote
	case TagLocal:
		return &r.Local
	case TagTraceID:
		return &r.TraceID
	case TagSpanID:
		return &r.SpanID
	case TagTransportFailure:
		return &r.TransportFailure
	}
	return nil
}

func (r *Record) raw(tag uint64) *[]byte {
	switch tag {
	case TagMethod:
		return &r.Method
	case TagScheme:
		return &r.Scheme
	case TagAuthority:
		return &r.Authority
	case TagPath:
		return &r.Path
	case TagRequestID:
		return &r.RequestID
	case TagRequestBody:
		return &r.RequestBody
	case TagResponseBody:
		return &r.ResponseBody
	case TagServerName:
		return &r.ServerName
	case TagALPN:
		return &r.ALPN
	case TagPeer:
		return &r.Peer
	}
	return nil
}
