// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// CaptureKind says where a captured value comes from.
type CaptureKind uint8

// The kinds.
const (
	ReqHeader    CaptureKind = iota // first value of Name, else of Alt
	ReqHeaderAll                    // all values of Name, joined with commas
	RespHeader                      // first value of Name, else of Alt
	RespTrailer                     // first value of Name, else of Alt
	GRPCStatus                      // of a call: in the trailer, else in the head, else what the status of HTTP stands for
)

// Capture is a value that the loop keeps for the log. Names are in lower case;
// the request's may be ":method", ":path", ":authority" and ":scheme".
type Capture struct {
	Kind CaptureKind
	Name string
	Alt  string // looked up where Name is absent
}

// AppendCaptures appends the values of list to a record's captures, in order,
// with record.AppendCapture. Heads that there were none of are nil. It runs on
// the loop and allocates nothing once dst is large enough.
func AppendCaptures(dst []byte, list []Capture, req *codec.RequestHead, resp *codec.ResponseHead, trailer *codec.Header) []byte {
	for i := range list {
		c := &list[i]
		switch c.Kind {
		case ReqHeader:
			dst = record.AppendCapture(dst, requestValue(req, c))
		case ReqHeaderAll:
			dst = appendAll(dst, req, c.Name)
		case RespHeader:
			if resp == nil {
				dst = record.AppendCapture(dst, nil)
				break
			}
			dst = record.AppendCapture(dst, either(&resp.Header, c))
		case RespTrailer:
			dst = record.AppendCapture(dst, either(trailer, c))
		case GRPCStatus:
			dst = appendGRPCStatus(dst, c, req, resp, trailer)
		}
	}
	return dst
}

// appendGRPCStatus appends the status of a call; what is no call has none.
func appendGRPCStatus(dst []byte, c *Capture, req *codec.RequestHead, resp *codec.ResponseHead, trailer *codec.Header) []byte {
	if req == nil || !grpc.Is(&req.Header) {
		return record.AppendCapture(dst, nil)
	}
	v := either(trailer, c)
	if v == nil && resp != nil {
		if v = either(&resp.Header, c); v == nil {
			var b [2]byte
			v = grpc.FromHTTP(resp.Status).Append(b[:0])
		}
	}
	return record.AppendCapture(dst, v)
}

func requestValue(h *codec.RequestHead, c *Capture) []byte {
	if h == nil {
		return nil
	}
	v := requestHeader(h, c.Name)
	if v == nil && c.Alt != "" {
		v = requestHeader(h, c.Alt)
	}
	return v
}

func requestHeader(h *codec.RequestHead, name string) []byte {
	if name[0] == ':' {
		return pseudo(h, name)
	}
	if name == "host" {
		return nonEmpty(h.Authority())
	}
	return h.Get(name)
}

func pseudo(h *codec.RequestHead, name string) []byte {
	switch name {
	case ":method":
		return nonEmpty(h.MethodBytes())
	case ":path":
		return nonEmpty(h.Path())
	case ":authority":
		return nonEmpty(h.Authority())
	case ":scheme":
		return nonEmpty(h.Scheme())
	}
	return nil
}

func nonEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

func either(h *codec.Header, c *Capture) []byte {
	if h == nil {
		return nil
	}
	v := h.Get(c.Name)
	if v == nil && c.Alt != "" {
		v = h.Get(c.Alt)
	}
	return v
}

// appendAll appends a joined value. The length in front of it is known only
// afterwards, so an empty capture is appended first and then completed.
func appendAll(dst []byte, h *codec.RequestHead, name string) []byte {
	if h == nil {
		return record.AppendCapture(dst, nil)
	}
	if name[0] == ':' {
		return record.AppendCapture(dst, pseudo(h, name))
	}
	at := len(dst)
	dst = append(dst, 0, 0)
	dst, found := h.AppendJoined(dst, name)
	if !found {
		return record.AppendCapture(dst[:at], nil)
	}
	n := min(len(dst)-at-2, record.MaxCapture)
	dst[at], dst[at+1] = byte(n>>8), byte(n)
	return dst[:at+2+n]
}
