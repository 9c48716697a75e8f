// SPDX-License-Identifier: Apache-2.0

package xdstest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/server/config"
	deltav3 "github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	restv3 "github.com/envoyproxy/go-control-plane/pkg/server/rest/v3"
	sotwv3 "github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"
)

// Options say what kind of server it is.
type Options struct {
	// Addr is where gRPC listens; "" is a free port of 127.0.0.1.
	Addr string
	// ADS makes the cache answer a named request only if it names everything the
	// snapshot has, in type order, as servers of the aggregated stream do.
	ADS bool
}

// Server is a running management server.
type Server struct {
	Addr string // of gRPC
	REST string // of REST-JSON

	// Cache holds a snapshot for each node id.
	Cache cachev3.SnapshotCache

	grpc   *grpc.Server
	http   *http.Server
	cancel context.CancelFunc
	wg     sync.WaitGroup
	stop   sync.Once

	journal
}

// Start runs a server until the test ends or Stop is called.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{journal: journal{change: make(chan struct{})}}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	quiet := log.LoggerFuncs{}
	s.Cache = cachev3.NewSnapshotCache(o.ADS, cachev3.IDHash{}, quiet)
	opts := []config.XDSOption{}
	if o.ADS {
		opts = append(opts, sotwv3.WithOrderedADS())
	}
	cb := (*recorder)(s)
	world := sotwv3.NewServer(ctx, s.Cache, cb, opts...)
	delta := deltav3.NewServer(ctx, s.Cache, cb)
	addr := o.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l := listen(t, addr)
	s.Addr = l.Addr().String()
	s.grpc = grpc.NewServer(grpc.MaxConcurrentStreams(1_000_000), grpc.MaxSendMsgSize(1<<30))
	register(s.grpc, world, delta)
	h := listen(t, "127.0.0.1:0")
	s.REST = h.Addr().String()
	s.http = &http.Server{Handler: gateway{restv3.NewServer(s.Cache, cb)}, ReadHeaderTimeout: 5 * time.Second}
	s.wg.Add(2)
	go func() {
		defer s.wg.Done()
		_ = s.grpc.Serve(l) // ends with Stop
	}()
	go func() {
		defer s.wg.Done()
		if err := s.http.Serve(h); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("REST server: %v", err)
		}
	}()
	t.Cleanup(s.Stop)
	return s
}

// listen binds an address, which a server that was just stopped may still hold.
func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("listen on %s: %v", addr, err)
	}
	return l
}

// Stop ends the server as if it had been killed: connections break.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.cancel()
		s.grpc.Stop()
		s.http.Close()
		s.wg.Wait()
	})
}

// Set publishes a snapshot for a node.
func (s *Server) Set(t testing.TB, node string, snap cachev3.ResourceSnapshot) {
	t.Helper()
	if err := s.Cache.SetSnapshot(context.Background(), node, snap); err != nil {
		t.Fatalf("set snapshot: %v", err)
	}
}

// recorder has the callbacks of go-control-plane.
type recorder Server

func (r *recorder) OnStreamOpen(context.Context, int64, string) error      { return nil }
func (r *recorder) OnStreamClosed(int64, *corev3.Node)                     {}
func (r *recorder) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }
func (r *recorder) OnDeltaStreamClosed(int64, *corev3.Node)                {}

func (r *recorder) OnStreamRequest(id int64, q *discoveryv3.DiscoveryRequest) error {
	(*Server)(r).note(Exchange{
		Stream: id, Type: q.GetTypeUrl(), Version: q.GetVersionInfo(), Nonce: q.GetResponseNonce(),
		Names: q.GetResourceNames(), Node: q.GetNode(), Nack: q.GetErrorDetail().GetMessage(), Request: true,
	})
	return nil
}

func (r *recorder) OnStreamResponse(_ context.Context, id int64, _ *discoveryv3.DiscoveryRequest, a *discoveryv3.DiscoveryResponse) {
	(*Server)(r).note(Exchange{Stream: id, Type: a.GetTypeUrl(), Version: a.GetVersionInfo(), Nonce: a.GetNonce()})
}

func (r *recorder) OnStreamDeltaRequest(id int64, q *discoveryv3.DeltaDiscoveryRequest) error {
	(*Server)(r).note(Exchange{
		Stream: id, Type: q.GetTypeUrl(), Nonce: q.GetResponseNonce(), Names: q.GetResourceNamesSubscribe(),
		Gone: q.GetResourceNamesUnsubscribe(), Initial: q.GetInitialResourceVersions(), Node: q.GetNode(),
		Nack: q.GetErrorDetail().GetMessage(), Request: true, Delta: true,
	})
	return nil
}

func (r *recorder) OnStreamDeltaResponse(id int64, _ *discoveryv3.DeltaDiscoveryRequest, a *discoveryv3.DeltaDiscoveryResponse) {
	(*Server)(r).note(Exchange{Stream: id, Type: a.GetTypeUrl(), Version: a.GetSystemVersionInfo(), Nonce: a.GetNonce(), Delta: true})
}

func (r *recorder) OnFetchRequest(_ context.Context, q *discoveryv3.DiscoveryRequest) error {
	(*Server)(r).note(Exchange{
		Type: q.GetTypeUrl(), Version: q.GetVersionInfo(), Names: q.GetResourceNames(), Node: q.GetNode(),
		Nack: q.GetErrorDetail().GetMessage(), Request: true,
	})
	return nil
}

func (r *recorder) OnFetchResponse(*discoveryv3.DiscoveryRequest, *discoveryv3.DiscoveryResponse) {}
