// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
)

// grpcLoad is one connection's load: calls that follow each other in places, or
// streams whose messages do. Everything that comes back is looked at.
type grpcLoad struct {
	pump
	tally
	streaming bool
	until     time.Time
	places    int // calls or streams at the same time
	head      codec.RequestHead
	calls     map[uint32]*grpcCall
	free      []*grpcCall
	starting  []uint32 // whose next message goes out with the next write
	seen      bool     // the peer's settings: how many streams there may be
}

type grpcCall struct {
	got   int // bytes of the message that is coming
	began time.Time
	bad   bool
	over  bool // our end was sent
}

// loadGRPC is the load of so many connections, each in a goroutine.
func loadGRPC(streaming bool, connections, places int) func(context.Context, *target) (outcome, error) {
	return func(ctx context.Context, t *target) (outcome, error) {
		return together(ctx, t, connections, func(c net.Conn, until time.Time) (tally, error) {
			g := &grpcLoad{
				pump:      pump{conn: c, codec: http2.New(http2.Client, grpcLimits())},
				streaming: streaming, until: until, places: places, calls: map[uint32]*grpcCall{},
			}
			path := grpcUnary
			if streaming {
				path = grpcStream
			}
			h := &g.head
			h.SetMethod([]byte("POST"))
			h.SetScheme([]byte("http"))
			h.SetAuthority([]byte(t.address()))
			h.SetPath([]byte(path))
			h.BodyLength, h.TETrailers = codec.BodyChunked, true
			h.AddString("content-type", "application/grpc")
			h.AddString("user-agent", "bench/1.0")
			err := g.run(g, g.step)
			return g.tally, err
		})
	}
}

var oneMessage = message()

// step sends what is due, and reports whether anything is still to come.
func (g *grpcLoad) step() bool {
	now := time.Now()
	late := now.After(g.until)
	for _, id := range g.starting {
		c := g.calls[id]
		switch {
		case c == nil:
		case late:
			c.over = true
			g.out = g.codec.AppendData(g.out, id, nil, true)
		default:
			c.began = now
			g.out = g.codec.AppendData(g.out, id, oneMessage, false)
		}
	}
	g.starting = g.starting[:0]
	if g.codec.PeerSettled() || !g.seen { // one call before the settings have come
		for n := g.places; len(g.calls) < n && !late; {
			if !g.open(now) {
				break
			}
			if !g.codec.PeerSettled() {
				break
			}
		}
		g.seen = true
	}
	return len(g.calls) > 0 || !late
}

func (g *grpcLoad) open(now time.Time) bool {
	id, ok := g.codec.NewStream()
	if !ok {
		return false
	}
	c := &grpcCall{}
	if n := len(g.free); n > 0 {
		c, g.free = g.free[n-1], g.free[:n-1]
	}
	*c = grpcCall{began: now, over: !g.streaming}
	g.calls[id] = c
	g.out = g.codec.AppendRequest(g.out, id, &g.head, false)
	g.out = g.codec.AppendData(g.out, id, oneMessage, !g.streaming)
	return true
}

func (g *grpcLoad) ResponseHead(id uint32, h *codec.ResponseHead, last bool) error {
	if c := g.calls[id]; c != nil && (h.Status != 200 || last) {
		c.bad = true
		g.fail(fmt.Errorf("answer %d, grpc-status %q", h.Status, h.Get("grpc-status")))
		if last {
			g.end(id, c)
		}
	}
	return nil
}

func (g *grpcLoad) Data(id uint32, b []byte, last bool) error {
	g.codec.Consumed(id, len(b))
	c := g.calls[id]
	if c == nil {
		return nil
	}
	for len(b) > 0 {
		n := min(len(b), messageFrame-c.got)
		if !bytes.Equal(b[:n], oneMessage[c.got:c.got+n]) {
			c.bad = true
			g.fail(errors.New("the answer is another message"))
		}
		b = b[n:]
		if c.got += n; c.got == messageFrame && g.streaming {
			c.got = 0
			g.done(c.began)
			g.starting = append(g.starting, id)
		}
	}
	if last {
		g.fail(errors.New("no trailer"))
		g.end(id, c)
	}
	return nil
}

func (g *grpcLoad) Trailer(id uint32, h *codec.Header) error {
	c := g.calls[id]
	if c == nil {
		return nil
	}
	switch status := h.Get("grpc-status"); {
	case string(status) != "0":
		g.fail(fmt.Errorf("grpc-status %q", status))
	case g.streaming && !c.over:
		g.fail(errors.New("the stream ended early"))
	case g.streaming:
	case c.got != messageFrame:
		g.fail(fmt.Errorf("the answer has %d bytes, want %d", c.got, messageFrame))
	case !c.bad:
		g.done(c.began)
	}
	g.end(id, c)
	return nil
}

func (g *grpcLoad) Reset(id uint32, code http2.ErrorCode, _ bool) {
	if c := g.calls[id]; c != nil {
		g.fail(fmt.Errorf("reset: %v", code))
		g.end(id, c)
	}
}

func (g *grpcLoad) end(id uint32, c *grpcCall) {
	delete(g.calls, id)
	g.free = append(g.free, c)
}

func (g *grpcLoad) RequestHead(uint32, *codec.RequestHead, bool) error { return nil }
func (g *grpcLoad) Informational(uint32, *codec.ResponseHead) error    { return nil }
func (g *grpcLoad) Tunnel(uint32) error                                { return nil }
func (g *grpcLoad) Drained(uint32)                                     {}
func (g *grpcLoad) GoAway(uint32, http2.ErrorCode)                     {}
