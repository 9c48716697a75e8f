// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// ContentType is that of a call whose messages are in no named format.
const ContentType = "application/grpc"

// Is reports whether a head with that list of fields is one of gRPC:
// application/grpc, with a format ("+proto") or parameters. gRPC-Web is not.
func Is(h *codec.Header) bool { return IsContentType(h.Known(codec.NameContentType)) }

// IsContentType is Is for the value of the field.
func IsContentType(v []byte) bool {
	rest, ok := cutFold(v, ContentType)
	return ok && (len(rest) == 0 || rest[0] == '+' || rest[0] == ';')
}

// cutFold cuts a prefix in lower case, compared without case.
func cutFold(v []byte, lower string) (rest []byte, ok bool) {
	if len(v) < len(lower) || !codec.EqualFold(v[:len(lower)], lower) {
		return v, false
	}
	return v[len(lower):], true
}

// Web is what a content type says of gRPC-Web.
type Web struct {
	Is   bool
	Text bool   // application/grpc-web-text: the body is in base64
	Rest []byte // behind it: format and parameters
}

// ParseWeb reads the content type, or one of an Accept field, of gRPC-Web.
func ParseWeb(v []byte) Web {
	rest, ok := cutFold(v, ContentType+"-web")
	if !ok {
		return Web{}
	}
	rest, text := cutFold(rest, "-text")
	if len(rest) > 0 && rest[0] != '+' && rest[0] != ';' {
		return Web{}
	}
	return Web{Is: true, Text: text, Rest: rest}
}

// AcceptedWeb is the first kind of gRPC-Web that an Accept field lists.
func AcceptedWeb(v []byte) Web {
	for part := range bytes.SplitSeq(v, []byte(",")) {
		if w := ParseWeb(bytes.TrimSpace(part)); w.Is {
			return w
		}
	}
	return Web{}
}

// SplitMethod splits the path of a call, "/package.Service/Method".
func SplitMethod(path []byte) (service, method []byte, ok bool) {
	if len(path) == 0 || path[0] != '/' {
		return nil, nil, false
	}
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	service, method, ok = bytes.Cut(path[1:], []byte("/"))
	if !ok || len(service) == 0 || len(method) == 0 || bytes.IndexByte(method, '/') >= 0 {
		return nil, nil, false
	}
	return service, method, true
}
