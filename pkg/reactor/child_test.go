// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// children are programs that this test binary can be.
var children = map[string]func() int{"descriptors": runOutOfDescriptors}

func TestTheKernelRunsOutOfDescriptorsAndRecovers(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=descriptors")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "recovered\n") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// runOutOfDescriptors serves more clients than it may have descriptors. Clients
// and server are of one process: the clients' sockets are made first.
func runOutOfDescriptors() int {
	fail := func(format string, args ...any) int {
		fmt.Printf(format+"\n", args...)
		return 1
	}
	l, err := reactor.NewLoop(reactor.Config{})
	if err != nil {
		return fail("%v", err)
	}
	addr, err := reactor.ParseAddr("127.0.0.1:0")
	if err != nil {
		return fail("%v", err)
	}
	set, err := reactor.NewSockets(nil).Open(addr, 1, reactor.ListenOptions{})
	if err != nil {
		return fail("%v", err)
	}
	var held []*reactor.Conn
	if _, err = l.AddListener(set.Socket(0), acceptor(func(c *reactor.Conn) reactor.Handler {
		held = append(held, c)
		return (&script{}).echo()
	})); err != nil {
		return fail("%v", err)
	}
	const clients, room = 40, 30
	last := 0
	for range clients {
		if last, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0); err != nil {
			return fail("%v", err)
		}
		if err := syscall.Connect(last, &syscall.SockaddrInet4{Port: int(set.Addr().Port()), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return fail("%v", err)
		}
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		return fail("%v", err)
	}
	limit := syscall.Rlimit{Cur: uint64(last + 1 + room), Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fail("%v", err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) }() // for what writes at exit
	start := time.Now()
	for l.Stats().AcceptErrors == 0 && time.Since(start) < 5*time.Second {
		l.Tick(10 * time.Millisecond)
	}
	l.Tick(0) // the accepted connections report that they can be written to
	events := l.Stats().Events
	for range 10 {
		l.Tick(0)
	}
	if s := l.Stats(); len(held) != room || s.AcceptErrors != 1 || s.Events != events {
		return fail("%d accepted of %d, %d events since; %+v", len(held), room, s.Events-events, s)
	}
	held[0].Close(nil) // makes room for one
	for len(held) == room && time.Since(start) < 5*time.Second {
		l.Tick(10 * time.Millisecond)
	}
	for l.Stats().Shed == 0 && time.Since(start) < 5*time.Second {
		l.Tick(10 * time.Millisecond)
	}
	if s := l.Stats(); len(held) != room+1 || s.Shed != clients-room-1 {
		return fail("%d accepted, want %d; %+v", len(held), room+1, s)
	}
	fmt.Println("recovered")
	return 0
}
