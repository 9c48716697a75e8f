// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
)

// rig is two loops on one world, near and far, ticked by the test's goroutine.
// The same tests run on the kernel and on simulations with the same rig.
type rig struct {
	t         *testing.T
	near, far *reactor.Loop
	world     *sim.World // nil on the kernel
	sockets   *reactor.Sockets
	listen    reactor.Addr // where listenFar listens
	panics    []any
	releases  []func()

	again *reactor.Addr // pairOn listens there
	next  *script       // the far end of its next connection
}

// everywhere runs test on each kind of socket of the kernel and on simulated
// networks, the last of them hostile and with several seeds.
func everywhere(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Run("tcp4", func(t *testing.T) { test(t, kernelRig(t, "127.0.0.1:0")) })
	t.Run("tcp6", func(t *testing.T) { test(t, kernelRig(t, "[::1]:0")) })
	t.Run("unix", func(t *testing.T) {
		test(t, kernelRig(t, "unix:"+filepath.Join(t.TempDir(), "s")))
	})
	t.Run("abstract", func(t *testing.T) {
		test(t, kernelRig(t, fmt.Sprintf("@outrigger-test-%d", os.Getpid())))
	})
	t.Run("sim", func(t *testing.T) { test(t, simRig(t, 1, sim.Link{})) })
	seeds := uint64(10)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("hostile", seed), func(t *testing.T) {
			test(t, simRig(t, seed, hostile))
		})
	}
}

var hostile = sim.Link{Latency: time.Millisecond, Jitter: 3 * time.Millisecond, MaxSegment: 3000, Window: 20 << 10, ShortWrites: 0.3}

func kernelRig(t *testing.T, listen string) *rig {
	t.Helper()
	r := &rig{t: t, sockets: reactor.NewSockets(nil), listen: mustAddr(t, listen)}
	r.near, r.far = r.kernelLoop(0), r.kernelLoop(1)
	t.Cleanup(r.stop)
	return r
}

