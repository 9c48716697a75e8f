// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"bytes"
	"syscall"
	"testing"
	"time"
)

// funnel is a connection that has others' input written to it.
type funnel struct {
	b       *bench
	sources []int // descriptors of the peers whose bytes come out at its own
	out     *Conn
	fd      int // of its peer
}

// tributary writes what it gets to another connection.
type tributary struct {
	server
	to func() *Conn
}

func (s *tributary) OnData(_ *Conn, in []byte) int {
	s.to().Write(in)
	return len(in)
}

// newFunnel connects n sources and a gathering connection.
func newFunnel(t *testing.T, n int) *funnel {
	t.Helper()
	f := &funnel{b: newBench(t)}
	f.fd = f.b.client(t)
	for i := range f.b.loop.slots {
		if c := f.b.loop.slots[i].conn; c != nil {
			f.out = c
		}
	}
	f.out.Gather(true)
	for range n {
		fd := f.b.client(t)
		t.Cleanup(func() { syscall.Close(fd) })
		f.sources = append(f.sources, fd)
	}
	for i := range f.b.loop.slots {
		if c := f.b.loop.slots[i].conn; c != nil && c != f.out {
			c.SetHandler(&tributary{server{loop: f.b.loop}, func() *Conn { return f.out }})
		}
	}
	for f.b.loop.Tick(0); f.b.loop.ready > 0; {
		f.b.loop.Tick(0)
	}
	t.Cleanup(func() { syscall.Close(f.fd) })
	if err := syscall.SetNonblock(f.fd, true); err != nil {
		t.Fatal(err)
	}
	return f
}

// pour has the first n sources send b, and runs the tick that takes it.
func (f *funnel) pour(t *testing.T, n int, b []byte) {
	t.Helper()
	for _, fd := range f.sources[:n] {
		if _, err := syscall.Write(fd, b); err != nil {
			t.Fatal(err)
		}
	}
	before := f.b.loop.stats.ReadBytes
	for f.b.loop.stats.ReadBytes < before+uint64(n*len(b)) {
		f.b.loop.Tick(time.Second)
	}
}

// wantOut checks what has come out, in how many writes since the count before.
func (f *funnel) wantOut(t *testing.T, bytesOut, writes int) {
	t.Helper()
	got := 0
	for in := make([]byte, 64<<10); ; {
		n, err := syscall.Read(f.fd, in)
		if n <= 0 || err != nil {
			break
		}
		got += n
	}
	if got != bytesOut || f.b.sys.writes != writes {
		t.Errorf("%d bytes came out in %d writes, want %d in %d", got, f.b.sys.writes, bytesOut, writes)
	}
	f.b.sys.writes = 0
}

func TestWhatIsGatheredLeavesInOneWriteOnceNothingMoreComes(t *testing.T) {
	f := newFunnel(t, fewEvents+1)
	f.pour(t, fewEvents+1, []byte("abc"))
	f.wantOut(t, 0, 0)
	f.pour(t, fewEvents+1, []byte("def"))
	f.wantOut(t, 0, 0)
	f.b.loop.Tick(-1) // does not block, as there is something to send
	f.wantOut(t, 6*(fewEvents+1), 1)
	if f.b.loop.busy() {
		t.Error("the loop has something to do after all has left")
	}
}

func TestFewEventsGatherNothing(t *testing.T) {
	f := newFunnel(t, fewEvents)
	f.pour(t, fewEvents, []byte("abc"))
	f.wantOut(t, 3*fewEvents, 1)
}

func TestManyBytesAreNotGathered(t *testing.T) {
	f := newFunnel(t, 4)
	f.pour(t, 4, bytes.Repeat([]byte("x"), throughMin-1))
	f.wantOut(t, 0, 0)
	f.pour(t, 1, []byte("y"))
	f.b.sys.writes = 0
	f = newFunnel(t, 5)
	f.pour(t, 5, bytes.Repeat([]byte("x"), throughMin-1))
	f.wantOut(t, 5*(throughMin-1), f.b.sys.writes)
}

func TestEventsWithoutEndDoNotKeepOutputBack(t *testing.T) {
	f := newFunnel(t, 8)
	for n := 8; n < gatherEvents; n += 8 {
		f.pour(t, 8, []byte("a"))
		f.wantOut(t, 0, 0)
	}
	f.pour(t, 8, []byte("a"))
	f.wantOut(t, gatherEvents, 1)
}

func TestWhatIsGatheredLeavesBeforeAnEnd(t *testing.T) {
	for name, end := range map[string]func(f *funnel){
		"close":             func(f *funnel) { f.out.Close(nil) },
		"close write":       func(f *funnel) { f.out.CloseWrite() },
		"close after flush": func(f *funnel) { f.out.CloseAfterFlush(time.Second) },
		"abort":             func(f *funnel) { f.out.Abort() },
		"not gathering":     func(f *funnel) { f.out.Gather(false) },
		"no loop":           func(f *funnel) { f.b.loop.StopOffLoop() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFunnel(t, fewEvents+1)
			f.pour(t, fewEvents+1, []byte("abc"))
			f.wantOut(t, 0, 0)
			end(f)
			if name != "not gathering" {
				f.b.loop.Tick(0)
			} else { // in the tick in which it is said, even if events come
				f.pour(t, fewEvents+1, nil)
				f.b.loop.settle()
			}
			f.wantOut(t, 3*(fewEvents+1), 1)
		})
	}
}

// Where the watermark is low, as under pressure, what waits below 16 KiB is above it: a
// write that takes it along has to end the back-pressure all the same.
func TestBackPressureEndsWhereWhatWasGatheredLeavesWithALargeWrite(t *testing.T) {
	f := newFunnel(t, 1)
	f.out.SetWatermark(1000)
	for !f.out.AboveWatermark() {
		f.out.Write(make([]byte, throughMin-1))
	}
	if n := f.out.Buffered(); n >= gatherBytes {
		t.Fatalf("%d bytes wait", n)
	}
	for in := make([]byte, 64<<10); ; {
		if n, err := syscall.Read(f.fd, in); n <= 0 || err != nil {
			break
		}
	}
	f.pour(t, 1, make([]byte, throughMin))
	f.b.loop.Tick(0)
	if f.out.AboveWatermark() {
		t.Errorf("%d bytes wait, and writers are held up for ever", f.out.Buffered())
	}
}
