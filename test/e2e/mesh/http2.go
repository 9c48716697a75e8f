// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 net/http's Transport takes no ":protocol"

package mesh

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"

	"golang.org/x/net/http2"
)

// NewHTTP2 returns a client that speaks HTTP/2 in the clear to an address, whatever
// its requests are for.
func NewHTTP2(t testing.TB, address string) http.RoundTripper {
	t.Helper()
	tr := &http2.Transport{
		AllowHTTP: true, DisableCompression: true,
		DialTLSContext: func(ctx context.Context, network, _ string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// DialWebSocketHTTP2 is DialWebSocket by extended CONNECT (RFC 8441).
func DialWebSocketHTTP2(t testing.TB, c http.RoundTripper, host, path string) *WebSocket {
	t.Helper()
	h := http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
	return OverStream(OpenTunnel(t, c, &url.URL{Scheme: "http", Host: host, Path: path}, h))
}

// OpenTunnel opens a tunnel by CONNECT of HTTP/2.
func OpenTunnel(t testing.TB, c http.RoundTripper, u *url.URL, h http.Header) *Stream {
	t.Helper()
	pr, pw := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 2*startLimit)
	t.Cleanup(cancel)
	q := (&http.Request{Method: http.MethodConnect, URL: u, Host: u.Host, Header: h, Body: pr, ContentLength: -1}).WithContext(ctx)
	resp, err := c.RoundTrip(q)
	if err != nil {
		t.Fatalf("CONNECT to %s: %v", u, err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("CONNECT to %s was answered %s", u, resp.Status)
	}
	s := &Stream{body: resp.Body, w: pw}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Stream is a tunnel of HTTP/2 as a connection.
type Stream struct {
	net.Conn // nil: what is not below is not used
	body     io.ReadCloser
	w        *io.PipeWriter
}

func (s *Stream) Read(b []byte) (int, error)  { return s.body.Read(b) }
func (s *Stream) Write(b []byte) (int, error) { return s.w.Write(b) }

// CloseWrite ends the client's direction.
func (s *Stream) CloseWrite() error { return s.w.Close() }

// Close ends both.
func (s *Stream) Close() error {
	if err := s.w.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return s.body.Close()
}
