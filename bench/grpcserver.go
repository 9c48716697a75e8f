// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
)

// Both ends of gRPC are bare: the codec of HTTP/2 and a socket, so that one core
// for both gives the proxies something to do. What they say is what grpc-go says
// for the same calls.
const (
	grpcUnary    = "/bench.Echo/Unary"
	grpcStream   = "/bench.Echo/Stream"
	messageBytes = 100
	messageFrame = 5 + messageBytes // with its prefix (compressed flag, length)
	readBytes    = 64 << 10
	manyStreams  = 1 << 16
	// window is large enough never to be waited for.
	window = 16 << 20
)

func grpcLimits() http2.Limits {
	return http2.Limits{MaxConcurrentStreams: manyStreams, InitialStreamWindow: window, InitialConnWindow: window}
}

// message is one gRPC message with its prefix.
func message() []byte {
	b := make([]byte, messageFrame)
	b[4] = messageBytes
	for i := range messageBytes {
		b[5+i] = byte('a' + i%26)
	}
	return b
}

// pump moves bytes between a socket and a codec until one of them ends. before is
// called ahead of each write.
type pump struct {
	conn  net.Conn
	codec *http2.Conn
	out   []byte
	now   int64 // the codec wants a clock for its budgets; it is not tested here
}

func (p *pump) run(sink http2.Sink, before func() (more bool)) error {
	in, n := make([]byte, 0, readBytes), 0
	for {
		more := before()
		for p.codec.HasPending() {
			p.out = p.codec.AppendPending(p.out)
		}
		if len(p.out) > 0 {
			if _, err := p.conn.Write(p.out); err != nil {
				return err
			}
			p.out = p.out[:0]
		}
		if !more {
			return nil
		}
		if n == cap(in) {
			in = append(in[:n], make([]byte, n)...)
		}
		k, err := p.conn.Read(in[n:cap(in)])
		if err != nil {
			return err
		}
		n += k
		p.now += 1e6
		done, err := p.codec.Decode(in[:n], p.now, sink)
		if err != nil {
			return err
		}
		n = copy(in[:cap(in)], in[done:n])
	}
}

// grpcServer answers each message with itself; the sink of one connection.
type grpcServer struct {
	pump
	head    codec.ResponseHead
	trailer codec.Header
}

func serveGRPC(c net.Conn) {
	g := &grpcServer{pump: pump{conn: c, codec: http2.New(http2.Server, grpcLimits())}}
	g.head.Status, g.head.BodyLength = 200, codec.BodyChunked
	g.head.AddString("content-type", "application/grpc")
	g.trailer.AddString("grpc-status", "0")
	g.trailer.AddString("grpc-message", "")
	_ = g.run(g, func() bool { return true })
}

func (g *grpcServer) RequestHead(id uint32, _ *codec.RequestHead, last bool) error {
	g.out = g.codec.AppendResponse(g.out, id, &g.head, false)
	if last {
		g.end(id)
	}
	return nil
}

func (g *grpcServer) Data(id uint32, chunk []byte, last bool) error {
	g.out = g.codec.AppendData(g.out, id, chunk, false)
	g.codec.Consumed(id, len(chunk))
	if last {
		g.end(id)
	}
	return nil
}

func (g *grpcServer) end(id uint32) { g.out = g.codec.AppendTrailer(g.out, id, &g.trailer) }

func (g *grpcServer) Trailer(id uint32, _ *codec.Header) error { g.end(id); return nil }

func (g *grpcServer) Reset(uint32, http2.ErrorCode, bool) {}

func (g *grpcServer) ResponseHead(uint32, *codec.ResponseHead, bool) error { return nil }
func (g *grpcServer) Informational(uint32, *codec.ResponseHead) error      { return nil }
func (g *grpcServer) Tunnel(uint32) error                                  { return nil }
func (g *grpcServer) Drained(uint32)                                       {}
func (g *grpcServer) GoAway(uint32, http2.ErrorCode)                       {}
