// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// finer: our codec names the fault where Envoy says only that there is one.
const finer = "the fault is named"

const (
	websocketAllowed = "upgrade_configs: [{upgrade_type: websocket}],"
	aWebSocket       = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
)

var detailsCases = []detailsCase{
	{name: "via-upstream", cluster: "app"},
	{name: "refused", cluster: "refused"},
	{name: "refused-post", cluster: "refused", send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"},
	{name: "refused-retries", cluster: "refused", route: `{match: {prefix: /}, route: {cluster: refused, retry_policy: {retry_on: connect-failure, num_retries: 1}}}`},
	{name: "connect-timeout", cluster: "full-backlog"},
	{name: "closes", cluster: "closes"},
	{name: "resets", cluster: "resets"},
	{name: "closes-post", cluster: "closes", send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"},
	{name: "closes-in-body", cluster: "short"},
	{name: "resets-in-body", cluster: "short-reset"},
	{name: "closes-in-head", cluster: "half-head"},
	{name: "resets-in-head", cluster: "half-head-reset"},
	{name: "bad-response-chunk", cluster: "bad-chunk"},
	{name: "bad-response-length", cluster: "bad-length"},
	{name: "no-socket", cluster: "no-socket",
		differs: "503 UF upstream_reset_before_response_started{remote_connection_failure|immediate_connect_error:_No_such_file_or_directory} immediate_connect_error:_No_such_file_or_directory -", why: "the address has a command of its own"},
	{name: "nonsense", cluster: "nonsense"},
	{name: "response-timeout", cluster: "silent", route: `{match: {prefix: /}, route: {cluster: silent, timeout: 0.1s}}`},
	{name: "per-try-timeout", cluster: "silent", route: `{match: {prefix: /}, route: {cluster: silent, retry_policy: {retry_on: connect-failure, per_try_timeout: 0.1s}}}`},
	{name: "per-try-idle-timeout", cluster: "silent", route: `{match: {prefix: /}, route: {cluster: silent, retry_policy: {retry_on: connect-failure, per_try_idle_timeout: 0.1s}}}`},
	{name: "body-timeout", cluster: "short-silent", route: `{match: {prefix: /}, route: {cluster: short-silent, timeout: 0.1s}}`},
	{name: "idle", cluster: "silent", manager: "stream_idle_timeout: 0.1s,", route: `{match: {prefix: /}, route: {cluster: silent, timeout: 0s}}`},
	{name: "idle-upload", cluster: "silent", manager: "stream_idle_timeout: 0.1s,", send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"},
	{name: "idle-in-body", cluster: "short-silent", manager: "stream_idle_timeout: 0.1s,", route: `{match: {prefix: /}, route: {cluster: short-silent, timeout: 0s}}`},
	{name: "route-idle", cluster: "silent", route: `{match: {prefix: /}, route: {cluster: silent, timeout: 0s, idle_timeout: 0.1s}}`},
	{name: "max-duration", cluster: "silent", manager: "common_http_protocol_options: {max_stream_duration: 0.1s},", route: `{match: {prefix: /}, route: {cluster: silent, timeout: 0s}}`},
	{name: "max-duration-in-body", cluster: "short-silent", manager: "common_http_protocol_options: {max_stream_duration: 0.1s},", route: `{match: {prefix: /}, route: {cluster: short-silent, timeout: 0s}}`},
	{name: "route-max-duration", cluster: "silent", route: `{match: {prefix: /}, route: {cluster: silent, timeout: 0s, max_stream_duration: {max_stream_duration: 0.1s}}}`},
	{name: "request-timeout", cluster: "silent", manager: "request_timeout: 0.1s,", send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"},
	{name: "headers-timeout", cluster: "app", manager: "request_headers_timeout: 0.1s,", send: "GET / HTTP/1.1\r\nHost"},
	{name: "no-healthy", cluster: "empty"},
	{name: "no-cluster", cluster: "app", route: `{match: {prefix: /}, route: {cluster_header: x-none}}`},
	{name: "unknown-cluster", cluster: "app", route: `{match: {prefix: /}, route: {cluster_header: x-to}}`, send: "GET / HTTP/1.1\r\nHost: a\r\nx-to: none\r\n\r\n"},
	{name: "unknown-cluster-404", cluster: "app", route: `{match: {prefix: /}, route: {cluster_header: x-to, cluster_not_found_response_code: NOT_FOUND}}`},
	{name: "no-virtual-host", cluster: "app", send: "GET / HTTP/1.1\r\nHost: b\r\n\r\n"},
	{name: "no-route", cluster: "app", route: `{match: {path: /x}, route: {cluster: app}}`},
	{name: "direct", cluster: "app", route: `{match: {prefix: /}, direct_response: {status: 418}}`},
	{name: "redirect", cluster: "app", route: `{match: {prefix: /}, redirect: {path_redirect: /x}}`},
	{name: "overflow", cluster: "full"},
	{name: "client-fin", cluster: "silent", then: "fin"},
	{name: "client-rst", cluster: "silent", then: "rst"},
	{name: "client-fin-upload", cluster: "silent", then: "fin", send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"},
	{name: "client-fin-in-body", cluster: "short-silent", then: "fin"},
	{name: "http10", cluster: "app", send: "GET / HTTP/1.0\r\nHost: a\r\n\r\n"},
	{name: "no-host", cluster: "app", send: "GET / HTTP/1.1\r\n\r\n",
		differs: "400 DPE http1.missing_host - -", why: "a fault of the codec's own: the head is refused before there is a request"},
	{name: "connect", cluster: "app", send: "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"},
	{name: "upgrade", cluster: "app", send: "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		differs: "200 - via_upstream - -", why: "RFC 9110 section 7.8 lets a server answer over HTTP/1.1"},
	{name: "tunnel-refused", cluster: "app", manager: websocketAllowed, send: aWebSocket},
	{name: "tunnel-resets", cluster: "switches-resets", manager: websocketAllowed, send: aWebSocket},
	{name: "tunnel-idle", cluster: "switches-silent", manager: "stream_idle_timeout: 0.1s, " + websocketAllowed, send: aWebSocket},
	{name: "tunnel-max-duration", cluster: "switches-silent", manager: "common_http_protocol_options: {max_stream_duration: 0.1s}, " + websocketAllowed, send: aWebSocket},
	{name: "tunnel-client-rst", cluster: "switches-silent", manager: websocketAllowed, send: aWebSocket, then: "rst"},
	{name: "tunnel-no-answer", cluster: "closes", manager: websocketAllowed, send: aWebSocket},
	{name: "bad-path", cluster: "app", manager: "normalize_path: true,", send: "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "escaped-slash", cluster: "app", manager: "path_with_escaped_slashes_action: REJECT_REQUEST,", send: "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "escaped-slash-redirect", cluster: "app", manager: "path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT,", send: "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "garbage", cluster: "app", send: "\x16\x03\x01 nonsense\r\n\r\n",
		differs: "400 DPE http1.control_character - -", why: finer},
	{name: "both-lengths", cluster: "app", send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		differs: "400 DPE http1.content_length_and_chunked - -", why: finer},
	{name: "bad-chunk", cluster: "silent", send: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		differs: "400 DPE http1.invalid_chunk_size - -", why: finer},
	{name: "bad-length", cluster: "app", send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
		differs: "400 DPE http1.invalid_content_length - -", why: finer},
	{name: "bad-name", cluster: "app", send: "GET / HTTP/1.1\r\nHost: a\r\nb ad: x\r\n\r\n",
		differs: "400 DPE http1.invalid_header_name - -", why: finer},
	{name: "bad-value", cluster: "app", send: "GET / HTTP/1.1\r\nHost: a\r\nx: a\x01b\r\n\r\n",
		differs: "400 DPE http1.control_character - -", why: finer},
	{name: "bad-coding", cluster: "app", send: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
		differs: "400 DPE http1.invalid_transfer_encoding - -", why: "RFC 9112 section 6.3: a last coding that is not chunked is 400"},
	{name: "large-head", cluster: "app", send: "GET / HTTP/1.1\r\nHost: a\r\nx: " + strings.Repeat("x", 100<<10) + "\r\n\r\n"},
	{name: "many-headers", cluster: "app", send: "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("x: y\r\n", 200) + "\r\n"},
	{name: "large-response-head", cluster: "large-head"},
	{name: "tcp-refused", cluster: "refused", tcp: true},
	{name: "tcp-timeout", cluster: "full-backlog", tcp: true},
	{name: "tcp-no-healthy", cluster: "empty", tcp: true},
	{name: "tcp-idle", cluster: "silent", tcp: true, manager: "idle_timeout: 0.1s",
		differs: "0 - - - tcp_session_idle_timeout", why: "says why; Envoy says nothing"},
	{name: "tcp-closes", cluster: "closes", tcp: true},
	{name: "tcp-resets", cluster: "resets", tcp: true},
	{name: "tcp-client-fin", cluster: "silent", tcp: true, then: "fin"},
	{name: "tcp-client-rst", cluster: "silent", tcp: true, then: "rst"},
	{name: "no-chain", cluster: "app", chain: "filter_chain_match: {source_prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 32}]},"},
}

var upstreamNames = []string{"app", "refused", "full-backlog", "closes", "resets", "short", "short-reset", "short-silent", "nonsense", "half-head", "half-head-reset", "bad-chunk", "bad-length", "no-socket", "silent", "empty", "full", "large-head", "switches-resets", "switches-silent"}

// upstreams are servers that misbehave, by the name of their cluster.
type upstreams struct {
	address map[string]string
	counts  map[string]*atomic.Int64
}

func (u *upstreams) seen(name string) int64 {
	if c := u.counts[name]; c != nil {
		return c.Load()
	}
	return 0
}

func startUpstreams(t *testing.T) *upstreams {
	u := &upstreams{address: map[string]string{"refused": mesh.FreeAddress(t), "full-backlog": fullBacklog(t), "no-socket": "unix:/nonexistent/socket"}, counts: map[string]*atomic.Int64{}}
	const short = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab"
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }
	u.start(t, "app", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") })
	u.start(t, "full", func(net.Conn) {})
	u.start(t, "closes", func(net.Conn) {})
	u.start(t, "resets", reset)
	const switches = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
	u.start(t, "switches-resets", func(c net.Conn) {
		_, _ = io.WriteString(c, switches)
		reset(c)
	})
	u.start(t, "switches-silent", func(c net.Conn) {
		_, _ = io.WriteString(c, switches)
		_, _ = io.Copy(io.Discard, c)
	})
	u.start(t, "short", func(c net.Conn) { _, _ = io.WriteString(c, short) })
	u.start(t, "short-reset", func(c net.Conn) {
		_, _ = io.WriteString(c, short)
		reset(c)
	})
	u.start(t, "short-silent", func(c net.Conn) {
		_, _ = io.WriteString(c, short)
		_, _ = io.Copy(io.Discard, c)
	})
	u.start(t, "nonsense", func(c net.Conn) { _, _ = io.WriteString(c, "nonsense\r\n\r\n") })
	u.start(t, "half-head", func(c net.Conn) { _, _ = io.WriteString(c, short[:20]) })
	u.start(t, "half-head-reset", func(c net.Conn) {
		_, _ = io.WriteString(c, short[:20])
		reset(c)
	})
	u.start(t, "bad-chunk", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n")
	})
	u.start(t, "bad-length", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n") })
	u.start(t, "silent", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	u.start(t, "large-head", func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nx: "+strings.Repeat("x", 100<<10)+"\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	return u
}

// start serves connections: each head that came is answered once, then the
// connection is closed.
func (u *upstreams) start(t *testing.T, name string, answer func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	count := new(atomic.Int64)
	u.address[name], u.counts[name] = l.Addr().String(), count
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer c.Close() //nolint:errcheck // nobody is told
				r := bufio.NewReader(c)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if strings.TrimSpace(line) == "" {
						break
					}
				}
				if n := r.Buffered(); n > 0 {
					_, _ = r.Discard(n) // a body left in the kernel would make of a close a reset
				}
				count.Add(1)
				answer(c)
			}()
		}
	}()
}

// fullBacklog is the address of a listener that takes no more connections: a SYN
// to it is not answered.
func fullBacklog(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		c, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(c) })
		_ = syscall.Connect(c, name) // in progress
	}
	a := name.(*syscall.SockaddrInet4)
	return (&net.TCPAddr{IP: a.Addr[:], Port: a.Port}).String()
}
