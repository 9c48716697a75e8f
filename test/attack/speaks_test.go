// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// What a connection speaks is what ALPN or the listener says; its first bytes tell
// only where nothing else does. Else one who checks only what was agreed on is
// passed by.
func TestAConnectionSpeaksWhatWasAgreedOn(t *testing.T) {
	const request = "POST /direct HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
	http1 := func(s string) bool { return strings.HasPrefix(s, "HTTP/1.1 200 ") }
	http2 := func(s string) bool {
		return len(s) > 9 && s[3] == 4 && !strings.Contains(s, "\x07\x00\x00\x00\x00\x00")
	} // SETTINGS, no GOAWAY
	for _, c := range []struct {
		codec, agreed, first string
		served               bool
	}{
		{"AUTO", "", request, true},
		{"AUTO", "", preface + settings, true},
		{"HTTP1", "", request, true},
		{"HTTP1", "", preface + settings, false},
		{"HTTP2", "", request, false},
		{"HTTP2", "", preface + settings, true},
		{"AUTO", "h2", request, false},
		{"AUTO", "h2", preface + settings, true},
		{"AUTO", "http/1.1", request, true},
		{"AUTO", "http/1.1", preface + settings, false},
		{"HTTP2", "http/1.1", request, false},
		{"HTTP1", "h2", preface + settings, false},
	} {
		t.Run(c.codec+" "+c.agreed+" "+c.first[:4], func(t *testing.T) {
			p := start(t, target{Upstream: hostile(t, answerOrHold), Manager: "codec_type: " + c.codec, Secure: c.agreed != ""})
			conn, err := net.Dial("tcp", p.addr)
			must(t, err)
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(calm))
			if c.agreed != "" {
				s := tls.Client(conn, clientTLS(c.agreed))
				must(t, s.Handshake())
				conn = s
			}
			_, err = io.WriteString(conn, c.first)
			must(t, err)
			answer := make([]byte, 0, 1024)
			for !http1(string(answer)) && !http2(string(answer)) {
				n, err := conn.Read(answer[len(answer):cap(answer)])
				answer = answer[:len(answer)+n]
				if err != nil {
					break
				}
			}
			served := http1(string(answer)) && c.first == request || http2(string(answer)) && c.first != request
			if served != c.served {
				t.Errorf("answered %q", answer)
			}
		})
	}
}
