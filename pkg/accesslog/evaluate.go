// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"net/netip"
	"strconv"

	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// append appends the command's value for the record at hand; set is false where
// it has none, and nothing was appended then.
func (c *command) append(dst []byte, m mode, p *Plan, r *record.Record) (_ []byte, set bool) {
	switch c.op {
	case opUnset:
		return dst, false
	case opConst:
		return c.string(dst, m, c.text)
	case opCapture:
		return c.bytes(dst, m, p.value(c.index))
	case opStartTime:
		dst = open(dst, m)
		return closed(c.time.append(dst, m, r.Start), m), true
	case opSpan:
		return c.span(dst, r)
	case opStatus:
		return strconv.AppendUint(dst, uint64(r.Status), 10), true
	case opFlags:
		return closed(r.Flags.AppendShort(open(dst, m)), m), true
	case opFlagsLong:
		return closed(r.Flags.AppendLong(open(dst, m)), m), true
	case opBytesReceived:
		return strconv.AppendUint(dst, r.BytesReceived, 10), true
	case opBytesSent:
		return strconv.AppendUint(dst, r.BytesSent, 10), true
	case opUpstreamHost:
		if r.UpstreamPath != "" && c.part == whole {
			return c.string(dst, m, r.UpstreamPath)
		}
		return c.address(dst, m, r.UpstreamAddr)
	case opRemote:
		return c.address(dst, m, r.Remote)
	case opDirectRemote:
		return c.address(dst, m, r.DirectRemote)
	case opLocal:
		return c.address(dst, m, r.Local)
	case opUpstreamLocal:
		return c.address(dst, m, r.UpstreamLocal)
	case opCluster:
		return c.string(dst, m, r.Cluster)
	case opRoute:
		return c.string(dst, m, r.Route)
	case opDetails:
		return c.details(dst, m, r.Details)
	}
	return c.appendRare(dst, m, p, r)
}

// appendRare is append for the commands that default formats do not have.
func (c *command) appendRare(dst []byte, m mode, p *Plan, r *record.Record) (_ []byte, set bool) {
	switch c.op {
	case opProtocol:
		if r.Kind == record.TCPConnection {
			return dst, false
		}
		return c.string(dst, m, r.Protocol.String())
	case opUpstreamProtocol:
		if !r.HasUpstream || r.Kind == record.TCPConnection {
			return dst, false
		}
		return c.string(dst, m, r.UpstreamProtocol.String())
	case opCloseDetails:
		return c.string(dst, m, r.CloseDetails)
	case opSecurity:
		return c.security(dst, m, r.Security)
	case opTransportReason:
		return c.details(dst, m, r.TransportReason)
	case opUpstreamName:
		if r.UpstreamHostname == "" {
			return c.address(dst, m, r.UpstreamAddr)
		}
		return c.string(dst, m, r.UpstreamHostname)
	case opVirtualHost:
		return c.string(dst, m, r.VirtualHost)
	case opFilterChain:
		return c.string(dst, m, r.FilterChain)
	case opLogType:
		return c.string(dst, m, logType(r.Kind))
	case opGRPCStatus:
		return c.grpcName(dst, m, p.value(c.index))
	case opGRPCNumber:
		n, ok := grpcCode(p.value(c.index))
		if !ok {
			return dst, false
		}
		return strconv.AppendUint(dst, uint64(n), 10), true
	case opPath:
		v := p.value(record.CapturePath)
		if i := bytes.IndexByte(v, '?'); i >= 0 && !c.query {
			v = v[:i]
		}
		return c.bytes(dst, m, v)
	case opQuery:
		return c.bytes(dst, m, queryValue(p.value(record.CapturePath), c.text))
	case opTraceID:
		return c.traceID(dst, m, &r.Trace)
	case opSpanID:
		if r.Trace.SpanID == [8]byte{} {
			return dst, false
		}
		return closed(appendHex(open(dst, m), r.Trace.SpanID[:]), m), true
	case opStreamID:
		if r.StreamID == [16]byte{} {
			return dst, false
		}
		return closed(appendUUID(open(dst, m), &r.StreamID), m), true
	}
	n, ok := c.number(r)
	if !ok {
		return dst, false
	}
	return strconv.AppendUint(dst, n, 10), true
}

func (c *command) number(r *record.Record) (n uint64, ok bool) {
	switch c.op {
	case opRequestHeaderBytes:
		return r.RequestHeaderBytes, true
	case opResponseHeaderBytes:
		return r.ResponseHeaderBytes, true
	case opWireSent:
		return r.WireSent, true
	case opWireReceived:
		return r.WireReceived, true
	case opUpstreamWireSent:
		return r.UpstreamWireSent, true
	case opUpstreamWireReceived:
		return r.UpstreamWireReceived, true
	case opAttempts:
		return uint64(r.Attempts), true
	case opConnection:
		return r.ConnectionID, r.ConnectionID != 0
	case opUpstreamConnection:
		return r.UpstreamConnectionID, r.UpstreamConnectionID != 0
	}
	return 0, false
}

// open and closed put quotes around a value of safe bytes in JSON.
func open(dst []byte, m mode) []byte {
	if m == inJSON {
		return append(dst, '"')
	}
	return dst
}

func closed(dst []byte, m mode) []byte {
	if m == inJSON {
		return append(dst, '"')
	}
	return dst
}

