// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

func TestParseAddr(t *testing.T) {
	for _, test := range []struct{ in, want, wantErr string }{
		{in: "127.0.0.1:80", want: "127.0.0.1:80"},
		{in: "[::1]:80", want: "[::1]:80"},
		{in: "[fe80::1%lo]:80", want: "[fe80::1%lo]:80"},
		{in: "0.0.0.0:0", want: "0.0.0.0:0"},
		{in: "unix:/run/app.sock", want: "unix:/run/app.sock"},
		{in: "unix:@name", want: "@name"},
		{in: "@name", want: "@name"},
		{in: "", wantErr: `address "": want ip:port`},
		{in: "localhost:80", wantErr: "want ip:port"},
		{in: "127.0.0.1", wantErr: "want ip:port"},
		{in: "127.0.0.1:65536", wantErr: "want ip:port"},
		{in: "::1:80", wantErr: "want ip:port"},
		{in: "unix:", wantErr: "empty"},
		{in: "@", wantErr: "empty"},
		{in: "unix:/a\x00b", wantErr: "zero byte"},
		{in: "unix:/" + strings.Repeat("x", 107), wantErr: "108 bytes are more than the 107"},
	} {
		a, err := reactor.ParseAddr(test.in)
		switch {
		case test.wantErr != "":
			if err == nil || !strings.Contains(err.Error(), test.wantErr) {
				t.Errorf("%q: error %v, want %q", test.in, err, test.wantErr)
			}
		case err != nil || a.String() != test.want:
			t.Errorf("%q: got %q, %v", test.in, a, err)
		}
	}
}

func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", "[::1]:80", "unix:/x", "@x", "[fe80::1%1]:0", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := reactor.ParseAddr(s)
		if err != nil {
			return
		}
		if b, err := reactor.ParseAddr(a.String()); err != nil || a != b {
			t.Errorf("%q gives %q, which gives %q, %v", s, a, b, err)
		}
	})
}

func TestABusyPortIsAnErrorEvenIfTheOtherWouldShareIt(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0"} {
		for _, loops := range []int{1, 2, 4} {
			// Another set is what another process of the same user is.
			set, err := reactor.NewSockets(nil).Open(mustAddr(t, listen), loops, reactor.ListenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, others := range []int{1, 3} {
				_, err = reactor.NewSockets(nil).Open(set.Addr(), others, reactor.ListenOptions{})
				want := "listen " + set.Addr().String() + ": address already in use (is another sidecar running?)"
				if err == nil || err.Error() != want || !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("%d sockets, then %d: error %v, want %q", loops, others, err, want)
				}
			}
			set.Release()
			set, err = reactor.NewSockets(nil).Open(set.Addr(), loops, reactor.ListenOptions{})
			if err != nil {
				t.Fatalf("after the release: %v", err)
			}
			set.Release()
		}
	}
}

func TestAllSocketsOfASetGetConnections(t *testing.T) {
	const loops, conns = 4, 200
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "@outrigger-spread"} {
		set, err := reactor.NewSockets(nil).Open(mustAddr(t, listen), loops, reactor.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		running := make([]*reactor.Loop, loops)
		for i := range running {
			l := runLoop(t, reactor.Config{Index: i})
			running[i] = l
			onLoop(l, func() {
				_, err := l.AddListener(set.Socket(i), acceptor(func(c *reactor.Conn) reactor.Handler {
					s := (&script{}).echo()
					s.c = c
					return s
				}))
				if err != nil {
					t.Error(err)
				}
			})
		}
		for range conns {
			pingOnce(t, set.Addr())
		}
		total := uint64(0)
		for i, l := range running {
			var s reactor.Stats
			onLoop(l, func() { s = l.Stats() })
			total += s.Accepted
			if s.Accepted == 0 && !set.Addr().IsUnix() {
				t.Errorf("%s: loop %d accepted nothing", listen, i)
			}
		}
		if total != conns {
			t.Errorf("%s: %d connections accepted, want %d", listen, total, conns)
		}
		for _, l := range running {
			l.StopOffLoop()
		}
		set.Release()
	}
}

// onLoop runs f on l and waits for it.
func onLoop(l *reactor.Loop, f func()) {
	done := make(chan struct{})
	l.PostOffLoop(func() {
		defer close(done)
		f()
	})
	<-done
}

func netDial(t *testing.T, a reactor.Addr) net.Conn {
	t.Helper()
	network, name := "tcp", a.String()
	if a.IsUnix() {
		network, name = "unix", a.Unix
	}
	c, err := net.Dial(network, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func pingOnce(t *testing.T, a reactor.Addr) {
	t.Helper()
	c := netDial(t, a)
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := c.Read(b); err != nil || string(b) != "ping" {
		t.Fatalf("got %q, %v", b, err)
	}
}

func TestOneAddressIsOpenedOnceAndClosedWithItsLastUser(t *testing.T) {
	s := reactor.NewSockets(nil)
	one, err := s.Open(mustAddr(t, "127.0.0.1:0"), 2, reactor.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Open(one.Addr(), 2, reactor.ListenOptions{})
	if err != nil || one != two {
		t.Fatalf("opened again: %v, the same %v", err, one == two)
	}
	if _, err := s.Open(one.Addr(), 3, reactor.ListenOptions{}); err == nil {
		t.Error("opened for another number of loops")
	}
	one.Release()
	netDial(t, one.Addr()).Close()
	two.Release()
	if _, err := net.Dial("tcp", one.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the last release: %v", err)
	}
	two.Release() // one too many is none
}

func TestUnixPathsAreTakenOverOnlyFromTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	addr := mustAddr(t, "unix:"+path)
	open := func() (*reactor.SocketSet, error) {
		return reactor.NewSockets(nil).Open(addr, 2, reactor.ListenOptions{Mode: 0o600})
	}
	set, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := open(); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path) {
		t.Errorf("a path that somebody listens at: %v", err)
	}
	set.Release()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the path is there after the release: %v", err)
	}
	// What a killed process leaves behind.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if set, err = open(); err != nil {
		t.Fatalf("a dead socket: %v", err)
	}
	// A successor has put its own socket there: it stays.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	set.Release()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the successor's socket was removed: %v", err)
	}
	other.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a file that is no socket: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file was changed")
	}
}

