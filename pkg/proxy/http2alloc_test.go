// SPDX-License-Identifier: Apache-2.0

//go:build !race

package proxy

import (
	"net"
	"runtime"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// batchClient asks so many times at once, and counts the answers.
type batchClient struct {
	conn    net.Conn
	codec   *http2.Conn
	head    codec.RequestHead
	in, out []byte
	n       int
	open    int
	bad     int
}

func (c *batchClient) batch(t *testing.T, n int) {
	for range n {
		id, ok := c.codec.NewStream()
		if !ok {
			t.Fatal("no stream")
		}
		c.open++
		c.out = c.codec.AppendRequest(c.out, id, &c.head, true)
	}
	for c.open > 0 {
		c.out = c.codec.AppendPending(c.out)
		if _, err := c.conn.Write(c.out); err != nil {
			t.Fatal(err)
		}
		c.out = c.out[:0]
		k, err := c.conn.Read(c.in[c.n:])
		if err != nil {
			t.Fatal(err)
		}
		c.n += k
		done, err := c.codec.Decode(c.in[:c.n], 1, c)
		if err != nil {
			t.Fatal(err)
		}
		c.n = copy(c.in, c.in[done:c.n])
	}
}

func (c *batchClient) ResponseHead(_ uint32, h *codec.ResponseHead, _ bool) error {
	if h.Status != 200 {
		c.bad++
	}
	return nil
}

func (c *batchClient) Data(id uint32, b []byte, last bool) error {
	c.codec.Consumed(id, len(b))
	if last {
		c.open--
	}
	return nil
}

func (c *batchClient) Reset(uint32, http2.ErrorCode, bool)                { c.open--; c.bad++ }
func (c *batchClient) RequestHead(uint32, *codec.RequestHead, bool) error { return nil }
func (c *batchClient) Informational(uint32, *codec.ResponseHead) error    { return nil }
func (c *batchClient) Trailer(uint32, *codec.Header) error                { return nil }
func (c *batchClient) Tunnel(uint32) error                                { return nil }
func (c *batchClient) Drained(uint32)                                     {}
func (c *batchClient) GoAway(uint32, http2.ErrorCode)                     {}

// TestRequestsOfManyStreamsAllocateNothing: more at once than any connection keeps
// things for.
func TestRequestsOfManyStreamsAllocateNothing(t *testing.T) {
	response := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nX-One: 1\r\n\r\nhello")
	backend := rawBackend(t, response)
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", backend)
		allFeatures(s)
	})
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &batchClient{conn: conn, codec: http2.New(http2.Client, http2.Limits{}), in: make([]byte, 256<<10)}
	c.head.SetMethod([]byte("GET"))
	c.head.SetScheme([]byte("http"))
	c.head.SetAuthority([]byte("x"))
	c.head.SetPath([]byte("/a/b?c=d"))
	c.head.BodyLength = codec.BodyNone
	c.head.AddString("x-custom", "abc")
	const streams = 32
	for range 200 {
		c.batch(t, streams)
	}
	const n = 300
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		c.batch(t, streams)
	}
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / (n * streams)
	t.Logf("%.4f allocations per request", per)
	if per > 0.02 || c.bad > 0 {
		t.Errorf("%.4f allocations per request, want none; %d failed", per, c.bad)
	}
}
