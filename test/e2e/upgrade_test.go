// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/handover"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// upgradesEnv is how often a sidecar is replaced; the conformance row wants 22.
const upgradesEnv = "OUTRIGGER_UPGRADES"

// otherEnv is another build of the sidecar, an older one for example: upgrades lead to it
// and back.
const otherEnv = "OUTRIGGER_OTHER_SIDECAR"

func upgradesWanted(t *testing.T) int {
	t.Helper()
	if s := os.Getenv(upgradesEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q: want a number", upgradesEnv, s)
		}
		return n
	}
	return 5
}

// held is a keep-alive connection of a client that never repeats a request.
type held struct {
	conn net.Conn
	r    *bufio.Reader
}

func hold(t *testing.T, address string) *held {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // what is left of it
	return newHeld(conn)
}

func newHeld(conn net.Conn) *held { return &held{conn, bufio.NewReader(conn)} }

// ask sends one request and reads the whole answer.
func (h *held) ask(host, path string) (closes bool, err error) {
	if err := h.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return false, err
	}
	if _, err := fmt.Fprintf(h.conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(h.r, nil)
	if err != nil {
		return false, err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return false, err
	}
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("status %d", res.StatusCode)
	}
	return res.Close, nil
}

// Both sidecars of a call are replaced under load. Clients that send get answers, and
// connections that nobody uses meanwhile are still there in the end.
func TestHotUpgradesFailNoRequest(t *testing.T) {
	upgrades := upgradesWanted(t)
	programs := [2]string{mesh.Program("sidecar"), mesh.Program("sidecar")}
	if other := os.Getenv(otherEnv); other != "" {
		programs[0] = other // and back
	}
	flags := []string{"--concurrency", "2", "--drain-time-s", "2", "--parent-shutdown-time-s", "10"}
	m := mesh.New(t)
	instance := m.Instance("orders", "orders-1", flags...)
	caller := m.Caller("web-1", flags...)
	m.AwaitAnswers(caller, "orders", "orders-1")

	var idle []*held
	for range 50 {
		for _, address := range []string{caller.Outbound, instance.Sidecar.Inbound} {
			h := hold(t, address)
			if _, err := h.ask("orders", "/"); err != nil {
				t.Fatal(err)
			}
			idle = append(idle, h)
		}
	}
	counts := watchCounts(t, caller)
	busy := mesh.StartLoad(t, mesh.LoadConfig{Address: caller.Outbound, Host: "orders", Conns: 75, Rate: 400})
	slow := mesh.StartLoad(t, mesh.LoadConfig{Address: caller.Outbound, Host: "orders", Path: "/?ms=300", Conns: 25, Rate: 50})
	streams := startStreams(t, caller.Outbound, "orders")
	for i := range upgrades {
		busy.AwaitSent(50)
		for _, s := range []*mesh.Sidecar{caller, instance.Sidecar} {
			old := s.Process
			s.SetProgram(programs[i%2])
			s.Upgrade()
			if code := old.Wait(20 * time.Second); code != 0 {
				t.Fatalf("upgrade %d: %s ended with %d", i, old.Name, code)
			}
		}
	}
	busy.AwaitSent(50)
	sent, lost := streams()
	if len(lost) > 0 || sent == 0 {
		t.Errorf("HTTP/2: %d of %d requests failed: %v", len(lost), sent, lost)
	}
	one, other := busy.Stop(), slow.Stop()
	one.Flawless(t, "busy connections")
	other.Flawless(t, "slow requests")
	failed := 0
	for i, h := range idle {
		if _, err := h.ask("orders", "/"); err != nil {
			failed++
			t.Logf("idle connection %d: %v", i, err)
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d connections that idled all through are gone", failed, len(idle))
	}
	if programs[0] != programs[1] {
		counts.end() // which may know nothing of counters
	} else {
		counts.want(one.Sent + other.Sent + sent + len(idle)/2)
	}
	taken := caller.AwaitStat("outrigger.handover_taken_total", func(n int) bool { return n >= 50 })
	t.Logf("%d upgrades of 2 sidecars: %d + %d requests, and %d of HTTP/2, %d failed; %d idle connections, %d lost, connections went over %d times; counters went on",
		upgrades, one.Sent, other.Sent, sent, one.Failed+other.Failed+len(lost), len(idle), failed, taken)
}

// startStreams sends requests over HTTP/2, eight at a time, which cannot be repeated.
func startStreams(t *testing.T, address, host string) (stop func() (sent int, lost []error)) {
	t.Helper()
	client := mesh.NewHTTP2(t, address)
	end := make(chan struct{})
	var (
		mu    sync.Mutex
		count int
		all   []error
		done  sync.WaitGroup
	)
	send := func() error {
		body := struct{ io.Reader }{strings.NewReader("once")} // the client cannot read it again
		r, err := http.NewRequest(http.MethodPost, "http://"+host+"/?ms=20", body)
		if err != nil {
			return err
		}
		a, err := client.RoundTrip(r)
		if err != nil {
			return err
		}
		defer a.Body.Close() //nolint:errcheck // read to its end
		if _, err := io.Copy(io.Discard, a.Body); err != nil {
			return err
		}
		if a.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", a.StatusCode)
		}
		return nil
	}
	for range 8 {
		done.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				err := send()
				mu.Lock()
				if count++; err != nil {
					all = append(all, err)
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []error) {
		close(end)
		done.Wait()
		return count, all
	}
}

// What a successor can do wrong costs nothing: the running process serves on, and the
// next upgrade is as good as ever.
func TestABrokenSuccessorLeavesTheOldOneServing(t *testing.T) {
	dir := t.TempDir()
	app := mesh.StartApp(t, dir, "app")
	s := mesh.StartStatic(t, dir, mesh.StaticOptions{Upstream: app.Address, Flags: []string{"--data", filepath.Join(dir, "data"), "--concurrency", "2"}})
	s.AwaitLog("ready", 1)
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: s.Inbound, Host: "app", Conns: 50, Rate: 400})
	idle := hold(t, s.Inbound)
	if _, err := idle.ask("app", "/"); err != nil {
		t.Fatal(err)
	}
	dial := func() *handover.Link {
		link, err := handover.Dial(filepath.Join(dir, "data", "handover"))
		if err != nil {
			t.Fatal(err)
		}
		_ = link.SetDeadline(time.Now().Add(20 * time.Second))
		return link
	}
	ask := func(link *handover.Link) {
		files, _, err := link.Ask("", "broken")
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != 3 { // two of the listener, one of the admin port
			t.Errorf("%d sockets", len(files))
		}
		handover.CloseFiles(files)
	}
	failures := 0
	for _, c := range []struct {
		name string
		does func(*handover.Link)
	}{
		{"says nothing of a hand-over", func(l *handover.Link) { _ = l.Send(&handover.Message{Kind: handover.Ready}) }},
		{"speaks another version", func(l *handover.Link) {
			_ = l.Send(&handover.Message{Kind: handover.Hello, Version: handover.Version + 1})
			if m, _, err := l.Receive(); err != nil || m.Kind != handover.Refused {
				t.Errorf("%+v, %v", m, err)
			}
		}},
		{"is of another node", func(l *handover.Link) {
			if _, _, err := l.Ask("other", ""); err == nil {
				t.Error("it got sockets")
			}
		}},
		{"ends before it is ready", ask},
		{"ends when it may serve", func(l *handover.Link) {
			ask(l)
			lock, err := l.Ready()
			if err != nil || lock == nil {
				t.Fatal(lock, err)
			}
			_ = lock.Close()
		}},
	} {
		link := dial()
		c.does(link)
		_ = link.Close()
		failures++
		s.AwaitLog("upgrade failed: this process serves on", failures)
		load.AwaitSent(20)
		load.Take().Flawless(t, c.name)
	}
	// Programs that break: no program at all, a configuration that it refuses, one that
	// it takes for another address.
	link := dial()
	ask(link)
	if got := mesh.Run(t, "", s.Successor()...); got.Code == 0 || !strings.Contains(got.Output, "another upgrade is under way") {
		t.Errorf("a second successor at a time: %d\n%s", got.Code, got.Output)
	}
	_ = link.Close()
	failures++
	s.AwaitLog("upgrade failed: this process serves on", failures)
	good, err := os.ReadFile(s.Bootstrap())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Bootstrap(), append(good, "\nnonsense: {}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mesh.Run(t, "", s.Successor()...); got.Code != 1 || !strings.Contains(got.Output, "nonsense") {
		t.Errorf("a configuration that is refused: %d\n%s", got.Code, got.Output)
	}
	failures++
	s.AwaitLog("upgrade failed: this process serves on", failures)
	load.Take().Flawless(t, "a configuration that is refused")
	if !s.Alive() {
		t.Fatal("the old process has ended")
	}
	if err := os.WriteFile(s.Bootstrap(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	old := s.Process
	s.Upgrade()
	if code := old.Wait(20 * time.Second); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	load.AwaitSent(50)
	tally := load.Stop()
	tally.Flawless(t, "the upgrade after them")
	if _, err := idle.ask("app", "/"); err != nil {
		t.Errorf("the idle connection: %v", err)
	}
	t.Logf("%d broken successors, then a good one: the last stretch had %d requests, %d failed", failures, tally.Sent, tally.Failed)
}

// SIGUSR2 makes the running process start the program on disk, whatever it is by then.
func TestSIGUSR2StartsTheProgramOnDisk(t *testing.T) {
	dir := t.TempDir()
	app := mesh.StartApp(t, dir, "app")
	program := filepath.Join(dir, "sidecar")
	replace := func(with string) {
		b, err := os.ReadFile(with)
		if err == nil {
			err = errors.Join(os.WriteFile(program+".new", b, 0o755), os.Rename(program+".new", program)) //nolint:gosec // a program
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	replace(mesh.Program("sidecar"))
	s := mesh.StartStatic(t, dir, mesh.StaticOptions{Upstream: app.Address, Program: program}) // no data folder
	s.AwaitLog("ready", 1)
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: s.Inbound, Host: "app", Conns: 50, Rate: 400})
	idle := hold(t, s.Inbound)
	if _, err := idle.ask("app", "/"); err != nil {
		t.Fatal(err)
	}
	replace("/bin/false")
	s.Signal(syscall.SIGUSR2)
	s.AwaitLog("upgrade failed: this process serves on", 1)
	load.AwaitSent(20)
	load.Take().Flawless(t, "a program that fails")
	replace(mesh.Program("sidecar"))
	s.Signal(syscall.SIGUSR2)
	if code := s.Wait(20 * time.Second); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	pid := s.PIDInLog("a successor serves: draining")
	if pid == s.PID() {
		t.Fatalf("its successor is itself, process %d", pid)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
		mesh.Await(t, 20*time.Second, "the successor's end", func() error {
			if syscall.Kill(pid, 0) == nil {
				return errors.New("it runs")
			}
			return nil
		})
	})
	load.AwaitSent(50)
	tally := load.Stop()
	tally.Flawless(t, "SIGUSR2")
	if _, err := idle.ask("app", "/"); err != nil {
		t.Errorf("the idle connection: %v", err)
	}
}
