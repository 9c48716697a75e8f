// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// appendFormat evaluates a header value's format over a running exchange. An
// unset command appends nothing.
func (x *exchange) appendFormat(dst []byte, f *resource.Format) []byte {
	for i := range f.Parts {
		p := &f.Parts[i]
		if p.Command == "" {
			dst = append(dst, p.Literal...)
			continue
		}
		start := len(dst)
		dst = x.appendCommand(dst, p.Command, p.Arg, p.Alt)
		if p.Max > 0 && len(dst)-start > p.Max {
			dst = dst[:start+p.Max]
		}
	}
	return dst
}

func (x *exchange) appendCommand(dst []byte, command, arg, alt string) []byte {
	r := &x.Record
	switch command {
	case "REQ":
		return appendEither(dst, arg, alt, func(n string) ([]byte, bool) {
			return requestValue(&x.Request, n, &x.w.joined)
		})
	case "RESP":
		if !x.hasResponse {
			return dst
		}
		return appendEither(dst, arg, alt, func(n string) ([]byte, bool) {
			return joinedValue(&x.Response.Header, n, &x.w.joined)
		})
	case "START_TIME":
		return appendTime(dst, r.Start, arg)
	case "PROTOCOL":
		return append(dst, r.Protocol.String()...)
	case "RESPONSE_CODE":
		return strconv.AppendUint(dst, uint64(r.Status), 10)
	case "RESPONSE_CODE_DETAILS":
		return append(dst, r.Details...)
	case "RESPONSE_FLAGS":
		return r.Flags.AppendShort(dst)
	case "RESPONSE_FLAGS_LONG":
		return r.Flags.AppendLong(dst)
	case "DURATION":
		return strconv.AppendInt(dst, x.since()/int64(time.Millisecond), 10)
	case "UPSTREAM_PROTOCOL":
		if r.HasUpstream {
			return append(dst, r.UpstreamProtocol.String()...)
		}
		return dst
	case "UPSTREAM_CONNECTION_ID":
		return strconv.AppendUint(dst, r.UpstreamConnectionID, 10)
	case "BYTES_RECEIVED":
		return strconv.AppendUint(dst, r.BytesReceived, 10)
	case "BYTES_SENT":
		return strconv.AppendUint(dst, r.BytesSent, 10)
	case "ROUTE_NAME":
		return append(dst, r.Route...)
	case "VIRTUAL_HOST_NAME":
		return append(dst, r.VirtualHost...)
	case "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW":
		return append(dst, r.Cluster...)
	case "UPSTREAM_REQUEST_ATTEMPT_COUNT":
		return strconv.AppendUint(dst, uint64(r.Attempts), 10)
	case "UPSTREAM_HOST_NAME":
		return append(dst, r.UpstreamHostname...)
	case "STREAM_ID":
		return hex.AppendEncode(dst, r.StreamID[:])
	case "CONNECTION_ID":
		return strconv.AppendUint(dst, r.ConnectionID, 10)
	case "TRACE_ID":
		return hex.AppendEncode(dst, r.Trace.TraceID[:])
	case "SPAN_ID":
		return hex.AppendEncode(dst, r.Trace.SpanID[:])
	case "HOSTNAME":
		return append(dst, x.w.proxy.hostname...)
	case "ENVIRONMENT":
		return append(dst, x.w.proxy.environment(arg)...)
	case "FILTER_CHAIN_NAME":
		return append(dst, r.FilterChain...)
	}
	return x.appendAddress(dst, command)
}

