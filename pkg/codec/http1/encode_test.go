// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// decodeRequest decodes one request and returns a copy of its head.
func decodeRequest(t testing.TB, in string) *codec.RequestHead {
	t.Helper()
	p := newRequestPeer(Limits{})
	p.feed([]byte(in))
	if p.err != nil || p.out.Len() == 0 {
		t.Fatalf("decode %q: %v", in, p.err)
	}
	return &p.head
}

func decodeResponse(t testing.TB, m codec.Method, in string) *codec.ResponseHead {
	t.Helper()
	p, _ := newResponsePeer(Limits{}, true, m)
	p.feed([]byte(in))
	if p.err != nil || p.out.Len() == 0 {
		t.Fatalf("decode %q: %v", in, p.err)
	}
	return &p.resp
}

func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

func TestRequestsGoUpstreamInOriginFormWithFramingWrittenAnew(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"case and order are kept",
			lines("GET /a?b HTTP/1.1", "ACCEPT: x", "Host: Example.com", "b:  y ", "A:", "connection: keep-alive"),
			lines("GET /a?b HTTP/1.1", "host: Example.com", "ACCEPT: x", "b: y", "A: ")},
		{"a length",
			lines("POST / HTTP/1.1", "Host: a", "Content-Length: 007", "X: y") + "1234567",
			lines("POST / HTTP/1.1", "host: a", "X: y", "content-length: 7")},
		{"no body where one is anticipated",
			lines("POST / HTTP/1.1", "Host: a"),
			lines("POST / HTTP/1.1", "host: a", "content-length: 0")},
		{"no body where none is anticipated",
			lines("DELETE / HTTP/1.1", "Host: a", "Content-Length: 0"),
			lines("DELETE / HTTP/1.1", "host: a")},
		{"chunks, trailers and expectation",
			lines("PUT / HTTP/1.1", "Host: a", "Expect: 100-continue", "TE: trailers", "Connection: te", "Transfer-Encoding: chunked"),
			lines("PUT / HTTP/1.1", "host: a", "transfer-encoding: chunked", "expect: 100-continue", "te: trailers", "connection: te")},
		{"close",
			lines("GET / HTTP/1.1", "Host: a", "Connection: close"),
			lines("GET / HTTP/1.1", "host: a", "connection: close")},
		{"close and trailers",
			lines("GET / HTTP/1.1", "Host: a", "TE: trailers", "Connection: close, te"),
			lines("GET / HTTP/1.1", "host: a", "te: trailers", "connection: close, te")},
		{"upgrade",
			lines("GET / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: websocket"),
			lines("GET / HTTP/1.1", "host: a", "upgrade: websocket", "connection: upgrade")},
		{"upgrade and trailers",
			lines("GET / HTTP/1.1", "Host: a", "TE: trailers", "Connection: upgrade, te", "Upgrade: websocket"),
			lines("GET / HTTP/1.1", "host: a", "upgrade: websocket", "te: trailers", "connection: upgrade, te")},
		{"absolute form",
			lines("GET http://a.b/c HTTP/1.1", "Host: a.b"),
			lines("GET /c HTTP/1.1", "host: a.b")},
		{"asterisk form",
			lines("OPTIONS * HTTP/1.1", "Host: a"),
			lines("OPTIONS * HTTP/1.1", "host: a")},
		{"CONNECT",
			lines("CONNECT a:1 HTTP/1.1", "Host: a"),
			lines("CONNECT a:1 HTTP/1.1", "host: a:1")},
		{"HTTP/1.0",
			lines("GET / HTTP/1.0", "Connection: keep-alive"),
			lines("GET / HTTP/1.1", "host: ")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(AppendRequest([]byte("kept"), decodeRequest(t, c.in))); got != "kept"+c.want {
				t.Errorf("encoded\n%q, want\n%q", got, "kept"+c.want)
			}
		})
	}
}

