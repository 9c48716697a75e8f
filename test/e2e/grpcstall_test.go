// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// Streams whose reader has stalled, of each direction, and what each would carry.
const (
	stalledStreams  = 20
	stalledMessages = 40
	stalledMessage  = 256 << 10
	// stalledMemory bounds what a sidecar holds for both kinds together: the windows
	// that it gives, and its buffers, of each stream; they would carry 400 MiB.
	stalledMemory = 40 << 20
)

// staller serves streams that send, and streams that read only once they may.
type staller struct {
	mayRead chan struct{}
	sent    atomic.Int64 // messages of all streams that send
}

func (s *staller) serve(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	message := &testgrpc.StreamingInputCallRequest{Payload: &testgrpc.Payload{Body: make([]byte, stalledMessage)}}
	switch method {
	case "/stall/Send":
		for range stalledMessages {
			if err := stream.SendMsg(message); err != nil {
				return err
			}
			s.sent.Add(1)
		}
		return nil
	case "/stall/Read":
		<-s.mayRead
		for n := 0; ; n++ {
			if err := stream.RecvMsg(message); err == io.EOF {
				return stream.SendMsg(&testgrpc.StreamingInputCallResponse{AggregatedPayloadSize: int32(n)})
			} else if err != nil {
				return err
			}
		}
	}
	return stream.SendMsg(&testgrpc.Empty{})
}

// Readers of gRPC streams stall, of both directions, through two sidecars. Senders
// are held up, memory stays bounded, others are served; and when the readers go
// on, everything arrives.
func TestStalledReadersOfStreamsHoldTheirSendersUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &staller{mayRead: make(chan struct{})}
	// Windows that are given do not grow by what grpc-go measures: it would hold the
	// messages itself.
	const window, connWindow = 64 << 10, 16 << 20
	server := grpc.NewServer(grpc.UnknownServiceHandler(s.serve), grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(connWindow))
	go server.Serve(listener)
	defer server.Stop()
	m := mesh.New(t)
	beside := mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{Service: "stall", ID: "stall-1", App: listener.Addr().String(), XDS: m.ControlPlane.XDS})
	beside.AwaitReady()
	m.AwaitInstance("stall", "stall-1", true)
	caller := m.Caller("caller")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dial := func() *grpc.ClientConn {
		cc, err := grpc.NewClient("passthrough:///"+caller.Outbound, grpc.WithAuthority("stall"),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(connWindow))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		return cc
	}
	probe, cc := dial(), dial()
	ping := func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return probe.Invoke(ctx, "/stall/Ping", &testgrpc.Empty{}, &testgrpc.Empty{})
	}
	caller.Await(30*time.Second, "the service is routed to", ping)
	before := []int{caller.RSS(), beside.RSS()}

	open := func(method string) grpc.ClientStream {
		stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	var received, written atomic.Int64
	var reading []grpc.ClientStream
	var all sync.WaitGroup
	for range stalledStreams {
		stream := open("/stall/Send")
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		reading = append(reading, stream)
		up := open("/stall/Read")
		all.Go(func() {
			message := &testgrpc.StreamingInputCallRequest{Payload: &testgrpc.Payload{Body: make([]byte, stalledMessage)}}
			for range stalledMessages {
				if err := up.SendMsg(message); err != nil {
					t.Errorf("sending: %v", err)
					return
				}
				written.Add(1)
			}
			got := new(testgrpc.StreamingInputCallResponse)
			if err := up.CloseSend(); err != nil {
				t.Error(err)
			}
			if err := up.RecvMsg(got); err != nil || got.GetAggregatedPayloadSize() != stalledMessages {
				t.Errorf("the server has read %d messages, %v", got.GetAggregatedPayloadSize(), err)
			}
		})
	}
	// Both kinds move on until everything between them is full: nothing has moved for
	// a while then. A stop that only seems to be one makes no test fail.
	last, still := int64(-1), 0
	caller.Await(2*time.Minute, "the senders are held up", func() error {
		if now := s.sent.Load() + written.Load(); now != last {
			last, still = now, 0
		} else {
			still++
		}
		if still < 20 || last == 0 {
			return io.ErrNoProgress
		}
		return nil
	})
	for i, p := range []*mesh.Sidecar{caller, beside} {
		if grown := p.RSS() - before[i]; grown > stalledMemory {
			t.Errorf("%s has taken %d KiB more", p.ID, grown>>10)
		} else {
			t.Logf("%s has taken %d KiB more for %d stalled streams", p.ID, grown>>10, 2*stalledStreams)
		}
	}
	if n := s.sent.Load() + written.Load(); n >= 2*stalledStreams*stalledMessages/2 {
		t.Errorf("%d messages of %d were taken from their senders", n, 2*stalledStreams*stalledMessages)
	}
	if err := ping(); err != nil {
		t.Errorf("a call beside: %v", err)
	}

	close(s.mayRead)
	for _, stream := range reading {
		all.Go(func() {
			message := new(testgrpc.StreamingInputCallRequest)
			for {
				err := stream.RecvMsg(message)
				if err == io.EOF {
					return
				}
				if err != nil || len(message.GetPayload().GetBody()) != stalledMessage {
					t.Errorf("receiving: %d bytes, %v", len(message.GetPayload().GetBody()), err)
					return
				}
				received.Add(1)
			}
		})
	}
	all.Wait()
	if n := received.Load(); n != stalledStreams*stalledMessages {
		t.Errorf("%d messages arrived of %d", n, stalledStreams*stalledMessages)
	}
	mesh.Conformance(t, "grpc-stall", "%d stalled streams of each direction: senders held up after %d messages of %d, %d and %d KiB more memory in the sidecars at most; all arrive afterwards",
		stalledStreams, last, 2*stalledStreams*stalledMessages, (caller.PeakRSS()-before[0])>>10, (beside.PeakRSS()-before[1])>>10)
	for _, p := range []*mesh.Sidecar{caller, beside} {
		p.AwaitIdle()
	}
}
