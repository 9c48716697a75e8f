// SPDX-License-Identifier: Apache-2.0

package systemd_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/systemd"
)

// askEnv makes the test binary say which sockets it has.
const askEnv = "OUTRIGGER_TEST_SOCKETS"

func TestMain(m *testing.M) {
	if os.Getenv(askEnv) == "" {
		os.Exit(m.Run())
	}
	files, err := systemd.Sockets()
	fmt.Printf("%v %v %q", files, err, os.Getenv("LISTEN_FDS"))
}

func TestSocketsAreThoseOfThisProcess(t *testing.T) {
	for _, c := range []struct{ pid, fds, names, want string }{
		{"$$", "2", "inbound:admin", `[{inbound 3} {admin 4}] <nil> ""`},
		{"$$", "2", "", `[{ 3} { 4}] <nil> ""`},
		{"$$", "1", "unknown:more", `[{unknown 3}] <nil> ""`},
		{"$$", "", "", `[] <nil> ""`},
		{"1", "2", "inbound:admin", `[] <nil> ""`},
		{"", "2", "", `[] <nil> ""`},
		{"$$", "x", "", `[] LISTEN_FDS="x": want a number up to 1024 ""`},
		{"$$", "-1", "", `[] LISTEN_FDS="-1": want a number up to 1024 ""`},
		{"$$", "100000", "", `[] LISTEN_FDS="100000": want a number up to 1024 ""`},
	} {
		cmd := exec.Command("/bin/sh", "-c", "LISTEN_PID="+c.pid+` exec "$0"`, os.Args[0])
		cmd.Env = []string{askEnv + "=1", "LISTEN_FDS=" + c.fds, "LISTEN_FDNAMES=" + c.names}
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = []*os.File{null, null}
		out, err := cmd.Output()
		_ = null.Close()
		if err != nil || string(out) != c.want {
			t.Errorf("%+v: %s, %v", c, out, err)
		}
	}
}

func TestNewsReachSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := systemd.Notify("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", "relative")
	if err := systemd.Notify("READY=1"); err == nil {
		t.Error("a relative path is none")
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "n"), "@outrigger-notify-" + strconv.Itoa(os.Getpid())} {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", path)
		if err := systemd.Notify("RELOADING=1", systemd.Monotonic()); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		first, second, _ := strings.Cut(string(b[:n]), "\n")
		micros, perr := strconv.ParseInt(strings.TrimPrefix(second, "MONOTONIC_USEC="), 10, 64)
		if err != nil || first != "RELOADING=1" || perr != nil || micros <= 0 {
			t.Errorf("%q, %v", b[:n], err)
		}
		_ = c.Close()
		if err := systemd.Notify("READY=1"); err == nil {
			t.Error("nobody listens, and nobody is told")
		}
	}
}

func TestTheWatchdogIsThatOfThisProcess(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"1500000", "", 1500 * time.Millisecond},
		{"1500000", own, 1500 * time.Millisecond},
		{"1500000", "1", 0},
		{"x", "", 0},
		{"-5", "", 0},
		{"9223372036854775807", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := systemd.Watchdog(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
