// SPDX-License-Identifier: Apache-2.0

// Package grpcweb is the HTTP filter that lets clients of gRPC-Web, which browsers
// are, call services that speak gRPC only (Envoy's envoy.filters.http.grpc_web;
// the protocol is PROTOCOL-WEB.md of grpc/grpc). Requests become calls of gRPC; of
// their answers the trailers become the last frame of the body. Bodies in base64
// (application/grpc-web-text) are decoded and encoded piece by piece.
//
// A cluster that does not leave the protocol to downstream has to speak HTTP/2.
// Answers that are none of gRPC pass
// as they are. CORS is another filter's.
package grpcweb

import (
	"encoding/base64"
	"errors"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// TypeURL is the type of the filter's configuration, an empty message.
const TypeURL = "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"

// Spec describes the filter.
func Spec() filter.Spec {
	return filter.Spec{
		Name:    "envoy.filters.http.grpc_web",
		TypeURL: TypeURL,
		Parse: func(config []byte) (any, error) {
			if len(config) > 0 {
				return nil, errors.New("has fields: not supported")
			}
			return nil, nil
		},
		New: func(_ any, w filter.Worker) filter.Filter { return &webFilter{slot: w.Slot} },
	}
}

// Bounds of what a filter keeps.
const (
	maxFree      = 32
	maxScratch   = 64 << 10
	maxPreferred = 128 // bytes of a format that an answer is given in
)

// webFilter serves the exchanges of one chain on one worker. All is loop-owned.
type webFilter struct {
	slot    int
	free    []*call
	scratch []byte // what a piece has become, until the next one
	value   []byte
}

// call is what is kept of a running call.
type call struct {
	textRequest, textAnswer bool
	answered                bool // by gRPC: the body is changed
	decoder                 decoder
}

// OnRequest makes a call of gRPC of one of gRPC-Web.
func (f *webFilter) OnRequest(x *filter.Exchange) filter.Verdict {
	h := &x.Request
	web := grpc.ParseWeb(h.Known(codec.NameContentType))
	if !web.Is || h.Method != codec.MethodPost {
		return filter.Next
	}
	c := f.take()
	c.textRequest, c.textAnswer = web.Text, web.Text
	if accepted := grpc.AcceptedWeb(h.Known(codec.NameAccept)); accepted.Is {
		c.textAnswer = accepted.Text
	}
	x.Slots[f.slot] = c
	f.value = append(append(f.value[:0], grpc.ContentType...), web.Rest...)
	h.SetKnown(codec.NameContentType, f.value)
	h.TETrailers, x.HTTP2 = true, true
	if h.BodyLength != codec.BodyNone {
		h.BodyLength = codec.BodyChunked
	}
	return filter.Next
}

// OnResponse makes an answer of gRPC one of gRPC-Web. One without a body has its
// status in the head, which clients of gRPC-Web know, too.
func (f *webFilter) OnResponse(x *filter.Exchange) filter.Verdict {
	c, ok := x.Slots[f.slot].(*call)
	if !ok {
		return filter.Next
	}
	h := &x.Response
	ct := h.Known(codec.NameContentType)
	c.answered = grpc.IsContentType(ct)
	if !c.answered {
		return filter.Next
	}
	f.value = append(f.value[:0], grpc.ContentType+"-web"...)
	if c.textAnswer {
		f.value = append(f.value, "-text"...)
	}
	rest := ct[len(grpc.ContentType):]
	if len(rest) > maxPreferred {
		rest = nil
	}
	h.SetKnown(codec.NameContentType, append(f.value, rest...))
	h.RemoveKnown(codec.NameTrailer)
	if h.BodyLength != codec.BodyNone {
		h.BodyLength = codec.BodyChunked
	}
	return filter.Next
}

// TransformRequest decodes base64.
func (f *webFilter) TransformRequest(x *filter.Exchange, chunk []byte, last bool) ([]byte, bool) {
	c, ok := x.Slots[f.slot].(*call)
	if !ok || !c.textRequest {
		return chunk, true
	}
	out, ok := c.decoder.append(f.room(), chunk)
	f.scratch = out
	return out, ok && (!last || c.decoder.whole())
}

// TransformResponse encodes base64. Each piece is padded by itself, so that no
// message waits for the next one; clients have to expect that.
func (f *webFilter) TransformResponse(x *filter.Exchange, chunk []byte, _ bool) []byte {
	c, ok := x.Slots[f.slot].(*call)
	if !ok || !c.answered || !c.textAnswer {
		return chunk
	}
	f.scratch = base64.StdEncoding.AppendEncode(f.room(), chunk)
	return f.scratch
}

// TransformTrailer makes a frame of the trailers.
func (f *webFilter) TransformTrailer(x *filter.Exchange, h *codec.Header) ([]byte, bool) {
	c, ok := x.Slots[f.slot].(*call)
	if !ok || !c.answered {
		return nil, false
	}
	b := appendTrailer(f.room(), h)
	f.scratch = b
	if c.textAnswer {
		n := len(b)
		b = base64.StdEncoding.AppendEncode(b, b)
		f.scratch, b = b, b[n:]
	}
	return b, true
}

// appendTrailer appends the frame: names in lower case, each line ended by CRLF.
func appendTrailer(dst []byte, h *codec.Header) []byte {
	at := len(dst)
	dst = grpc.AppendPrefix(dst, grpc.FlagTrailer, 0)
	for i := range h.Slots() {
		name, value, _, ok := h.At(i)
		if !ok {
			continue
		}
		for _, b := range name {
			if b >= 'A' && b <= 'Z' {
				b |= 0x20
			}
			dst = append(dst, b)
		}
		dst = append(append(append(dst, ':'), value...), "\r\n"...)
	}
	grpc.AppendPrefix(dst[:at], grpc.FlagTrailer, len(dst)-at-grpc.PrefixLength)
	return dst
}

// OnDone gives back what was kept.
func (f *webFilter) OnDone(x *filter.Exchange) {
	c, ok := x.Slots[f.slot].(*call)
	if !ok {
		return
	}
	x.Slots[f.slot] = nil
	if len(f.free) < maxFree {
		f.free = append(f.free, c)
	}
}

func (f *webFilter) take() *call {
	n := len(f.free)
	if n == 0 {
		return new(call)
	}
	c := f.free[n-1]
	f.free = f.free[:n-1]
	*c = call{}
	return c
}

// room is the scratch memory, empty. What one huge piece took is not kept.
func (f *webFilter) room() []byte {
	if cap(f.scratch) > maxScratch {
		f.scratch = nil
	}
	return f.scratch[:0]
}
