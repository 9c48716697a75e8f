// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// recorder is a backend that notes each request that its own parser (net/http)
// finds on its connections, and answers it.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) serve(_ int, c net.Conn) {
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		r.mu.Lock()
		r.seen = append(r.seen, fmt.Sprintf("%s %s %s %q %v", req.Method, req.Host, req.RequestURI, body, err))
		r.mu.Unlock()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
	}
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen
	r.seen = nil
	return s
}

const smuggled = "GET /smuggled HTTP/1.1\r\nhost: evil\r\n\r\n"

// Whatever a client sends, the backend sees the requests that the proxy logged
// as forwarded, as many and with the same boundaries; a second request hidden in
// the body of the first never becomes one of its own.
func TestTheBackendSeesExactlyTheRequestsThatTheProxyForwarded(t *testing.T) {
	var rec recorder
	p := start(t, target{Upstream: hostile(t, rec.serve), Manager: "codec_type: HTTP1"})
	body := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(s), s) }
	const post = "POST /first HTTP/1.1\r\nhost: a\r\n"
	refused, survived, passed := 0, 0, []string(nil) // survived: connections on which last was answered
	for _, c := range []struct {
		name, raw string
		want      []string // method and path at the backend; nil: none
	}{
		{"a length and chunks", post + "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n" + body(smuggled), nil},
		{"chunks and a length", post + "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n" + body(smuggled), nil},
		{"two lengths", post + "content-length: 0\r\ncontent-length: 40\r\n\r\n" + smuggled, nil},
		{"the same length twice", post + "content-length: 2\r\ncontent-length: 2\r\n\r\nhi" + smuggled, nil},
		{"a list of lengths", post + "content-length: 0, 40\r\n\r\n" + smuggled, nil},
		{"a signed length", post + "content-length: +40\r\n\r\n" + smuggled, nil},
		{"a negative length", post + "content-length: -1\r\n\r\n" + smuggled, nil},
		{"a hexadecimal length", post + "content-length: 0x28\r\n\r\n" + smuggled, nil},
		{"an empty length", post + "content-length:\r\n\r\n" + smuggled, nil},
		{"a length that overflows", post + "content-length: 18446744073709551656\r\n\r\n" + smuggled, nil},
		{"a tab before the colon", post + "transfer-encoding\t: chunked\r\n\r\n" + body(smuggled), nil},
		{"a space before the colon", post + "content-length : 40\r\n\r\n" + smuggled, nil},
		{"a folded coding", post + "transfer-encoding:\r\n chunked\r\n\r\n" + body(smuggled), nil},
		{"an unknown coding", post + "transfer-encoding: xchunked\r\n\r\n" + body(smuggled), nil},
		{"identity", post + "transfer-encoding: identity\r\ncontent-length: 40\r\n\r\n" + smuggled, nil},
		{"chunked twice", post + "transfer-encoding: chunked, chunked\r\n\r\n" + body(smuggled), nil},
		{"two codings", post + "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n" + body(smuggled), nil},
		{"a quoted coding", post + "transfer-encoding: \"chunked\"\r\n\r\n" + body(smuggled), nil},
		{"a vertical tab in the coding", post + "transfer-encoding: \vchunked\r\n\r\n" + body(smuggled), nil},
		{"chunks in HTTP/1.0", "POST /first HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + body(smuggled), nil},
		{"an empty name", post + ": x\r\ncontent-length: 40\r\n\r\n" + smuggled, nil},
		{"a bare LF in the head", "POST /first HTTP/1.1\nhost: a\ncontent-length: 40\n\n" + smuggled, nil},
		{"a bare CR in a value", post + "x: a\rcontent-length: 40\r\n\r\n" + smuggled, nil},
		{"NUL in a value", post + "x: a\x00b\r\ncontent-length: 0\r\n\r\n" + smuggled, nil},
		{"a name with a length behind a NUL", post + "content-length\x00: 40\r\n\r\n" + smuggled, nil},
		{"two hosts", "GET /first HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n" + smuggled, nil},
		{"a host that differs", "GET http://a/first HTTP/1.1\r\nhost: b\r\n\r\n" + smuggled, nil},
		{"a path in the host", "GET /first HTTP/1.1\r\nhost: a/../b\r\n\r\n" + smuggled, nil},
		{"a user in the host", "GET /first HTTP/1.1\r\nhost: u@a\r\n\r\n" + smuggled, nil},
		{"a space in the target", "GET /first /x HTTP/1.1\r\nhost: a\r\n\r\n" + smuggled, nil},
		{"a fragment", "GET /first#x HTTP/1.1\r\nhost: a\r\n\r\n" + smuggled, nil},
		{"HTTP/1.2", "GET /first HTTP/1.2\r\nhost: a\r\n\r\n" + smuggled, nil},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + smuggled, nil},
		{"CONNECT with a body", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\ncontent-length: 40\r\n\r\n" + smuggled, nil},

		{"a body that is a request", post + fmt.Sprintf("content-length: %d\r\n\r\n", len(smuggled)) + smuggled, []string{"POST /first"}},
		{"chunks that are a request", post + "transfer-encoding: chunked\r\n\r\n" + body(smuggled), []string{"POST /first"}},
		{"pipelined", post + "content-length: 0\r\n\r\n" + smuggled, []string{"POST /first", "GET /smuggled"}},
		{"h2c upgrade", "GET /first HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + smuggled, []string{"GET /first", "GET /smuggled"}},
		{"WebSocket upgrade that is not configured", "GET /first HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + smuggled, []string{"GET /first", "GET /smuggled"}},
		{"connection nominates the length", post + "connection: content-length\r\ncontent-length: 2\r\n\r\nhi" + smuggled, []string{"POST /first", "GET /smuggled"}},
		{"a forbidden trailer", post + "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\ncontent-length: 40\r\ntransfer-encoding: chunked\r\nhost: evil\r\n\r\n" + smuggled, []string{"POST /first", "GET /smuggled"}},
		{"a chunk extension", post + "transfer-encoding: chunked\r\n\r\n1;a=\"0\"\r\na\r\n0;x\r\n\r\n" + smuggled, []string{"POST /first", "GET /smuggled"}},
	} {
		answer := p.say(c.raw + last)
		var got []string
		for _, s := range rec.take() {
			f := strings.Fields(s)
			got = append(got, f[0]+" "+f[2])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: the backend saw %q, want %q; the client got %q", c.name, got, c.want, answer)
		}
		if c.want == nil {
			refused++
			if n := strings.Count(answer, "HTTP/1.1 "); n != 1 || strings.HasPrefix(answer, "HTTP/1.1 2") {
				t.Errorf("%s: answered %q, want one refusal and the end of the connection", c.name, answer)
			}
			continue
		}
		passed = append(passed, c.want...)
		survived++
		if n := strings.Count(answer, "HTTP/1.1 "); n != len(c.want)+1 {
			t.Errorf("%s: answered %q, want %d answers and that to the last request", c.name, answer, len(c.want))
		}
	}
	forwarded, others := []string(nil), 0
	for _, line := range p.logged(refused + len(passed) + survived) {
		switch f := strings.Fields(line); {
		case f[4] != "-": // the upstream's address
			forwarded = append(forwarded, f[0]+" "+f[1])
		case f[1] != "/direct":
			others++
		}
	}
	if !slices.Equal(forwarded, passed) || others != refused {
		t.Errorf("the log says that %q were forwarded and %d refused, want %q and %d", forwarded, others, passed, refused)
	}
}

// The grammar of chunks: each of these bodies is refused, and what stands behind
// it is never taken for a request.
func TestBrokenChunksEndTheConnection(t *testing.T) {
	var rec recorder
	p := start(t, target{Upstream: hostile(t, rec.serve)})
	const post = "POST /first HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
	for _, c := range []struct{ name, body string }{
		{"a bare LF behind the size", "1\na\r\n0\r\n\r\n"},
		{"a bare CR behind the size", "1\ra\r\n0\r\n\r\n"},
		{"a bare LF behind the data", "1\r\na\n0\r\n\r\n"},
		{"no line end behind the data", "1\r\nab\r\n0\r\n\r\n"},
		{"a size that overflows", "10000000000000001\r\na\r\n0\r\n\r\n"},
		{"a size with a sign", "+1\r\na\r\n0\r\n\r\n"},
		{"a negative size", "-1\r\na\r\n0\r\n\r\n"},
		{"a size with 0x", "0x1\r\na\r\n0\r\n\r\n"},
		{"a size with an underscore", "0_1\r\na\r\n0\r\n\r\n"},
		{"a space before the size", " 1\r\na\r\n0\r\n\r\n"},
		{"a space behind the size", "1 \r\na\r\n0\r\n\r\n"},
		{"no size", "\r\na\r\n0\r\n\r\n"},
		{"a bare LF in an extension", "1;a\nb\r\na\r\n0\r\n\r\n"},
		{"a bare CR in an extension", "1;a\rb\r\na\r\n0\r\n\r\n"},
		{"a flood of extensions", strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 20) + "0\r\n\r\n"},
		{"a bare LF at the end", "1\r\na\r\n0\r\n\n"},
		{"a bad trailer name", "1\r\na\r\n0\r\nx y: z\r\n\r\n"},
		{"a folded trailer", "1\r\na\r\n0\r\nx: y\r\n z\r\n\r\n"},
		{"a flood of trailers", "1\r\na\r\n0\r\n" + strings.Repeat("x: y\r\n", 200) + "\r\n"},
	} {
		answer := p.say(post + c.body + smuggled)
		for _, s := range rec.take() {
			if strings.Contains(s, "/smuggled") || strings.HasSuffix(s, "<nil>") {
				t.Errorf("%s: the backend saw %q", c.name, s)
			}
		}
		if n := strings.Count(answer, "HTTP/1.1 "); n > 1 || strings.HasPrefix(answer, "HTTP/1.1 2") {
			t.Errorf("%s: answered %q", c.name, answer)
		}
	}
}
