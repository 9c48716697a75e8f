// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// sinkNull takes everything and copies the last heads.
type sinkNull struct {
	conn     *Conn
	request  codec.RequestHead
	response codec.ResponseHead
	stream   uint32
	bytes    int
}

func (s *sinkNull) RequestHead(id uint32, h *codec.RequestHead, _ bool) error {
	s.stream = id
	s.request.CopyFrom(h)
	return nil
}
func (s *sinkNull) ResponseHead(_ uint32, h *codec.ResponseHead, _ bool) error {
	s.response.CopyFrom(h)
	return nil
}
func (s *sinkNull) Informational(uint32, *codec.ResponseHead) error { return nil }
func (s *sinkNull) Data(id uint32, b []byte, _ bool) error {
	s.bytes += len(b)
	s.conn.Consumed(id, len(b))
	return nil
}
func (s *sinkNull) Trailer(uint32, *codec.Header) error { return nil }
func (s *sinkNull) Tunnel(uint32) error                 { return nil }
func (s *sinkNull) Reset(uint32, ErrorCode, bool)       {}
func (s *sinkNull) Drained(uint32)                      {}
func (s *sinkNull) GoAway(uint32, ErrorCode)            {}

func getRequest() *codec.RequestHead {
	h := &codec.RequestHead{Protocol: codec.HTTP11}
	h.SetMethod([]byte("GET"))
	h.SetScheme([]byte("http"))
	h.SetPath([]byte("/orders/17"))
	h.SetAuthority([]byte("orders.svc:8080"))
	h.AddString("user-agent", "test/1.0")
	h.AddString("accept", "*/*")
	h.AddString("X-Request-ID", "4f3c2a10-8a8e-4c0e-9d5f-1b2c3d4e5f60")
	h.AddString("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	return h
}

func ok200() *codec.ResponseHead {
	h := &codec.ResponseHead{Status: 200, BodyLength: codec.BodyChunked}
	h.AddString("content-type", "application/json")
	h.AddString("server", "test")
	return h
}

// pair is a client and a server that talk over two buffers.
type pair struct {
	client, server *Conn
	cs, ss         sinkNull
	up, down       []byte
	now            int64
}

func newPair(tb testing.TB, l Limits) *pair {
	p := &pair{client: New(Client, l), server: New(Server, l)}
	p.cs.conn, p.ss.conn = p.client, p.server
	p.pump(tb)
	return p
}

// pump passes on what is pending until nothing is.
func (p *pair) pump(tb testing.TB) {
	for {
		p.now += 1000
		p.up = p.client.AppendPending(p.up)
		p.down = p.server.AppendPending(p.down)
		if len(p.up)+len(p.down) == 0 {
			return
		}
		n, err := p.server.Decode(p.up, p.now, &p.ss)
		if err != nil {
			tb.Fatal(err)
		}
		p.up = append(p.up[:0], p.up[n:]...)
		n, err = p.client.Decode(p.down, p.now, &p.cs)
		if err != nil {
			tb.Fatal(err)
		}
		p.down = append(p.down[:0], p.down[n:]...)
	}
}

func (p *pair) exchange(tb testing.TB, req *codec.RequestHead, resp *codec.ResponseHead, body []byte, trailer *codec.Header) {
	id, ok := p.client.NewStream()
	if !ok {
		tb.Fatal("no stream")
	}
	p.up = p.client.AppendRequest(p.up, id, req, len(body) == 0)
	if len(body) > 0 {
		p.up = p.client.AppendData(p.up, id, body, true)
	}
	p.pump(tb)
	p.down = p.server.AppendResponse(p.down, id, resp, false)
	p.down = p.server.AppendData(p.down, id, body, trailer == nil)
	if trailer != nil {
		p.down = p.server.AppendTrailer(p.down, id, trailer)
	}
	p.pump(tb)
	if p.client.Streams()+p.server.Streams() != 0 {
		tb.Fatal("streams are left")
	}
}

func TestRequestsAllocateNothingInSteadyState(t *testing.T) {
	trailer := &codec.Header{}
	trailer.AddString("grpc-status", "0")
	for _, c := range []struct {
		name    string
		body    int
		trailer *codec.Header
	}{{"no body", 0, nil}, {"a small body", 100, nil}, {"trailers", 100, trailer}, {"a body that waits for windows", 300_000, trailer}} {
		p := newPair(t, Limits{})
		req, resp, body := getRequest(), ok200(), pattern(c.body)
		run := func() { p.exchange(t, req, resp, body, c.trailer) }
		for range 300 {
			run()
		}
		most := 0.0
		if c.body > keepQueue {
			most = 60 // queues so large are not kept
		}
		if n := testing.AllocsPerRun(200, run); n > most {
			t.Errorf("%s: %v allocations", c.name, n)
		}
		if string(p.ss.request.Path()) != "/orders/17" || p.cs.response.Status != 200 {
			t.Errorf("%s: %s %d", c.name, p.ss.request.Path(), p.cs.response.Status)
		}
	}
}

func BenchmarkExchange(b *testing.B) {
	for _, size := range []int{0, 1000, 16_000} {
		b.Run(map[int]string{0: "empty", 1000: "1kB", 16_000: "16kB"}[size], func(b *testing.B) {
			p := newPair(b, Limits{})
			req, resp, body := getRequest(), ok200(), pattern(size)
			b.ReportAllocs()
			for b.Loop() {
				p.exchange(b, req, resp, body, nil)
			}
		})
	}
}
