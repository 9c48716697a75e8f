// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// manager hears what a process tells systemd.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
	told []string
}

func listenAsSystemd(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &manager{t: t, conn: c, path: path}
}

// await reads until a message begins with a text, and returns it.
func (m *manager) await(text string) string {
	m.t.Helper()
	b := make([]byte, 4096)
	_ = m.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		n, err := m.conn.Read(b)
		if err != nil {
			m.t.Fatalf("waited for %s: %v; it said %q", text, err, m.told)
		}
		got := string(b[:n])
		m.told = append(m.told, got)
		if strings.HasPrefix(got, text) {
			return got
		}
	}
}

// The service manager binds the sockets, hears of every step, and is told which process
// is the service's after an upgrade.
func TestSystemdBindsWatchesAndIsTold(t *testing.T) {
	dir := t.TempDir()
	m := listenAsSystemd(t)
	app := mesh.StartApp(t, dir, "app")
	s := mesh.StartStatic(t, dir, mesh.StaticOptions{
		Upstream: app.Address, Bind: true, Env: []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=300000"},
		Flags: []string{"--data", filepath.Join(dir, "data"), "--concurrency", "2"},
	})
	m.await("READY=1")
	if a, err := mesh.Call(s.Inbound, "app", "/"); err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d, %v", a.Status, err)
	}
	m.await("WATCHDOG=1")
	m.await("WATCHDOG=1")
	s.Signal(syscall.SIGHUP)
	if got := m.await("RELOADING=1"); !strings.Contains(got, "MONOTONIC_USEC=") {
		t.Errorf("%q", got)
	}
	m.await("READY=1")
	s.Signal(syscall.SIGUSR2)
	pid, err := strconv.Atoi(strings.TrimPrefix(m.await("MAINPID="), "MAINPID="))
	if err != nil || pid == s.PID() {
		t.Fatalf("process %d after %d: %v", pid, s.PID(), err)
	}
	t.Cleanup(func() {
		mesh.Await(t, 20*time.Second, "the successor's end", func() error {
			if syscall.Kill(pid, 0) == nil {
				return fmt.Errorf("it runs")
			}
			return nil
		})
	})
	if code := s.Wait(20 * time.Second); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	m.told = nil
	m.await("WATCHDOG=1") // of the successor
	if a, err := mesh.Call(s.Inbound, "app", "/"); err != nil || a.Status != http.StatusOK {
		t.Errorf("%d, %v", a.Status, err)
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	m.await("STOPPING=1")
}

// SIGHUP puts the bootstrap's static resources into service as they are now, names what
// cannot change, and leaves everything as it is where the file is wrong. No request
// notices.
func TestSIGHUPReloadsTheBootstrap(t *testing.T) {
	dir := t.TempDir()
	one, two := mesh.StartApp(t, dir, "one"), mesh.StartApp(t, dir, "two")
	s := mesh.StartStatic(t, dir, mesh.StaticOptions{Upstream: one.Address})
	s.AwaitLog("msg=ready", 1)
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: s.Inbound, Host: "app", Conns: 20, Rate: 200})
	load.AwaitSent(20)
	text, err := os.ReadFile(s.Bootstrap())
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(s.Bootstrap(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Signal(syscall.SIGHUP)
	}
	port := func(a string) string { return "port_value: " + a[strings.LastIndex(a, ":")+1:] }
	extra := mesh.FreeAddress(t)
	moved := strings.Replace(string(text), port(one.Address), port(two.Address), 1)

	write(moved + "nonsense: {}\n")
	s.AwaitLog("the last good configuration stays", 1)
	write(strings.Replace(moved, "id: static", "id: other", 1))
	s.AwaitLog("1 changed", 1)
	s.AwaitLog("stay as they were: node", 1)
	mesh.Await(t, 20*time.Second, "the other application", func() error {
		a, err := mesh.Call(s.Inbound, "app", "/")
		if err == nil && a.Header.Get(mesh.InstanceHeader) != "two" {
			err = fmt.Errorf("%s answers", a.Header.Get(mesh.InstanceHeader))
		}
		return err
	})
	// A second listener comes and goes.
	list := moved[strings.Index(moved, "  - name: in\n"):strings.Index(moved, "  clusters:\n")]
	second := strings.NewReplacer("name: in\n", "name: second\n", port(s.Inbound), port(extra)).Replace(list)
	write(strings.Replace(moved, "  clusters:\n", second+"  clusters:\n", 1))
	mesh.Await(t, 20*time.Second, "the second listener", func() error {
		_, err := mesh.Call(extra, "app", "/")
		return err
	})
	write(moved)
	s.AwaitLog("1 removed", 1)
	mesh.Await(t, 20*time.Second, "the end of the second listener", func() error {
		c, err := net.Dial("tcp", extra)
		if err == nil {
			_ = c.Close()
			return fmt.Errorf("it listens")
		}
		return nil
	})
	load.AwaitSent(20)
	load.Stop().Flawless(t, "while the bootstrap was read again")
}