func (x *exchange) appendAddress(dst []byte, command string) []byte {
	r := &x.Record
	switch command {
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return appendAddrPort(dst, r.Remote)
	case "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
		return appendAddr(dst, r.Remote)
	case "DOWNSTREAM_REMOTE_PORT":
		return appendPort(dst, r.Remote)
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS":
		return appendAddrPort(dst, r.DirectRemote)
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT":
		return appendAddr(dst, r.DirectRemote)
	case "DOWNSTREAM_DIRECT_REMOTE_PORT":
		return appendPort(dst, r.DirectRemote)
	case "DOWNSTREAM_LOCAL_ADDRESS":
		return appendAddrPort(dst, r.Local)
	case "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":
		return appendAddr(dst, r.Local)
	case "DOWNSTREAM_LOCAL_PORT":
		return appendPort(dst, r.Local)
	case "UPSTREAM_HOST", "UPSTREAM_REMOTE_ADDRESS":
		return appendAddrPort(dst, r.UpstreamAddr)
	case "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
		return appendAddr(dst, r.UpstreamAddr)
	case "UPSTREAM_REMOTE_PORT":
		return appendPort(dst, r.UpstreamAddr)
	case "UPSTREAM_LOCAL_ADDRESS":
		return appendAddrPort(dst, r.UpstreamLocal)
	case "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":
		return appendAddr(dst, r.UpstreamLocal)
	case "UPSTREAM_LOCAL_PORT":
		return appendPort(dst, r.UpstreamLocal)
	}
	return dst
}

func appendEither(dst []byte, arg, alt string, get func(string) ([]byte, bool)) []byte {
	if v, ok := get(arg); ok {
		return append(dst, v...)
	}
	if alt != "" {
		if v, ok := get(alt); ok {
			return append(dst, v...)
		}
	}
	return dst
}

func appendTime(dst []byte, unixNano int64, layout string) []byte {
	t := time.Unix(0, unixNano).UTC()
	if layout == "%s" {
		return strconv.AppendInt(dst, t.Unix(), 10)
	}
	return t.AppendFormat(dst, "2006-01-02T15:04:05.000Z")
}

func appendAddrPort(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return dst
	}
	return a.AppendTo(dst)
}

func appendAddr(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return dst
	}
	return a.Addr().AppendTo(dst)
}

func appendPort(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return dst
	}
	return strconv.AppendUint(dst, uint64(a.Port()), 10)
}

// editRequest applies request header edits of one level: removals come last, as
// Envoy does.
func (x *exchange) editRequest(e *resource.HeaderEdits) {
	x.addHeaders(&x.Request.Header, e.RequestAdd, &x.Request)
	for _, n := range e.RequestRemove {
		x.Request.Remove(n)
	}
}

func (x *exchange) editResponse(e *resource.HeaderEdits) {
	x.addHeaders(&x.Response.Header, e.ResponseAdd, nil)
	for _, n := range e.ResponseRemove {
		x.Response.Remove(n)
	}
}

// AddRequestHeaders implements filter.Editor.
func (x *exchange) AddRequestHeaders(list []resource.HeaderOption) {
	x.addHeaders(&x.Request.Header, list, &x.Request)
}

// AddResponseHeaders implements filter.Editor.
func (x *exchange) AddResponseHeaders(list []resource.HeaderOption) {
	x.addHeaders(&x.Response.Header, list, nil)
}

// AppendFormat implements filter.Editor.
func (x *exchange) AppendFormat(dst []byte, f *resource.Format) []byte { return x.appendFormat(dst, f) }

// addHeaders adds headers. req is non-nil where h is the request's: Host and the
// pseudo headers are parts of the head and not fields then.
func (x *exchange) addHeaders(h *codec.Header, add []resource.HeaderOption, req *codec.RequestHead) {
	for i := range add {
		o := &add[i]
		v := x.appendFormat(x.w.value[:0], &o.Value)
		x.w.value = v
		if len(v) == 0 && !o.KeepEmpty {
			continue
		}
		if !codec.ValidValue(v) {
			continue // a header from input must not split the message
		}
		if req != nil && (o.Name == "host" || o.Name == ":authority") {
			req.SetAuthority(v)
			continue
		}
		switch o.Action {
		case resource.AppendIfExistsOrAdd:
			h.AddValue(o.Name, v)
		case resource.AddIfAbsent:
			if h.Index(o.Name, 0) < 0 {
				h.Set(o.Name, v)
			}
		case resource.OverwriteIfExistsOrAdd:
			h.Set(o.Name, v)
		case resource.OverwriteIfExists:
			if h.Index(o.Name, 0) >= 0 {
				h.Set(o.Name, v)
			}
		}
	}
}