func (r *rig) kernelLoop(index int) *reactor.Loop {
	l, err := reactor.NewLoop(reactor.Config{Index: index, OnPanic: r.onPanic})
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

func simRig(t *testing.T, seed uint64, link sim.Link) *rig {
	t.Helper()
	w := sim.New(seed, link)
	r := &rig{t: t, world: w, sockets: reactor.NewSockets(w), listen: mustAddr(t, "127.0.0.1:0")}
	var err error
	for i, l := range []**reactor.Loop{&r.near, &r.far} {
		if *l, err = w.NewLoop(reactor.Config{Index: i, OnPanic: r.onPanic}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

func mustAddr(t testing.TB, s string) reactor.Addr {
	t.Helper()
	a, err := reactor.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (r *rig) onPanic(v any, _ []byte) { r.panics = append(r.panics, v) }

func (r *rig) stop() {
	for _, l := range []*reactor.Loop{r.near, r.far} {
		l.StopOffLoop()
		for l.Tick(0) {
		}
		if n := l.Stats().Open; n != 0 {
			r.t.Errorf("loop %d stopped with %d connections that heard no OnClose", l.Index(), n)
		}
	}
	for _, release := range r.releases {
		release()
	}
	if r.world != nil {
		if n := r.world.OpenFDs(); n != 0 {
			r.t.Errorf("%d descriptors are open after the loops have stopped", n)
		}
	}
}

// until runs both loops until done; what says what is waited for.
func (r *rig) until(what string, done func() bool) {
	r.t.Helper()
	if r.world != nil {
		if err := r.world.RunUntil(time.Minute, done); err != nil {
			r.t.Fatalf("waiting for %s: %v", what, err)
		}
		return
	}
	deadline := time.Now().Add(60 * time.Second)
	for !done() {
		r.near.Tick(time.Millisecond)
		r.far.Tick(time.Millisecond)
		if time.Now().After(deadline) {
			r.t.Fatalf("waiting for %s: time limit reached", what)
		}
	}
}

// settle runs the loops for a while in which nothing more should happen.
func (r *rig) settle() {
	r.t.Helper()
	if r.world != nil {
		if err := r.world.Run(200 * time.Millisecond); err != nil {
			r.t.Fatal(err)
		}
		return
	}
	for range 30 {
		r.near.Tick(time.Millisecond)
		r.far.Tick(time.Millisecond)
	}
}

// listenFar has the far loop accept connections with handlers that next makes.
func (r *rig) listenFar(next func() *script) reactor.Addr {
	r.t.Helper()
	set, err := r.sockets.Open(r.listen, 1, reactor.ListenOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = r.far.AddListener(set.Socket(0), acceptor(func(c *reactor.Conn) reactor.Handler {
		s := next()
		if s == nil {
			return nil
		}
		s.c = c
		return s
	}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.releases = append(r.releases, set.Release)
	return set.Addr()
}

// pair connects a near and a far script.
func (r *rig) pair() (near, far *script) {
	r.t.Helper()
	near, far = &script{name: "near"}, &script{name: "far"}
	addr := r.listenFar(func() *script { return far })
	r.dial(addr, near)
	r.until("connection", func() bool { return near.connected && far.c != nil })
	return near, far
}

func (r *rig) dial(addr reactor.Addr, s *script) *reactor.Conn {
	r.t.Helper()
	c, err := r.near.Dial(addr, reactor.DialOptions{}, s)
	if err != nil {
		r.t.Fatal(err)
	}
	if s.connected || s.closes > 0 {
		r.t.Fatal("Dial called the handler")
	}
	s.c = c
	return c
}

type acceptor func(*reactor.Conn) reactor.Handler

func (a acceptor) OnAccept(c *reactor.Conn) reactor.Handler { return a(c) }

// script is a handler that records, and does what its hooks say.
type script struct {
	name      string
	c         *reactor.Conn
	connected bool
	got       []byte
	datas     int // OnData calls
	eof       bool
	high, low int
	closes    int
	err       error

	onData    func(in []byte) int // nil takes all into got
	onConnect func()
	onEOF     func()
	onHigh    func()
	onLow     func()
	onClose   func(err error)
}

func (s *script) OnConnect(c *reactor.Conn) {
	s.c, s.connected = c, true
	call(s.onConnect)
}

func (s *script) OnData(_ *reactor.Conn, in []byte) int {
	s.datas++
	if s.closes > 0 {
		panic("OnData after OnClose")
	}
	if s.onData != nil {
		return s.onData(in)
	}
	s.got = append(s.got, in...)
	return len(in)
}

func (s *script) OnEOF(*reactor.Conn) {
	s.eof = true
	call(s.onEOF)
}

func (s *script) OnHighWater(*reactor.Conn) {
	s.high++
	call(s.onHigh)
}

func (s *script) OnLowWater(*reactor.Conn) {
	s.low++
	call(s.onLow)
}

func (s *script) OnClose(_ *reactor.Conn, err error) {
	s.closes++
	s.err = err
	if s.onClose != nil {
		s.onClose(err)
	}
}

func (s *script) isClosed() bool { return s.closes > 0 }

func call(f func()) {
	if f != nil {
		f()
	}
}

// echo makes s send back what it gets, with back-pressure.
func (s *script) echo() *script {
	s.onData = func(in []byte) int {
		s.c.Write(in)
		return len(in)
	}
	s.onEOF = func() { s.c.CloseWrite() }
	s.onHigh = func() { s.c.Pause() }
	s.onLow = func() { s.c.Resume() }
	return s
}

// pattern is n bytes, at most 16 MiB, of which each tells where it belongs. They are
// all the same bytes: nobody changes them.
func pattern(n int) []byte { return longest[:n:n] }

var longest = func() []byte {
	b := make([]byte, 16<<20)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}()
