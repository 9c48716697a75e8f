// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// memoryEnv is for how long a sidecar with too little memory is under load; the tests'
// own is short.
const memoryEnv = "OUTRIGGER_MEMORY_FOR"

// memoryGroup is a control group that limits memory, of either version.
type memoryGroup struct {
	dir                string
	kills, procs, most string // its files
}

// newMemoryGroup makes a group below the test's own, or skips the test.
func newMemoryGroup(t *testing.T, limit int) *memoryGroup {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skip(err)
	}
	var g *memoryGroup
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch f[1] {
		case "memory":
			g = &memoryGroup{dir: "/sys/fs/cgroup/memory" + f[2], kills: "memory.oom_control", most: "memory.limit_in_bytes"}
		case "":
			if g == nil {
				g = &memoryGroup{dir: "/sys/fs/cgroup" + f[2], kills: "memory.events", most: "memory.max"}
			}
		}
	}
	if g == nil {
		t.Skip("needs a control group: /proc/self/cgroup names none")
	}
	g.dir = filepath.Join(g.dir, fmt.Sprintf("outrigger-test-%d", os.Getpid()))
	if err := os.Mkdir(g.dir, 0o755); err != nil { //nolint:gosec // a control group
		t.Skipf("needs a control group of its own: %v", err)
	}
	t.Cleanup(func() {
		mesh.Await(t, 10*time.Second, "the group to be empty", func() error { return os.Remove(g.dir) })
	})
	g.kills, g.procs = filepath.Join(g.dir, g.kills), filepath.Join(g.dir, "cgroup.procs")
	if err := os.WriteFile(filepath.Join(g.dir, g.most), fmt.Append(nil, limit), 0o600); err != nil {
		t.Skipf("needs a control group that limits memory: %v", err)
	}
	return g
}

// around starts a program within the group.
func (g *memoryGroup) around() []string {
	return []string{"/bin/sh", "-c", `echo $$ > "$0" && exec "$@"`, g.procs}
}

// killed is how many processes the kernel has killed for want of memory.
func (g *memoryGroup) killed(t *testing.T) (n int) {
	t.Helper()
	f, err := os.Open(g.kills)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			if _, err := fmt.Sscan(v, &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// greedyStreams is how many answers one connection asks for.
const greedyStreams = 50

// greedyHello asks for long answers and lets none of them be sent.
var greedyHello = func() []byte {
	var b, block bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	e := hpack.NewEncoder(&block)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range greedyStreams {
		block.Reset()
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/bytes?n=100000000"}, {":authority", "a"}} {
			_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	}
	return b.Bytes()
}()

// TestASidecarWithTooLittleMemoryShedsLoad gives a sidecar 96 MiB and clients that hold
// more than that in answers that they do not read. It refuses requests and connections,
// answers the admin port all the time, is not killed, and is as before in the end.
func TestASidecarWithTooLittleMemoryShedsLoad(t *testing.T) {
	limit, lasts := 96<<20, 2*time.Second // short of it earlier
	if s := os.Getenv(memoryEnv); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil || lasts <= 0 {
			t.Fatalf("%s=%q: want a duration", memoryEnv, s)
		}
		limit = 128 << 20
	}
	g := newMemoryGroup(t, limit)
	app := mesh.StartApp(t, t.TempDir(), "app")
	s := mesh.StartStatic(t, t.TempDir(), mesh.StaticOptions{Upstream: app.Address, Around: g.around(), Cluster: `    circuit_breakers: {thresholds: [{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}]}
`})
	before := s.RSS()
	var asked, slowest atomic.Int64
	stop, watched := make(chan struct{}), make(chan error, 1)
	go func() { // ends with stop
		var errs error
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				watched <- errs
				return
			case <-ticker.C:
			}
			began := time.Now()
			if err := s.Ready(); err != nil {
				errs = errors.Join(errs, err)
			}
			asked.Add(1)
			slowest.Store(max(slowest.Load(), int64(time.Since(began))))
		}
	}()
	crowd := newCrowd(t)
	var refused, served, ended atomic.Int64
	// hog returns what is closed when all of a connection's requests have been answered or
	// refused, or it has ended.
	hog := func() <-chan struct{} {
		conn := crowd.dial(s.Inbound)
		known := make(chan struct{})
		crowd.done.Go(func() { // ends with the connection
			heard := map[uint32]bool{}
			var once sync.Once
			defer once.Do(func() { close(known) })
			hear := func(stream uint32) {
				// An answer that comes to its timeout is reset later.
				if heard[stream] = true; len(heard) == greedyStreams {
					once.Do(func() { close(known) })
				}
			}
			f := http2.NewFramer(conn, conn)
			f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			if _, err := conn.Write(greedyHello); err != nil {
				ended.Add(1)
				return
			}
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					ended.Add(1)
					return
				}
				switch x := frame.(type) {
				case *http2.GoAwayFrame:
					ended.Add(1)
				case *http2.MetaHeadersFrame:
					if x.PseudoValue("status") == "200" {
						served.Add(1)
					} else {
						refused.Add(1)
					}
					hear(x.StreamID)
				case *http2.RSTStreamFrame:
					if !heard[x.StreamID] {
						refused.Add(1)
					}
					hear(x.StreamID)
				}
			}
		})
		return known
	}
	began, peak := time.Now(), 0
	shed := 0
	for s.Alive() && (time.Since(began) < lasts || shed == 0 && time.Since(began) < lasts+time.Minute) {
		known := hog()
		// One after the other: what comes all at once is beyond any watch.
		_ = mesh.Poll(time.Second, func() error {
			select {
			case <-known:
				return nil
			default:
				return errors.New("not answered")
			}
		})
		if stats, err := s.Stats(); err == nil {
			shed, peak = stats["http.in.downstream_rq_overload_close"], max(peak, s.RSS())
		}
	}
	if !s.Alive() {
		t.Fatalf("it was killed: %d of the group, after %d answers and %d refusals", g.killed(t), served.Load(), refused.Load())
	}
	if shed == 0 {
		t.Errorf("no request was refused for want of memory: %d served, at most %d KiB in use", served.Load(), peak>>10)
	}
	crowd.leave()
	s.Await(time.Minute, "requests to be served as before", func() error {
		a, err := mesh.Call(s.Inbound, "a", "/")
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("%d", a.Status)
		}
		return err
	})
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: s.Inbound, Host: "a", Conns: 10, Rate: 200})
	load.AwaitSent(100)
	load.Stop().Flawless(t, "when it is over")
	close(stop)
	if err := <-watched; err != nil {
		t.Errorf("the admin port: %v", err)
	}
	if n := g.killed(t); n > 0 || !s.Alive() {
		t.Errorf("the kernel killed %d processes of the group", n)
	}
	mesh.Conformance(t, "D11", "%d MiB for %v: %d long answers that nobody reads, %d refused (%d for want of memory), %d connections ended; from %d to at most %d KiB, no kill; admin asked %d times, slowest %v",
		limit>>20, time.Since(began).Round(time.Second), served.Load(), refused.Load(), shed, ended.Load(), before>>10, peak>>10, asked.Load(), time.Duration(slowest.Load()).Round(time.Millisecond))
}
