// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sidecarservice"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

// asSidecar makes the test binary the sidecar's: its command line, signals and
// exit codes are those of the real one, over a data plane that is told what to do
// by files in a folder.
const asSidecar = "OUTRIGGER_TEST_SIDECAR"

// withDataPlane leaves it its own data plane.
const withDataPlane = "OUTRIGGER_TEST_DATA_PLANE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asSidecar); dir != "" {
		_ = os.Unsetenv(asSidecar) // the command of exec is another program
		if os.Getenv(withDataPlane) != "" {
			main()
		}
		os.Exit(mainExit(parts{
			start: func(_ context.Context, env environment) (dataPlane, error) { return startScripted(dir, env) },
			validate: func(o Options) error {
				if o.ConfigYAML == "bad" {
					return fmt.Errorf("--config-yaml:1: admin: want an object")
				}
				return nil
			},
		}))
	}
	os.Exit(m.Run())
}

// scripted is a data plane that binds its outbound address and otherwise waits for
// files: "configured" makes it ready, "drained" ends a drain. It writes what it was
// asked to do into "events", and how many bytes of heap are for one sample of a
// profile into "heapsamples".
type scripted struct {
	succession // nothing is handed over
	dir        string
	listener   net.Listener
	configured chan struct{}
	failed     chan error
	stop       context.CancelFunc
	watching   sync.WaitGroup
}

func startScripted(dir string, env environment) (*scripted, error) {
	l, err := net.Listen("tcp", env.Options.Outbound)
	if err != nil {
		return nil, fmt.Errorf("--outbound: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "heapsamples"), fmt.Append(nil, runtime.MemProfileRate), 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &scripted{dir: dir, listener: l, configured: make(chan struct{}), failed: make(chan error, 1), stop: cancel}
	s.watching.Go(func() {
		if s.await(ctx, "configured") == nil {
			close(s.configured)
		}
	})
	s.watching.Go(func() {
		if s.await(ctx, "fail") == nil {
			s.failed <- fmt.Errorf("told to fail")
		}
	})
	s.watching.Go(func() {
		if s.await(ctx, "quit") == nil {
			env.Quit()
		}
	})
	return s, nil
}

// await polls for a file: another process makes it.
func (s *scripted) await(ctx context.Context, name string) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (s *scripted) event(text string) {
	f, err := os.OpenFile(filepath.Join(s.dir, "events"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintln(f, text)
}

func (s *scripted) Configured() <-chan struct{} { return s.configured }
func (s *scripted) Failed() <-chan error        { return s.failed }
func (s *scripted) AdminAddress() string        { return s.listener.Addr().String() }
func (s *scripted) ReopenLogs()                 { s.event("reopen") }
func (s *scripted) Reload() (string, error)     { s.event("reload"); return "", nil }
func (s *scripted) Alive(context.Context) error { return nil }
func (s *scripted) Objection() error            { return nil }
func (s *scripted) Ejected() []agent.Ejected    { return nil }
func (s *scripted) TapSource() agent.Source     { return nil }
func (s *scripted) SpanSource() agent.Source    { return nil }

func (s *scripted) Drain(ctx context.Context, scope proxy.DrainScope) error {
	s.event(map[proxy.DrainScope]string{proxy.DrainInbound: "drain inbound", proxy.DrainOutbound: "drain outbound", proxy.DrainAll: "drain all"}[scope])
	err := s.await(ctx, "drained")
	s.event("drain ended")
	return err
}

func (s *scripted) Close() error {
	s.stop()
	s.watching.Wait()
	s.event("close")
	return s.listener.Close()
}

// patience bounds every wait; a test that passes is far below it.
const patience = 15 * time.Second

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

// sidecar is one running process.
type sidecar struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	done   chan struct{}
	stderr lockedBuffer
	stdout lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startSidecar(t *testing.T, args ...string) *sidecar {
	t.Helper()
	s := &sidecar{t: t, dir: t.TempDir(), done: make(chan struct{})}
	s.cmd = exec.Command(os.Args[0], args...)
	s.cmd.Env = append(os.Environ(), asSidecar+"="+s.dir)
	s.cmd.Dir = s.dir
	s.cmd.Stderr, s.cmd.Stdout = &s.stderr, &s.stdout
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(s.done); _ = s.cmd.Wait() }()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.done
		if t.Failed() {
			t.Logf("sidecar %v said:\n%s%s", args, s.stderr.String(), s.stdout.String())
		}
	})
	return s
}

func (s *sidecar) touch(name string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sidecar) events() string {
	data, _ := os.ReadFile(filepath.Join(s.dir, "events"))
	return strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", ", ")
}

func (s *sidecar) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sidecar) exit() int {
	s.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-timer.C:
		s.t.Fatal("the sidecar has not ended")
		return -1
	}
}

func (s *sidecar) wantExit(code int, text string) {
	s.t.Helper()
	if got := s.exit(); got != code {
		s.t.Errorf("got exit code %d, want %d", got, code)
	}
	if !strings.Contains(s.stderr.String()+s.stdout.String(), text) {
		s.t.Errorf("%q was not said", text)
	}
}

// controlPlane is the real sidecar service over the real registry.
type controlPlane struct {
	address string

	mu       sync.Mutex
	model    *mesh.Model
	revision uint64
}

func startControlPlane(t *testing.T, options ...grpc.ServerOption) *controlPlane {
	t.Helper()
	c := &controlPlane{model: mesh.Empty()}
	reg, err := registry.New(registry.Config{Journal: c, Publish: func(changes []mesh.Change) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.model = c.model.Apply(changes...)
	}})
	if err != nil {
		t.Fatal(err)
	}
	service, err := sidecarservice.New(sidecarservice.Config{Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.address = l.Addr().String()
	server := grpc.NewServer(options...)
	service.Attach(server)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); serving.Wait(); reg.Close() })
	return c
}

func (c *controlPlane) NextRevision() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision++
	return c.revision
}

func (c *controlPlane) CommitInstances([]registry.Write) error { return nil }

func (c *controlPlane) instances(service string) []*mesh.Instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.model.Instances[service]
}

// common is the command line of the common case on free addresses.
func (c *controlPlane) common(more ...string) []string {
	return append([]string{
		"--service", "orders", "--app", "127.0.0.1:1", "--controlplane", c.address,
		"--inbound", "127.0.0.1:15906", "--outbound", "127.0.0.1:0", "--admin", "unix:admin.sock",
	}, more...)
}
