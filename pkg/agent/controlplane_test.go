// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sidecarservice"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
	"github.com/outrigger-mesh/outrigger/pkg/lake"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
	"github.com/outrigger-mesh/outrigger/pkg/spans"
)

// patience bounds every wait; a test that passes is far below it.
const patience = 10 * time.Second

// eventually waits until what holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// controlPlane is the real sidecar service over the real registry, on one address
// over several starts.
type controlPlane struct {
	t       *testing.T
	address string
	lake    *memoryLake
	spans   *spans.Store
	events  *memoryEvents
	service *sidecarservice.Service

	server  *grpc.Server
	serving sync.WaitGroup
	reg     *registry.Registry

	mu        sync.Mutex
	model     *mesh.Model
	revision  uint64
	registers int
	healths   []mesh.Health
}

func startControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	store, err := spans.NewStore(spans.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := &controlPlane{t: t, address: "127.0.0.1:0", lake: &memoryLake{}, spans: store, events: &memoryEvents{}}
	c.start()
	t.Cleanup(c.stop)
	return c
}

// start begins with an empty registry, as after a loss of everything.
func (c *controlPlane) start() {
	c.t.Helper()
	c.mu.Lock()
	c.model = mesh.Empty()
	c.mu.Unlock()
	var err error
	if c.reg, err = registry.New(registry.Config{Journal: c, Publish: c.publish}); err != nil {
		c.t.Fatal(err)
	}
	service, err := sidecarservice.New(sidecarservice.Config{Registry: c.reg, Tap: c.lake, Spans: c.spans, Events: c.events})
	if err != nil {
		c.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	c.address = listener.Addr().String()
	c.server = grpc.NewServer(grpc.MaxRecvMsgSize(sidecarservice.MaxMessageBytes))
	c.service = service
	service.Attach(c.server)
	server := c.server
	c.serving.Go(func() { _ = server.Serve(listener) })
}

// stop ends it as a crash would: connections break.
func (c *controlPlane) stop() {
	if c.server == nil {
		return
	}
	c.server.Stop()
	c.serving.Wait()
	c.reg.Close()
	c.server = nil
}

func (c *controlPlane) NextRevision() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision++
	return c.revision
}

func (c *controlPlane) CommitInstances(writes []registry.Write) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range writes {
		if w.Put != nil {
			c.registers++
		}
	}
	return nil
}

func (c *controlPlane) publish(changes []mesh.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.model = c.model.Apply(changes...)
	for _, change := range changes {
		if change.PutInstance != nil {
			c.healths = append(c.healths, change.PutInstance.Health)
		}
	}
}

// instance is what others see of orders/1, nil for nothing.
func (c *controlPlane) instance() *mesh.Instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.model.Instances["orders"] {
		if i.ID == "1" {
			return i
		}
	}
	return nil
}

func (c *controlPlane) dial() *grpc.ClientConn {
	c.t.Helper()
	conn, err := grpcdial.Dial(grpcdial.Config{
		Target: c.address, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// memoryLake is a tap sink in memory that can be told to fail or to hang.
type memoryLake struct {
	mu      sync.Mutex
	records []string
	fail    error
	calls   int
}

func (l *memoryLake) Append(_ context.Context, _, _ string, _ uint64, records [][]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.fail != nil {
		return l.fail
	}
	for _, r := range records {
		if string(r) == "poison" {
			return fmt.Errorf("%w: poison", lake.ErrInvalid)
		}
		l.records = append(l.records, string(r))
	}
	return nil
}

func (l *memoryLake) setFail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *memoryLake) stored() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.records, " ")
}

func (l *memoryLake) tried() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

// app is an application whose health can be changed.
type app struct {
	*httptest.Server
	sick      atomic.Bool
	checks    atomic.Int64
	failEvery atomic.Int64 // 2: the second check, the fourth, …
}

func startApp(t *testing.T) *app {
	t.Helper()
	a := &app{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, every := a.checks.Add(1), a.failEvery.Load()
		if a.sick.Load() || every > 0 && n%every == 0 || r.URL.Path != "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *app) address() string { return strings.TrimPrefix(a.URL, "http://") }

// config is that of the instance orders/1, ready to serve.
func config(c *controlPlane) agent.Config {
	configured := make(chan struct{})
	close(configured)
	return agent.Config{
		Conn: c.dial(), Node: "orders~1", Boot: "boot", Service: "orders",
		Instance:   &agent.Instance{Service: "orders", ID: "1", Address: "127.0.0.1", Port: 15006, Version: "v2"},
		Configured: configured,
		LeaseTTL:   time.Second,
		MinBackoff: 5 * time.Millisecond, MaxBackoff: 20 * time.Millisecond,
	}
}

// running starts an agent and waits for its end with the test's.
func running(t *testing.T, c agent.Config) *agent.Agent {
	t.Helper()
	a, err := agent.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { a.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return a
}
