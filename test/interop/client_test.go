// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bufio"
	"context"
	"io"
	"net"
	nethttp "net/http"
	"net/url"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// patience is how long anything may take on a busy machine.
const patience = time.Minute

func deadline() time.Time { return time.Now().Add(patience) }

// duplex is a stream of bytes whose directions end by themselves.
type duplex interface {
	net.Conn
	CloseWrite() error
}

// client speaks HTTP/1.1 or HTTP/2 to a proxy.
type client struct {
	name, entry string
	http2       bool
	transport   nethttp.RoundTripper
}

func newClient(t *testing.T, entry string, http2 bool) *client {
	t.Helper()
	c := &client{name: "HTTP/1.1", entry: entry, http2: http2}
	if !http2 {
		tr := &nethttp.Transport{DisableCompression: true}
		t.Cleanup(tr.CloseIdleConnections)
		c.transport = tr
		return c
	}
	c.name = "HTTP/2"
	c.transport = mesh.NewHTTP2(t, entry)
	return c
}

// do returns the body of a response that must be 200.
func (c *client) do(t *testing.T, q *nethttp.Request) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := c.transport.RoundTrip(q.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // all was read
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != nethttp.StatusOK {
		t.Fatalf("%s: %s %q %v", q.URL, resp.Status, b, err)
	}
	return string(b)
}

// webSocket opens one to the application.
func (c *client) webSocket(t *testing.T, host string) *mesh.WebSocket {
	t.Helper()
	if !c.http2 {
		return mesh.DialWebSocket(t, c.entry, host, "/ws")
	}
	return mesh.DialWebSocketHTTP2(t, c.transport, host, "/ws")
}

// connect opens a tunnel by CONNECT.
func (c *client) connect(t *testing.T) duplex {
	t.Helper()
	if c.http2 {
		return mesh.OpenTunnel(t, c.transport, &url.URL{Scheme: "http", Host: "app:80"}, nethttp.Header{})
	}
	conn, err := net.Dial("tcp", c.entry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(deadline())
	if _, err := io.WriteString(conn, "CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := nethttp.ReadResponse(r, &nethttp.Request{Method: nethttp.MethodConnect})
	if err != nil || resp.StatusCode != nethttp.StatusOK {
		t.Fatalf("CONNECT was answered %v %v", resp, err)
	}
	return &tunnel{TCPConn: conn.(*net.TCPConn), r: r}
}

// tunnel is a connection of which some was read ahead.
type tunnel struct {
	*net.TCPConn
	r io.Reader
}

func (t *tunnel) Read(b []byte) (int, error) { return t.r.Read(b) }
