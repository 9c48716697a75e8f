// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gcptest "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
)

func TestMain(m *testing.M) {
	// Tests that run in parallel mostly wait for the client's timers. On the command line -parallel overrides it.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const nodeID = "test-id"

// Types of filters that keep their configuration as text.
const (
	filterOne = "type.googleapis.com/test.One"
	filterTwo = "type.googleapis.com/test.Two"
)

func testFilters() *filter.Registry {
	text := func(config []byte) (any, error) { return string(config), nil }
	return filter.NewRegistry(
		filter.Spec{Name: "router", TypeURL: "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
		filter.Spec{Name: "one", TypeURL: filterOne, Parse: text}, filter.Spec{Name: "two", TypeURL: filterTwo, Parse: text})
}

// dial connects without credentials.
func dial(_ context.Context, t client.Target) (*grpc.ClientConn, error) {
	a := t.Addresses[0]
	return grpc.NewClient(fmt.Sprintf("%s:%d", a.Host, a.Port), grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// consumer keeps the snapshots that a client publishes.
type consumer struct {
	client *client.Client
	mu     sync.Mutex
	all    []*resource.Snapshot
	change chan struct{}
	stop   func()
}

type settings struct {
	store       *client.LastGood
	maxResponse int // bytes; 0 is the default
	log         slog.Handler
	lookUp      func([]*resource.Cluster)
	asked       []client.Asked
}

// start runs a client until the test ends.
func start(t testing.TB, bootstrap string, o settings) *consumer {
	t.Helper()
	b, err := decode.Bootstrap([]byte(bootstrap), "bootstrap.yaml", testFilters())
	if err != nil {
		t.Fatal(err)
	}
	c := &consumer{change: make(chan struct{})}
	level := slog.LevelError
	if os.Getenv("XDS_DEBUG") != "" {
		level = slog.LevelDebug
	}
	if o.log == nil {
		o.log = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	}
	c.client, err = client.New(client.Config{
		Bootstrap: b, Registry: testFilters(), Dial: dial, Store: o.store, Version: "0.0.0-test", MaxResponseBytes: o.maxResponse,
		Log: slog.New(o.log), LookUp: o.lookUp, Asked: o.asked,
		Publish: func(s *resource.Snapshot) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.all = append(c.all, s)
			close(c.change)
			c.change = make(chan struct{})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.client.Run(ctx) }()
	c.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(c.stop)
	return c
}

// wait waits for a snapshot, from now or before, that satisfies the condition.
func (c *consumer) wait(t testing.TB, what string, ok func(*resource.Snapshot) bool) *resource.Snapshot {
	t.Helper()
	deadline := time.NewTimer(25 * time.Second)
	defer deadline.Stop()
	for from := 0; ; {
		c.mu.Lock()
		list, change := c.all[from:], c.change
		c.mu.Unlock()
		for _, s := range list {
			if ok(s) {
				return s
			}
		}
		from += len(list)
		select {
		case <-change:
		case <-deadline.C:
			st := c.client.Status()
			t.Fatalf("no snapshot with %s after 25s; %d snapshots; status %+v", what, from, st)
		}
	}
}

func (c *consumer) snapshots() []*resource.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*resource.Snapshot(nil), c.all...)
}

// closed reports what a snapshot lacks that its resources refer to.
func closed(s *resource.Snapshot) string {
	var missing []string
	clusters := func(rc *resource.RouteConfig) {
		for _, vh := range rc.VirtualHosts {
			for _, r := range vh.Routes {
				if r.Action == nil {
					continue
				}
				for _, w := range r.Action.Clusters {
					if s.Clusters[w.Name] == nil {
						missing = append(missing, "cluster "+w.Name)
					}
				}
			}
		}
	}
	for _, l := range s.Listeners {
		for _, fc := range l.FilterChains {
			switch {
			case fc.TCP != nil:
				for _, w := range fc.TCP.Clusters {
					if s.Clusters[w.Name] == nil {
						missing = append(missing, "cluster "+w.Name)
					}
				}
			case fc.HTTP.RouteConfigName != "":
				rc := s.Routes[fc.HTTP.RouteConfigName]
				if rc == nil {
					missing = append(missing, "route "+fc.HTTP.RouteConfigName)
					continue
				}
				if len(rc.VirtualHosts) == 0 {
					missing = append(missing, "virtual hosts of "+rc.Name)
				}
				clusters(rc)
			}
		}
	}
	for _, sr := range s.ScopedRoute {
		if rc := s.Routes[sr.RouteConfigName]; rc == nil {
			missing = append(missing, "route "+sr.RouteConfigName)
		} else {
			clusters(rc)
		}
	}
	for name := range s.Clusters {
		if a := s.Assignments[name]; a == nil || len(a.Localities) == 0 {
			missing = append(missing, "endpoints of "+name)
		}
	}
	return strings.Join(missing, ", ")
}

// bootstrapFor is the bootstrap of a mode for a server.
func bootstrapFor(t testing.TB, mode string, s *xdstest.Server) string {
	t.Helper()
	data, err := os.ReadFile("../decode/testdata/bootstrap-" + mode + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	addr := s.Addr
	if mode == "rest" {
		addr = s.REST
	}
	_, port, _ := strings.Cut(addr, ":")
	return strings.ReplaceAll(string(data), "18000", port)
}

var modes = []string{"ads", "xds", "rest", "delta", "delta-ads"}

func world(mode, version string) gcptest.TestSnapshot {
	s := gcptest.TestSnapshot{
		Xds: mode, Version: version, UpstreamPort: 18080, BasePort: 9000, NumClusters: 4,
		NumHTTPListeners: 2, NumScopedHTTPListeners: 2, NumTCPListeners: 2, NumRuntimes: 1, NumExtension: 1,
	}
	if mode == "delta" {
		s.NumVHDSHTTPListeners = 2
	}
	return s
}

func TestEveryModeOfDeliveryGivesCompleteSnapshotsThroughUpdates(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := xdstest.Start(t, xdstest.Options{ADS: mode == "ads"})
			c := start(t, bootstrapFor(t, mode, s), settings{})
			for _, version := range []string{"v0", "v1", "v2"} {
				w := world(mode, version)
				s.Set(t, nodeID, w.Generate())
				listeners := 6 + w.NumVHDSHTTPListeners
				got := c.wait(t, version, func(s *resource.Snapshot) bool {
					for name := range s.Clusters {
						if strings.HasPrefix(name, "cluster-") && !strings.HasPrefix(name, "cluster-"+version) {
							return false // the old ones are let go at last
						}
					}
					routes := 0
					for name := range s.Routes {
						if strings.HasPrefix(name, "route-"+version) {
							routes++
						}
					}
					return len(s.Listeners) == listeners && routes == 4+w.NumVHDSHTTPListeners && len(s.Routes) == routes
				})
				if mode == "xds" || mode == "rest" || mode == "delta" {
					if got.Runtime.Numbers["field-0"] != 100 || got.Runtime.Texts["field-1"] != "foobar" {
						t.Errorf("runtime is %+v", got.Runtime)
					}
				}
			}
			for i, snap := range c.snapshots() {
				if missing := closed(snap); missing != "" {
					t.Errorf("snapshot %d lacks %s", i, missing)
				}
			}
		})
	}
}
