// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// splicing counts what goes by the kernel's pipe, and refuses where told to.
type splicing struct {
	*kernel
	spliced, rests, fails atomic.Int64
	inputRefused          bool
	outputRefused         bool

	rest  int          // of the last splice
	fault atomic.Int32 // happens once, with a rest
	faced atomic.Int32 // faults that have happened
}

// The faults.
const (
	noFault int32 = iota
	relayedPanics
	restPanics
	restIsGone
)

// now reports whether a fault is to happen.
func (k *splicing) now(fault int32) bool {
	if k.rest == 0 || !k.fault.CompareAndSwap(fault, noFault) {
		return false
	}
	k.faced.Add(1)
	return true
}

func (k *splicing) Splice(from, to, n int) (taken, moved int, readErr, writeErr syscall.Errno) {
	if k.inputRefused {
		return 0, 0, syscall.ENOSYS, 0
	}
	if k.outputRefused { // as a socket that takes no pages
		taken, readErr = 0, 0
		if k.pipe.open() {
			taken, readErr = splice(from, k.pipe.to, n)
		}
		return taken, 0, readErr, syscall.EINVAL
	}
	taken, moved, readErr, writeErr = k.kernel.Splice(from, to, n)
	k.spliced.Add(int64(moved))
	k.rest = taken - moved
	if writeErr != 0 && writeErr != syscall.EAGAIN {
		k.fails.Add(1)
	}
	return taken, moved, readErr, writeErr
}

func (k *splicing) SpliceRest(b []byte) int {
	k.rests.Add(1)
	if k.now(restPanics) {
		panic("in the middle of a splice")
	}
	if k.now(restIsGone) {
		return 0
	}
	return k.kernel.SpliceRest(b)
}

// relayer joins what is accepted with a connection to backend.
type relayer struct {
	loop    *Loop
	kernel  *splicing
	backend Addr
	relayed *atomic.Int64
	ends    chan error
}

type relaySide struct {
	*relayer
	conn  *Conn
	other *relaySide
	open  bool
}

func (r *relayer) OnAccept(c *Conn) Handler {
	down, up := &relaySide{relayer: r, conn: c}, &relaySide{relayer: r}
	down.other, up.other = up, down
	c.Pause()
	var err error
	if up.conn, err = r.loop.Dial(r.backend, DialOptions{}, up); err != nil {
		panic(err)
	}
	return down
}

func (s *relaySide) OnConnect(*Conn) {
	s.open, s.other.open = true, true
	s.other.conn.Resume()
}
func (s *relaySide) OnData(_ *Conn, in []byte) int { s.other.conn.Write(in); return len(in) }
func (s *relaySide) OnEOF(*Conn)                   { s.other.conn.CloseWrite() }
func (s *relaySide) OnHighWater(*Conn)             { s.other.conn.Pause() }
func (s *relaySide) OnLowWater(*Conn)              { s.other.conn.Resume() }
func (s *relaySide) RelayTo(*Conn) *Conn           { return s.other.conn }
func (s *relaySide) Relayed(_ *Conn, n int) {
	if s.kernel.now(relayedPanics) {
		panic("told of a relay")
	}
	s.relayed.Add(int64(n))
}
func (s *relaySide) OnClose(_ *Conn, err error) {
	if err == nil {
		s.other.conn.CloseAfterFlush(time.Minute) // what waits for it is to arrive
	} else {
		s.other.conn.Close(err)
	}
	s.ends <- err
}