func TestListenErrorsSayWhatToDo(t *testing.T) {
	s := reactor.NewSockets(nil)
	for _, test := range []struct {
		addr reactor.Addr
		n    int
		want string
	}{
		{reactor.Addr{}, 1, "listen: no address"},
		{mustAddr(t, "127.0.0.1:0"), 0, "listen 127.0.0.1:0: for 0 loops"},
		{mustAddr(t, "192.0.2.1:80"), 1, "listen 192.0.2.1:80: cannot assign requested address (this machine does not have the address)"},
		{mustAddr(t, "unix:/no/such/folder/s"), 1, "listen /no/such/folder/s: no such file or directory"},
	} {
		if _, err := s.Open(test.addr, test.n, reactor.ListenOptions{}); err == nil || err.Error() != test.want {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
	set, err := s.Open(mustAddr(t, "192.0.2.1:0"), 2, reactor.ListenOptions{FreeBind: true})
	if err != nil {
		t.Fatalf("FreeBind: %v", err)
	}
	set.Release()
}

func TestAListenerPausesResumesAndGoes(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		set, err := r.sockets.Open(r.listen, 1, reactor.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r.releases = append(r.releases, set.Release)
		accepted := 0
		n, err := r.far.AddListener(set.Socket(0), acceptor(func(c *reactor.Conn) reactor.Handler {
			accepted++
			return &script{c: c}
		}))
		if err != nil {
			t.Fatal(err)
		}
		n.Pause()
		r.dial(set.Addr(), &script{})
		r.settle()
		if accepted != 0 {
			t.Fatal("a paused listener accepted")
		}
		if err := n.Resume(); err != nil {
			t.Fatal(err)
		}
		r.until("accept", func() bool { return accepted == 1 })
		n.Remove()
		n.Remove()
		r.dial(set.Addr(), &script{})
		r.settle()
		if err := n.Resume(); err != nil || accepted != 1 {
			t.Errorf("a removed listener accepted %d more (%v)", accepted-1, err)
		}
		// Another takes over the socket and what waits on it.
		if _, err = r.far.AddListener(set.Socket(0), acceptor(func(c *reactor.Conn) reactor.Handler {
			accepted++
			return &script{c: c}
		})); err != nil {
			t.Fatal(err)
		}
		r.until("accept", func() bool { return accepted == 2 })
	})
}

func TestDualStackIsAskedFor(t *testing.T) {
	for _, dual := range []bool{false, true} {
		set, err := reactor.NewSockets(nil).Open(mustAddr(t, "[::]:0"), 1, reactor.ListenOptions{DualStack: dual})
		if err != nil {
			t.Fatal(err)
		}
		l := runLoop(t, reactor.Config{})
		remotes := make(chan [2]string, 1)
		onLoop(l, func() {
			_, err := l.AddListener(set.Socket(0), acceptor(func(c *reactor.Conn) reactor.Handler {
				remotes <- [2]string{c.RemoteAddr().Addr().String(), c.LocalAddr().Addr().String()}
				return nil
			}))
			if err != nil {
				t.Error(err)
			}
		})
		addr := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(set.Addr().Port())}
		c, err := net.DialTCP("tcp4", nil, &addr)
		if (err == nil) != dual {
			t.Errorf("dual stack %v: dialling over IPv4: %v", dual, err)
		}
		if err == nil {
			if got := <-remotes; got != [2]string{"127.0.0.1", "127.0.0.1"} {
				t.Errorf("addresses of an IPv4 connection are %v", got)
			}
			c.Close()
		}
		l.StopOffLoop()
		set.Release()
	}
}

func TestAConnectionLeavesFromTheLocalAddressAskedFor(t *testing.T) {
	r := kernelRig(t, "127.0.0.1:0")
	far := &script{}
	addr := r.listenFar(func() *script { return far })
	near := &script{}
	c, err := r.near.Dial(addr, reactor.DialOptions{Local: mustAddr(t, "127.0.0.2:0"), KeepAlive: reactor.KeepAlive{Idle: time.Minute, Interval: 1500 * time.Millisecond, Probes: 3}}, near)
	if err != nil {
		t.Fatal(err)
	}
	r.until("connection", func() bool { return near.connected && far.c != nil })
	if got := far.c.RemoteAddr(); got.Addr().String() != "127.0.0.2" || got != c.LocalAddr() {
		t.Errorf("far sees %v, near is %v", got, c.LocalAddr())
	}
	stranger := &script{}
	if _, err := r.near.Dial(addr, reactor.DialOptions{Local: mustAddr(t, "192.0.2.1:0")}, stranger); err != nil {
		t.Fatal(err)
	}
	r.until("error", stranger.isClosed)
	if !errors.Is(stranger.err, syscall.EADDRNOTAVAIL) {
		t.Errorf("from an address that is not ours: %v", stranger.err)
	}
}
