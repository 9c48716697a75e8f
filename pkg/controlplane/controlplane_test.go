// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

func TestMain(m *testing.M) {
	// The gRPC client's xDS machinery keeps some goroutines for the process.
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run"),
	)
}

const patience = 20 * time.Second

// state is a Source without storage.
type state struct {
	model atomic.Pointer[mesh.Model]
	mu    sync.Mutex
	subs  map[chan uint64]struct{}
}

func newState() *state {
	s := &state{subs: map[chan uint64]struct{}{}}
	s.model.Store(mesh.Empty())
	return s
}

func (s *state) Model() *mesh.Model { return s.model.Load() }

func (s *state) Subscribe() (<-chan uint64, func()) {
	ch := make(chan uint64, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs[ch] = struct{}{}
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subs, ch)
	}
}

func (s *state) apply(changes ...mesh.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.Model().Apply(changes...)
	s.model.Store(m)
	for ch := range s.subs {
		select {
		case <-ch:
		default:
		}
		ch <- m.Revision
	}
}

func (s *state) put(t *testing.T, yaml string) {
	t.Helper()
	objects, err := mesh.Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	var changes []mesh.Change
	for _, o := range objects {
		changes = append(changes, mesh.Change{Put: o})
	}
	s.apply(changes...)
}

func instance(service, id string, at netip.AddrPort) mesh.Change {
	return mesh.Change{PutInstance: &mesh.Instance{
		Service: service, ID: id, Address: at.Addr().String(), Port: at.Port(), Health: mesh.HealthHealthy,
	}}
}

// plane is a running control plane on a free port.
type plane struct {
	*controlplane.ControlPlane
	state *state
	addr  string
}

func startPlane(t *testing.T, s *state, cfg controlplane.Config) *plane {
	t.Helper()
	cfg.Source = s
	cp, err := controlplane.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(server.GRPCOptions()...)
	cp.Server().Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{}, 2)
	go func() { _ = g.Serve(l); ran <- struct{}{} }()
	go func() { _ = cp.Run(ctx); ran <- struct{}{} }()
	t.Cleanup(func() {
		cancel()
		g.Stop()
		<-ran
		<-ran
		cp.Close()
	})
	return &plane{cp, s, l.Addr().String()}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		<-tick.C
	}
}