func TestARewrittenHeadIsEncodedWithItsChanges(t *testing.T) {
	h := decodeRequest(t, lines("GET /old HTTP/1.1", "Host: a", "One: 1", "Two: 2", "traceparent: old", "Three: 3"))
	h.SetMethod([]byte("POST"))
	h.SetMethod([]byte("not a method"))
	h.SetPath([]byte("/new path\r\n#x"))
	h.SetAuthority([]byte("b\r\nX: y"))
	h.Remove("two")
	h.SetKnown(codec.NameTraceparent, []byte("new"))
	h.AddString("Four", "4\r\nInjected: x")
	h.AddString("bad name", "x")
	h.Set("five", []byte(" 5\t"))
	h.KeepAlive = true
	want := lines("POST /new%20path%0D%0A%23x HTTP/1.1", "host: b  X: y", "One: 1", "traceparent: new", "Three: 3",
		"Four: 4  Injected: x", "five: 5", "content-length: 0")
	if got := string(AppendRequest(nil, h)); got != want {
		t.Errorf("encoded\n%q, want\n%q", got, want)
	}
	h.SetPath(nil)
	if got := string(AppendRequest(nil, h)); !strings.HasPrefix(got, "POST / HTTP/1.1\r\n") {
		t.Errorf("without a path: %q", got)
	}
}

func TestResponsesGoDownstreamAsTheClientCanReadThem(t *testing.T) {
	const get, head = codec.MethodGet, codec.MethodHead
	for _, c := range []struct {
		name      string
		method    codec.Method
		in        string
		to        codec.Protocol
		keepAlive bool
		want      string
		framing   Framing
		kept      bool
	}{
		{"a length", get, lines("HTTP/1.1 200 Fine", "Server: x", "Content-Length: 2"), codec.HTTP11, true,
			lines("HTTP/1.1 200 Fine", "Server: x", "content-length: 2"), FramingLength, true},
		{"length zero", get, lines("HTTP/1.1 200 OK", "Content-Length: 0"), codec.HTTP11, true,
			lines("HTTP/1.1 200 OK", "content-length: 0"), FramingNone, true},
		{"chunks", get, lines("HTTP/1.1 200", "Transfer-Encoding: chunked"), codec.HTTP11, true,
			lines("HTTP/1.1 200 OK", "transfer-encoding: chunked"), FramingChunked, true},
		{"to the end", get, lines("HTTP/1.0 200 OK"), codec.HTTP11, true,
			lines("HTTP/1.1 200 OK", "transfer-encoding: chunked"), FramingChunked, true},
		{"close", get, lines("HTTP/1.1 200 OK", "Content-Length: 2"), codec.HTTP11, false,
			lines("HTTP/1.1 200 OK", "content-length: 2", "connection: close"), FramingLength, false},
		{"chunks to HTTP/1.0", get, lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), codec.HTTP10, true,
			lines("HTTP/1.1 200 OK", "connection: close"), FramingClose, false},
		{"a length to HTTP/1.0", get, lines("HTTP/1.1 200 OK", "Content-Length: 2"), codec.HTTP10, true,
			lines("HTTP/1.1 200 OK", "content-length: 2", "connection: keep-alive"), FramingLength, true},
		{"HEAD keeps the length", head, lines("HTTP/1.1 200 OK", "Content-Length: 2"), codec.HTTP11, true,
			lines("HTTP/1.1 200 OK", "content-length: 2"), FramingNone, true},
		{"HEAD of chunks", head, lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), codec.HTTP10, true,
			lines("HTTP/1.1 200 OK", "connection: keep-alive"), FramingNone, true},
		{"304 keeps the length", get, lines("HTTP/1.1 304 Not Modified", "Content-Length: 9"), codec.HTTP11, true,
			lines("HTTP/1.1 304 Not Modified", "content-length: 9"), FramingNone, true},
		{"204", get, lines("HTTP/1.1 204 No Content", "Content-Length: 0"), codec.HTTP11, true,
			lines("HTTP/1.1 204 No Content"), FramingNone, true},
		{"CONNECT granted", codec.MethodConnect, lines("HTTP/1.1 200 OK", "Content-Length: 9"), codec.HTTP11, true,
			lines("HTTP/1.1 200 OK"), FramingNone, true},
		{"101", get, lines("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: websocket", "X: y"), codec.HTTP11, true,
			lines("HTTP/1.1 101 Switching Protocols", "X: y", "upgrade: websocket", "connection: upgrade"), FramingNone, true},
		{"426", get, lines("HTTP/1.1 426 Upgrade Required", "Connection: upgrade", "Upgrade: websocket", "Content-Length: 0"), codec.HTTP11, false,
			lines("HTTP/1.1 426 Upgrade Required", "content-length: 0", "upgrade: websocket", "connection: upgrade, close"), FramingNone, false},
		{"a status without a phrase", get, lines("HTTP/1.1 799", "Content-Length: 0"), codec.HTTP11, true,
			lines("HTTP/1.1 799 ", "content-length: 0"), FramingNone, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := decodeResponse(t, c.method, c.in)
			if got := string(AppendResponse(nil, h, c.to, c.keepAlive)); got != c.want {
				t.Errorf("encoded\n%q, want\n%q", got, c.want)
			}
			if framing, kept := FramingFor(h, c.to, c.keepAlive); framing != c.framing || kept != c.kept {
				t.Errorf("framing %v, kept %v, want %v, %v", framing, kept, c.framing, c.kept)
			}
		})
	}
}

