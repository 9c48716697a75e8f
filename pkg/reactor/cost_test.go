// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"runtime"
	"syscall"
	"testing"
	"time"
)

// counted is the kernel with a count of calls for each request.
type counted struct {
	*kernel
	reads, writes, polls, controls int
}

func (k *counted) Read(fd int, b []byte) (int, syscall.Errno) {
	k.reads++
	return k.kernel.Read(fd, b)
}

func (k *counted) Write(fd int, b []byte) (int, syscall.Errno) {
	k.writes++
	return k.kernel.Write(fd, b)
}

func (k *counted) Writev(fd int, bufs [][]byte) (int, syscall.Errno) {
	k.writes++
	return k.kernel.Writev(fd, bufs)
}

func (k *counted) Watch(fd int, token uint64, m WatchMode) syscall.Errno {
	k.controls++
	return k.kernel.Watch(fd, token, m)
}

func (k *counted) Poll(e []Event, wait time.Duration) (int, syscall.Errno) {
	k.polls++
	return k.kernel.Poll(e, wait)
}

// server echoes with a timer for each request, as a proxy has one.
type server struct {
	loop  *Loop
	timer Timer
}

func (s *server) OnAccept(c *Conn) Handler {
	return &server{loop: c.Loop(), timer: Timer{F: func() {}}}
}
func (s *server) OnConnect(*Conn)      {}
func (s *server) OnEOF(c *Conn)        { c.Close(nil) }
func (s *server) OnHighWater(*Conn)    {}
func (s *server) OnLowWater(*Conn)     {}
func (s *server) OnClose(*Conn, error) { s.timer.Stop() }
func (s *server) OnData(c *Conn, in []byte) int {
	s.loop.Schedule(&s.timer, time.Minute)
	b := append(c.Reserve(64), "head: "...)
	c.Commit(b)
	c.Write(in)
	return len(in)
}

type bench struct {
	sys  *counted
	loop *Loop
	set  *SocketSet
}

func newBench(t testing.TB) *bench {
	t.Helper()
	k, err := newKernel()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{sys: &counted{kernel: k}}
	if b.loop, err = NewLoop(Config{System: b.sys}); err != nil {
		t.Fatal(err)
	}
	addr, err := ParseAddr("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if b.set, err = NewSockets(nil).Open(addr, 1, ListenOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.loop.AddListener(b.set.Socket(0), &server{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.loop.StopOffLoop()
		for b.loop.Tick(0) {
		}
		b.set.Release()
	})
	return b
}

// client is a plain blocking socket, so that only the loop is measured.
func (b *bench) client(t testing.TB) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ap := b.set.Addr().AddrPort
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	accepted := b.loop.stats.Accepted
	for b.loop.stats.Accepted == accepted {
		b.loop.Tick(time.Second)
	}
	return fd
}

func (b *bench) roundTrip(t testing.TB, fd int, request, answer []byte) {
	if _, err := syscall.Write(fd, request); err != nil {
		t.Fatal(err)
	}
	before := b.loop.stats.ReadBytes
	for b.loop.stats.ReadBytes-before < uint64(len(request)) {
		b.loop.Tick(time.Second)
	}
	for got := 0; got < len(request)+6; {
		n, err := syscall.Read(fd, answer)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		got += n
	}
}

func TestARequestCostsOneReadOneWriteAndNoAllocation(t *testing.T) {
	b := newBench(t)
	fd := b.client(t)
	defer syscall.Close(fd)
	request, answer := make([]byte, 500), make([]byte, 4096)
	for range 100 {
		b.roundTrip(t, fd, request, answer)
	}
	reads, writes, controls := b.sys.reads, b.sys.writes, b.sys.controls
	const rounds = 1000
	for range rounds {
		b.roundTrip(t, fd, request, answer)
	}
	reads, writes, controls = b.sys.reads-reads, b.sys.writes-writes, b.sys.controls-controls
	if reads != rounds || writes != rounds || controls != 0 {
		t.Errorf("%d requests took %d reads, %d writes and %d epoll_ctl", rounds, reads, writes, controls)
	}
	if ownerChecked {
		t.Skip("the checks of this build allocate")
	}
	for _, size := range []int{500, 16 << 10} { // copied, and written through
		request, answer = make([]byte, size), make([]byte, size+6)
		if n := testing.AllocsPerRun(500, func() { b.roundTrip(t, fd, request, answer) }); n != 0 {
			t.Errorf("%v allocations for each request of %d bytes", n, size)
		}
	}
}

func TestAnIdleConnectionTakesLittleMemory(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := int(min(10_000, (limit.Cur-200)/2))
	if n < 100 {
		t.Skipf("the limit of %d open files leaves room for %d connections", limit.Cur, n)
	}
	b := newBench(t)
	fds := make([]int, 0, n)
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}()
	// Each has been used, so that buffers that it kept would show. The handler
	// of this test, with its timer, is part of the figure.
	request, answer := make([]byte, 20_000), make([]byte, 30_000)
	warm := b.client(t)
	fds = append(fds, warm)
	b.roundTrip(t, warm, request, answer)
	before := heap()
	for len(fds) < n {
		fd := b.client(t)
		fds = append(fds, fd)
		b.roundTrip(t, fd, request[:2000], answer)
	}
	each := float64(heap()-before) / float64(n-1)
	t.Logf("%d idle connections take %.0f bytes of Go memory each", n, each)
	if each > 400 {
		t.Errorf("an idle connection takes %.0f bytes of Go memory, want at most 400", each)
	}
	runtime.KeepAlive(b)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkEchoTick(bm *testing.B) {
	b := newBench(bm)
	fd := b.client(bm)
	defer syscall.Close(fd)
	request, answer := make([]byte, 500), make([]byte, 4096)
	bm.ReportAllocs()
	for range bm.N {
		b.roundTrip(bm, fd, request, answer)
	}
}

// BenchmarkLoopWork is what the loop itself adds to an echo: the system calls
// are answered from memory.
func BenchmarkLoopWork(bm *testing.B) {
	k, err := newKernel()
	if err != nil {
		bm.Fatal(err)
	}
	sys := &instant{kernel: k}
	l, err := NewLoop(Config{System: sys})
	if err != nil {
		bm.Fatal(err)
	}
	c := l.newConn(1<<20, open) // a descriptor that nothing touches
	c.flags |= writable
	c.handler = (&server{}).OnAccept(c)
	sys.token = l.token(c.slot)
	bm.ReportAllocs()
	for range bm.N {
		l.Tick(0)
	}
	bm.StopTimer()
	l.StopOffLoop()
	l.Tick(0)
}

type instant struct {
	*kernel
	token uint64
}

func (k *instant) Poll(e []Event, _ time.Duration) (int, syscall.Errno) {
	e[0] = Event{Token: k.token, Flags: EventIn | EventOut}
	return 1, 0
}
func (k *instant) Read(_ int, b []byte) (int, syscall.Errno)  { return min(500, len(b)), 0 }
func (k *instant) Write(_ int, b []byte) (int, syscall.Errno) { return len(b), 0 }
