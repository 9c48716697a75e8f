// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"net/netip"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

// appendRequest encodes the request as it came in.
func appendRequest(dst []byte, h *codec.RequestHead) []byte {
	dst = tap.AppendField(dst, tap.TagMethod, h.MethodBytes())
	dst = tap.AppendField(dst, tap.TagScheme, h.Scheme())
	dst = tap.AppendField(dst, tap.TagAuthority, h.Authority())
	dst = tap.AppendField(dst, tap.TagPath, h.Path())
	return appendHeaders(dst, tap.TagRequestHeader, &h.Header)
}

// appendHeaders stops at a bound that no connection manager's default limit
// lets a head reach.
func appendHeaders(dst []byte, tag int, h *codec.Header) []byte {
	for i := range h.Slots() {
		name, value, _, ok := h.At(i)
		if !ok || len(dst)+len(name)+len(value) > maxHeadBytes {
			continue
		}
		dst = tap.AppendHeader(dst, tag, name, value)
	}
	return dst
}

// appendMeta begins a record: what is known when the exchange has ended.
func appendMeta(dst []byte, name, direction string, x *filter.Exchange) []byte {
	r := &x.Record
	if direction == "" && r.Trace.SpanID != [8]byte{} {
		direction = "inbound"
		if r.Trace.Client {
			direction = "outbound"
		}
	}
	dst = appendRecord(dst, name, direction, r)
	dst = tap.AppendField(dst, tap.TagID, r.StreamID[:])
	dst = tap.AppendInt(dst, tap.TagRequestEnd, r.RequestEnd)
	dst = tap.AppendInt(dst, tap.TagResponseStart, r.ResponseStart)
	dst = tap.AppendField(dst, tap.TagProtocol, r.Protocol.String())
	dst = tap.AppendInt(dst, tap.TagStatus, int64(r.Status))
	dst = tap.AppendField(dst, tap.TagDetails, r.Details)
	route := r.Route
	if route == "" && x.Route != nil {
		route = x.Route.Name
	}
	dst = tap.AppendField(dst, tap.TagRoute, route)
	dst = tap.AppendField(dst, tap.TagVirtualHost, r.VirtualHost)
	if s := r.Security; s != nil {
		dst = tap.AppendField(dst, tap.TagServerName, s.ServerName)
		dst = tap.AppendField(dst, tap.TagALPN, s.ALPN)
	}
	if r.Trace.SpanID != [8]byte{} {
		dst = appendID(dst, tap.TagTraceID, r.Trace.TraceID[:])
		dst = appendID(dst, tap.TagSpanID, r.Trace.SpanID[:])
	}
	return tap.AppendField(dst, tap.TagRequestID, x.Request.Known(codec.NameXRequestID))
}

// appendRecord is what exchanges and connections have in common. It comes first.
func appendRecord(dst []byte, name, direction string, r *record.Record) []byte {
	dst = append(dst, tap.Version)
	dst = tap.AppendField(dst, tap.TagTap, name)
	dst = tap.AppendField(dst, tap.TagDirection, direction)
	dst = tap.AppendInt(dst, tap.TagStart, r.Start)
	dst = tap.AppendInt(dst, tap.TagDuration, r.End)
	dst = tap.AppendInt(dst, tap.TagUpstreamResponse, r.UpstreamResponse)
	if r.Flags != 0 {
		var b [128]byte
		dst = tap.AppendField(dst, tap.TagFlags, r.Flags.AppendShort(b[:0]))
	}
	dst = tap.AppendInt(dst, tap.TagAttempts, int64(r.Attempts))
	dst = tap.AppendField(dst, tap.TagCluster, r.Cluster)
	if r.UpstreamPath != "" {
		dst = tap.AppendField(dst, tap.TagUpstream, r.UpstreamPath)
	} else {
		dst = appendAddr(dst, tap.TagUpstream, r.UpstreamAddr)
	}
	dst = tap.AppendField(dst, tap.TagTransportFailure, r.TransportReason)
	dst = appendAddr(dst, tap.TagRemote, r.Remote)
	dst = appendAddr(dst, tap.TagLocal, r.Local)
	dst = tap.AppendInt(dst, tap.TagConnectionID, int64(r.ConnectionID))
	if s := r.Security; s != nil {
		peer := s.PeerURI
		if peer == "" {
			peer = s.PeerSubject
		}
		dst = tap.AppendField(dst, tap.TagPeer, peer)
	}
	return dst
}

func appendAddr(dst []byte, tag int, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return dst
	}
	var b [64]byte
	return tap.AppendField(dst, tag, a.AppendTo(b[:0]))
}

func appendID(dst []byte, tag int, id []byte) []byte {
	const hex = "0123456789abcdef"
	var b [32]byte
	for i, c := range id {
		b[2*i], b[2*i+1] = hex[c>>4], hex[c&15]
	}
	return tap.AppendField(dst, tag, b[:2*len(id)])
}

func appendSizes(dst []byte, b *body, kept, bytes, truncated int) []byte {
	dst = tap.AppendInt(dst, bytes, int64(b.total))
	if b.total > uint64(kept) {
		dst = tap.AppendInt(dst, truncated, 1)
	}
	return dst
}