// bytes appends a value from the traffic; nil is unset.
func (c *command) bytes(dst []byte, m mode, v []byte) ([]byte, bool) {
	if v == nil {
		return dst, false
	}
	if c.max > 0 && len(v) > c.max {
		v = v[:c.max]
	}
	switch m {
	case inJSON:
		return append(appendJSON(append(dst, '"'), v), '"'), true
	case inQuote:
		return appendJSON(dst, v), true
	}
	return appendText(dst, v), true
}

// string appends a value from configuration, which is no more trusted; "" is
// unset.
func (c *command) string(dst []byte, m mode, v string) ([]byte, bool) {
	if v == "" {
		return dst, false
	}
	if c.max > 0 && len(v) > c.max {
		v = v[:c.max]
	}
	switch m {
	case inJSON:
		return append(appendJSON(append(dst, '"'), v), '"'), true
	case inQuote:
		return appendJSON(dst, v), true
	}
	return appendText(dst, v), true
}

// details replaces spaces, so that columns of text stay columns.
func (c *command) details(dst []byte, m mode, v string) ([]byte, bool) {
	at := len(dst)
	dst, set := c.string(dst, m, v)
	if !c.spaces {
		for i := at; i < len(dst); i++ {
			if dst[i] == ' ' {
				dst[i] = '_'
			}
		}
	}
	return dst, set
}

func (c *command) span(dst []byte, r *record.Record) ([]byte, bool) {
	from, to := moment(r, c.from), moment(r, c.to)
	if from == record.Never || to == record.Never {
		return dst, false
	}
	return strconv.AppendInt(dst, max(to-from, 0)/c.unit, 10), true
}

func moment(r *record.Record, p point) int64 {
	switch p {
	case atStart:
		return 0
	case atRequestEnd:
		return r.RequestEnd
	case atUpstreamRequest:
		return r.UpstreamRequest
	case atUpstreamResponse:
		return r.UpstreamResponse
	case atResponseStart:
		return r.ResponseStart
	case atEnd:
		return r.End
	}
	return record.Never
}

func (c *command) address(dst []byte, m mode, a netip.AddrPort) ([]byte, bool) {
	if !a.IsValid() {
		return dst, false
	}
	if c.part == port {
		return strconv.AppendUint(dst, uint64(a.Port()), 10), true
	}
	dst = open(dst, m)
	if c.part == host {
		dst = a.Addr().AppendTo(dst)
	} else {
		dst = a.AppendTo(dst)
	}
	return closed(dst, m), true
}

func (c *command) traceID(dst []byte, m mode, t *record.Trace) ([]byte, bool) {
	if t.TraceID == [16]byte{} {
		return dst, false
	}
	id := t.TraceID[:]
	if !t.ID128 {
		id = id[8:]
	}
	return closed(appendHex(open(dst, m), id), m), true
}

func (c *command) grpcName(dst []byte, m mode, v []byte) ([]byte, bool) {
	n, ok := grpcCode(v)
	if !ok {
		return dst, false
	}
	if int(n) >= len(grpcNames) {
		return c.bytes(dst, m, v)
	}
	if c.text != "" {
		return c.string(dst, m, grpcNames[n].snake)
	}
	return c.string(dst, m, grpcNames[n].camel)
}

func grpcCode(v []byte) (n uint32, ok bool) {
	if len(v) == 0 || len(v) > 9 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint32(c-'0')
	}
	return n, true
}

// grpcNames are the status codes of gRPC in order.
var grpcNames = [...]struct{ camel, snake string }{
	{"OK", "OK"}, {"Canceled", "CANCELLED"}, {"Unknown", "UNKNOWN"}, {"InvalidArgument", "INVALID_ARGUMENT"},
	{"DeadlineExceeded", "DEADLINE_EXCEEDED"}, {"NotFound", "NOT_FOUND"}, {"AlreadyExists", "ALREADY_EXISTS"},
	{"PermissionDenied", "PERMISSION_DENIED"}, {"ResourceExhausted", "RESOURCE_EXHAUSTED"},
	{"FailedPrecondition", "FAILED_PRECONDITION"}, {"Aborted", "ABORTED"}, {"OutOfRange", "OUT_OF_RANGE"},
	{"Unimplemented", "UNIMPLEMENTED"}, {"Internal", "INTERNAL"}, {"Unavailable", "UNAVAILABLE"},
	{"DataLoss", "DATA_LOSS"}, {"Unauthenticated", "UNAUTHENTICATED"},
}

func logType(k record.Kind) string {
	switch k {
	case record.TCPConnection:
		return "TcpConnectionEnd"
	case record.Periodic:
		return "DownstreamPeriodic"
	}
	return "DownstreamEnd"
}

// queryValue is the raw value of the first parameter of that name.
func queryValue(path []byte, name string) []byte {
	_, q, ok := bytes.Cut(path, []byte{'?'})
	for ok && len(q) > 0 {
		var pair []byte
		pair, q, _ = bytes.Cut(q, []byte{'&'})
		k, v, _ := bytes.Cut(pair, []byte{'='})
		if string(k) == name {
			if v == nil {
				v = []byte{}
			}
			return v
		}
	}
	return nil
}

const hexLower = "0123456789abcdef"

func appendHex(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, hexLower[c>>4], hexLower[c&15])
	}
	return dst
}

func appendUUID(dst []byte, u *[16]byte) []byte {
	for i, c := range u {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexLower[c>>4], hexLower[c&15])
	}
	return dst
}