// relayRig runs a relay of one loop; through connects the two ends of one.
func relayRig(t *testing.T, network string, k *splicing) (through func() (client, server net.Conn), r *relayer) {
	t.Helper()
	var err error
	if k.kernel, err = newKernel(); err != nil {
		t.Fatal(err)
	}
	address, front := "127.0.0.1:0", "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "b")
		front = "unix:" + filepath.Join(t.TempDir(), "f")
	}
	back, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.Close() })
	name := back.Addr().String()
	if network == "unix" {
		name = "unix:" + name
	}
	to, err := ParseAddr(name)
	if err != nil {
		t.Fatal(err)
	}
	loop, err := NewLoop(Config{System: k, OnPanic: func(v any, stack []byte) {
		if k.faced.Load() == 0 {
			t.Errorf("panic: %v\n%s", v, stack)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	r = &relayer{loop: loop, kernel: k, backend: to, relayed: &atomic.Int64{}, ends: make(chan error, 64)}
	a, err := ParseAddr(front)
	if err != nil {
		t.Fatal(err)
	}
	set, err := NewSockets(nil).Open(a, 1, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Release)
	if _, err := loop.AddListener(set.Socket(0), r); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = loop.Run() }()
	t.Cleanup(func() { loop.StopOffLoop(); <-done })
	front = set.Addr().AddrPort.String()
	if network == "unix" {
		front = a.Unix
	}
	return func() (net.Conn, net.Conn) {
		client, err := net.Dial(network, front)
		if err != nil {
			t.Fatal(err)
		}
		server, err := back.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []net.Conn{client, server} {
			t.Cleanup(func() { c.Close() })
			if err := c.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		return client, server
	}, r
}

const relayed = 32 << 20

// stream is what is relayed; nobody changes it.
var stream = sync.OnceValue(func() []byte { return numbers(relayed) })

// numbers is a stream in which each place differs from those a page or a buffer away.
func numbers(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16)*31 ^ byte(i>>12)*7
	}
	return b
}

// fillFirst writes until nothing goes on any more, and returns how much was taken.
func fillFirst(t *testing.T, c net.Conn, b []byte) (n int) {
	t.Helper()
	for n < len(b) {
		if err := c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		k, err := c.Write(b[n:])
		n += k
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetWriteDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return n
}

// carry sends from one end and reads at the other, to the half-close; the reader
// starts when all between them is full.
func carry(t *testing.T, from, to net.Conn, b []byte) {
	t.Helper()
	n := fillFirst(t, from, b)
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(b[n:])
		sent <- errors.Join(err, from.(interface{ CloseWrite() error }).CloseWrite())
	}()
	got, err := io.ReadAll(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b) {
		t.Fatalf("%d bytes came of %d, or others", len(got), len(b))
	}
}

func TestWhatTheKernelHandsOnArrivesWholeWithItsEnd(t *testing.T) {
	for name, k := range map[string]*splicing{
		"spliced": {}, "input refused": {inputRefused: true}, "output refused": {outputRefused: true},
	} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(name+" "+network, func(t *testing.T) {
				k := &splicing{inputRefused: k.inputRefused, outputRefused: k.outputRefused}
				through, r := relayRig(t, network, k)
				client, server := through()
				b := stream()
				carry(t, client, server, b)
				carry(t, server, client, b[:relayed/2])
				for range 2 {
					if err := <-r.ends; err != nil {
						t.Errorf("closed with %v", err)
					}
				}
				spliced, rests := k.spliced.Load(), k.rests.Load()
				t.Logf("%d of %d bytes were handed on, %d got by splice, %d rests", r.relayed.Load(), relayed*3/2, spliced, rests)
				if network == "tcp" && name == "spliced" && (spliced < 1<<20 || rests == 0) {
					t.Errorf("%d bytes were spliced, %d rests were copied: want both", spliced, rests)
				}
			})
		}
	}
}

// The pipe is the loop's: what a peer that is gone has left in it must not come to
// another.
func TestAResetLeavesNothingInThePipe(t *testing.T) {
	k := &splicing{}
	through, r := relayRig(t, "tcp", k)
	b := stream()
	for range 4 {
		client, server := through()
		go func(c *net.TCPConn) {
			_, _ = io.CopyN(io.Discard, c, 8<<20)
			_ = c.SetLinger(0)
			_ = c.Close()
		}(server.(*net.TCPConn))
		for sent := 0; ; {
			n, err := client.Write(b[:4<<20])
			if sent += n; err != nil {
				break
			}
			if sent > 1<<30 {
				t.Fatal("a connection whose other side is gone takes all")
			}
		}
		<-r.ends
		<-r.ends
		client, server = through()
		carry(t, client, server, b[:16<<20])
		client.Close()
		server.Close()
		<-r.ends
		<-r.ends
	}
	t.Logf("%d splices met the reset", k.fails.Load())
}

// However a relay is interrupted, the next connection gets its own bytes only, and the
// one whose bytes are lost gets none that follow.
func TestAnInterruptedRelayLeavesNothingInThePipe(t *testing.T) {
	for name, fault := range map[string]int32{
		"a panic of who is told": relayedPanics, "a panic between the halves": restPanics, "a rest that is gone": restIsGone,
	} {
		t.Run(name, func(t *testing.T) {
			k := &splicing{}
			through, r := relayRig(t, "tcp", k)
			k.fault.Store(fault)
			client, server := through()
			b := stream()
			came := make(chan bool)
			go func() { came <- repeats(server, b) }()
			for { // until both sides were busy at the wrong moment
				if _, err := client.Write(b); err != nil {
					break
				}
			}
			if !<-came {
				t.Error("what came before is not what was sent")
			}
			for range 2 {
				if err := <-r.ends; err == nil {
					t.Error("closed without an error")
				}
			}
			if k.faced.Load() != 1 {
				t.Fatal("the fault has not happened")
			}
			before := k.spliced.Load()
			client, server = through()
			carry(t, client, server, b[:16<<20])
			if k.spliced.Load() == before {
				t.Error("nothing is spliced any more")
			}
		})
	}
}

// repeats reads to the end and reports whether that was b, again and again.
func repeats(c net.Conn, b []byte) bool {
	buf := make([]byte, 1<<20)
	for at := 0; ; {
		n, err := c.Read(buf)
		for got := buf[:n]; len(got) > 0; {
			k := min(len(got), len(b)-at)
			if !bytes.Equal(got[:k], b[at:at+k]) {
				return false
			}
			got, at = got[k:], (at+k)%len(b)
		}
		if err != nil {
			return true
		}
	}
}
