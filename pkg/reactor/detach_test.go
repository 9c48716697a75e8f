// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

func TestADetachedConnectionGoesOnInAnotherLoop(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		if r.world != nil {
			t.Skip("a simulated socket belongs to its loop")
		}
		near, far := r.pair()
		remote, open := far.c.DirectRemoteAddr(), r.near.Stats().Open
		fd, ok := far.c.Detach()
		if !ok {
			t.Fatal("not detached")
		}
		far.c.Write([]byte("lost")) // verbs do nothing any more
		far.c.Close(nil)
		near.c.Write([]byte("in between"))
		r.settle()
		if far.closes != 0 || far.datas != 0 || r.far.Stats().Open != 0 {
			t.Fatalf("the loop that gave it away: %d closes, %d open", far.closes, r.far.Stats().Open)
		}
		again := &script{name: "again"}
		err := r.near.Adopt(fd, remote, acceptor(func(c *reactor.Conn) reactor.Handler {
			again.c = c
			return again
		}))
		if err != nil {
			t.Fatal(err)
		}
		r.until("what was sent meanwhile", func() bool { return string(again.got) == "in between" })
		if again.c.DirectRemoteAddr() != remote || r.near.Stats().Open != open+1 {
			t.Errorf("from %v, %d open", again.c.DirectRemoteAddr(), r.near.Stats().Open)
		}
		again.c.Write([]byte("back"))
		r.until("the answer", func() bool { return string(near.got) == "back" })
		near.c.Close(nil)
		r.until("the end", func() bool { return again.eof })
	})
}

func TestWhatIsUnderWayOnAConnectionKeepsItInItsLoop(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		for name, does := range map[string]func(near, far *script){
			"output that waits": func(_, far *script) { far.c.Write([]byte("x")) },
			"a pause":           func(_, far *script) { far.c.Pause() },
			"its own end":       func(_, far *script) { far.c.CloseWrite() },
			"input not consumed": func(near, far *script) {
				far.onData = func([]byte) int { return 0 }
				near.c.Write([]byte("x"))
				r.until("input", func() bool { return far.datas > 0 })
			},
			"the peer's end": func(near, far *script) {
				near.c.CloseWrite()
				r.until("the end", func() bool { return far.eof })
			},
		} {
			near, far := r.pairOn(t)
			does(near, far)
			if fd, ok := far.c.Detach(); ok {
				t.Errorf("%s: detached as %d", name, fd)
			}
			near.c.Close(nil)
			far.c.Close(nil)
			r.until("both closed", func() bool { return near.closes == 1 && far.closes == 1 })
		}
	})
}

func TestAConnectionWithoutAPlaceIsNotAdopted(t *testing.T) {
	l, err := reactor.NewLoop(reactor.Config{Accepting: reactor.NewPlaces(1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		l.StopOffLoop()
		for l.Tick(0) {
		}
	}()
	adopt := func() (int, error) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fds[1], l.Adopt(fds[0], netip.AddrPort{}, acceptor(func(c *reactor.Conn) reactor.Handler { return &script{c: c} }))
	}
	first, err := adopt()
	if err != nil {
		t.Fatal(err)
	}
	second, err := adopt()
	if !errors.Is(err, syscall.EMFILE) {
		t.Errorf("the second: %v", err)
	}
	if n, err := syscall.Read(second, make([]byte, 1)); n != 0 || err != nil { // closed
		t.Errorf("%d, %v", n, err)
	}
	_, _ = syscall.Close(first), syscall.Close(second)
}

// Connections in every backlog are accepted by a successor with other loops.
func TestInheritedSocketsKeepTheirBacklogs(t *testing.T) {
	for _, c := range []struct{ had, has int }{{1, 1}, {2, 2}, {3, 1}, {5, 2}, {1, 2}, {2, 3}} {
		for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "@outrigger-inherit"} {
			before := reactor.NewSockets(nil)
			set, err := before.Open(mustAddr(t, listen), c.had, reactor.ListenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var clients []int
			for range 20 {
				clients = append(clients, dialRaw(t, set.Addr()))
			}
			groups, err := before.Duplicate()
			if err != nil {
				t.Fatal(err)
			}
			if len(groups) != 1 || groups[0].Addr != set.Addr() {
				t.Fatalf("%+v", groups)
			}
			addr := set.Addr()
			before.Disown()
			set.Release()
			binder := reactor.NewInherited(groups)
			if !binder.Has(addr) {
				t.Errorf("%v is not among them", addr)
			}
			after, err := reactor.NewSockets(binder).Open(addr, c.has, reactor.ListenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if left := binder.CloseUnclaimed(); len(left) != 0 || binder.Has(addr) {
				t.Errorf("left: %v", left)
			}
			accepted := make(chan struct{}, len(clients))
			var loops []*reactor.Loop
			for i := range c.has {
				l := runLoop(t, reactor.Config{Index: i})
				loops = append(loops, l)
				onLoop(l, func() {
					for _, s := range after.Of(i) {
						_, err := l.AddListener(s, acceptor(func(c *reactor.Conn) reactor.Handler {
							accepted <- struct{}{}
							return &script{c: c}
						}))
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
			for range clients {
				<-accepted
			}
			for _, l := range loops {
				l.StopOffLoop()
			}
			after.Release()
			for _, fd := range clients {
				_ = syscall.Close(fd)
			}
		}
	}
}

func dialRaw(t *testing.T, to reactor.Addr) int {
	t.Helper()
	family, sa := syscall.AF_UNIX, syscall.Sockaddr(&syscall.SockaddrUnix{Name: to.Unix})
	switch {
	case to.IsUnix():
	case to.Addr().Is4():
		family, sa = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	default:
		family, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Connect(fd, sa)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
