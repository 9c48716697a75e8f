// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// maxFDs bounds what LISTEN_FDS may say.
const maxFDs = 1024

// File is a socket that systemd has bound for this process.
type File struct {
	Name string // FileDescriptorName= of its unit; "" where there is none
	FD   int    // the caller's to close
}

// Sockets returns the sockets that were passed to this process, nil without any. The
// variables are removed: what the process starts does not have them. It is to be called
// once, before other files are opened.
func Sockets() ([]File, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // it was there
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // not for us
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxFDs {
		return nil, fmt.Errorf("LISTEN_FDS=%q: want a number up to %d", count, maxFDs)
	}
	var list []string
	if names != "" {
		list = strings.Split(names, ":")
	}
	out := make([]File, n)
	for i := range out {
		out[i].FD = firstFD + i
		if i < len(list) {
			out[i].Name = list[i]
		}
		syscall.CloseOnExec(out[i].FD)
	}
	return out, nil
}

// Notify tells systemd lines of "NAME=value"; without NOTIFY_SOCKET it does nothing.
func Notify(lines ...string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if path[0] != '/' && path[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET=%q: want a path or an abstract name", path)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	_, err = c.Write([]byte(strings.Join(lines, "\n")))
	if err = errors.Join(err, c.Close()); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// Watchdog is how long systemd waits for WATCHDOG=1 before it ends the process; 0: it
// does not wait.
func Watchdog() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	micros, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || micros <= 0 || micros > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(micros) * time.Microsecond
}

// Monotonic is the line that Type=notify-reload wants beside RELOADING=1: which reload
// it is, by the time of CLOCK_MONOTONIC.
func Monotonic() string {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it cannot fail
	return "MONOTONIC_USEC=" + strconv.FormatInt(t.Nano()/1000, 10)
}