func TestInformationalResponsesHaveNoFraming(t *testing.T) {
	var h codec.ResponseHead
	h.Status = 103
	h.AddString("Link", "</x>; rel=preload")
	want := lines("HTTP/1.1 103 Early Hints", "Link: </x>; rel=preload")
	if got := string(AppendInformational(nil, &h)); got != want {
		t.Errorf("encoded %q, want %q", got, want)
	}
}

func TestChunksAreWrittenAsTheyAreRead(t *testing.T) {
	dst := AppendChunk(nil, []byte("hello"))
	dst = AppendChunk(dst, nil) // would end the body
	dst = AppendChunkHeader(dst, 26)
	dst = append(dst, "abcdefghijklmnopqrstuvwxyz"...)
	dst = AppendChunkEnd(dst)
	var trailer codec.Header
	trailer.AddString("grpc-status", "0")
	trailer.AddString("Content-Length", "5")
	trailer.AddString("gone", "x")
	trailer.Remove("gone")
	want := "5\r\nhello\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n"
	if got := string(AppendLastChunk(dst, &trailer)); got != want+"grpc-status: 0\r\n\r\n" {
		t.Errorf("encoded %q", got)
	}
	if got := string(AppendLastChunk(dst, nil)); got != want+"\r\n" {
		t.Errorf("encoded %q", got)
	}
}

func TestRemoveHopByHopCleansListsOfOtherOrigin(t *testing.T) {
	var h codec.Header
	for _, f := range []string{"Connection", "X-One", "Keep-Alive", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade",
		"HTTP2-Settings", "x-one", "X-Two", "Cookie", "Proxy-Authorization"} {
		h.AddString(f, "X-ONE, cookie, close")
	}
	RemoveHopByHop(&h)
	var left []string
	for i := range h.Slots() {
		if name, _, _, ok := h.At(i); ok {
			left = append(left, string(name))
		}
	}
	if got, want := strings.Join(left, " "), "X-Two Cookie Proxy-Authorization"; got != want {
		t.Errorf("left %q, want %q", got, want)
	}
	var many codec.Header
	many.AddString("Connection", strings.Repeat("x,", maxNominations)+"last")
	many.AddString("last", "1")
	RemoveHopByHop(&many)
	if many.Len() != 1 {
		t.Errorf("%d fields left, want the one beyond the limit of nominations", many.Len())
	}
}

func TestReasonsAreKnownOrEmpty(t *testing.T) {
	for status, want := range map[int]string{200: "OK", 503: "Service Unavailable", 299: "", 600: "", -1: ""} {
		if got := Reason(status); got != want {
			t.Errorf("reason of %d: %q, want %q", status, got, want)
		}
	}
}
