// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

const never = math.MaxInt64

// epoch is the wall-clock time at which worlds begin: 2026-01-01T00:00:00Z.
const epoch = 1767225600 * int64(time.Second)

// machine is the System of one loop.
type machine struct {
	world     *World
	loop      *reactor.Loop
	ready     []*endpoint
	listeners []*listener
	woken     atomic.Bool // WakeOffLoop was called, by whom ever
	stopped   bool
}

// due is when the loop has something to do of its own accord.
func (m *machine) due() int64 {
	if at, ok := m.loop.Due(); ok && !m.stopped {
		return max(at, m.world.stalled)
	}
	return never
}

// runnable reports whether the loop has something to do at this time.
func (m *machine) runnable() bool {
	if m.stopped || m.world.now < m.world.stalled {
		return false
	}
	return m.woken.Load() || len(m.ready) > 0 || m.due() <= m.world.now || slices.ContainsFunc(m.listeners, (*listener).pending)
}

func (m *machine) Clock() (mono, wall int64) {
	return m.world.now, epoch + m.world.now + m.world.jumped
}

// Poll never blocks: the World lets time pass when no loop has anything to do.
func (m *machine) Poll(events []reactor.Event, _ time.Duration) (n int, _ syscall.Errno) {
	for i := 0; i < len(m.listeners) && n < len(events); i++ {
		if l := m.listeners[i]; l.pending() {
			events[n] = reactor.Event{Token: l.tokens[m], Flags: reactor.EventIn}
			n++
		}
	}
	for len(m.ready) > 0 && n < len(events) {
		e := m.ready[0]
		m.ready = m.ready[1:]
		e.queued = false
		if f := e.flags(); f != 0 {
			events[n] = reactor.Event{Token: e.token, Flags: f}
			n++
		}
	}
	return n, 0
}

func (m *machine) WakeOffLoop() { m.woken.Store(true) }

func (m *machine) Watch(fd int, token uint64, _ reactor.WatchMode) syscall.Errno {
	switch f := m.world.files[fd].(type) {
	case *endpoint:
		f.machine, f.token = m, token
		f.trigger()
	case *listener:
		if slices.Contains(m.listeners, f) {
			return syscall.EEXIST
		}
		f.tokens[m] = token
		m.listeners = append(m.listeners, f)
	default:
		return syscall.EBADF
	}
	return 0
}

func (m *machine) Unwatch(fd int) syscall.Errno {
	l, ok := m.world.files[fd].(*listener)
	if !ok {
		return syscall.EBADF
	}
	m.listeners = slices.DeleteFunc(m.listeners, func(o *listener) bool { return o == l })
	return 0
}

func (m *machine) forget(e *endpoint) {
	m.ready = slices.DeleteFunc(m.ready, func(o *endpoint) bool { return o == e })
}

func (m *machine) Accept(fd int) (int, netip.AddrPort, syscall.Errno) {
	l, ok := m.world.files[fd].(*listener)
	if !ok {
		return -1, netip.AddrPort{}, syscall.EBADF
	}
	if m.world.open >= m.world.limit { // before it looks for a connection, as accept(2)
		return -1, netip.AddrPort{}, syscall.EMFILE
	}
	if !l.pending() {
		return -1, netip.AddrPort{}, syscall.EAGAIN
	}
	e := l.take()
	e.fd = m.world.install(e)
	return e.fd, e.remote, 0
}

func (m *machine) Shed(fd, most int) (shed int) {
	l, ok := m.world.files[fd].(*listener)
	for ok && shed < most && l.pending() {
		e := l.take()
		e.fd = 0 // it gets none that counts
		e.hardClose = true
		m.world.open++
		e.close()
		shed++
	}
	return shed
}

func (m *machine) Connect(to *reactor.Addr, o *reactor.DialOptions) (int, syscall.Errno) {
	e, errno := m.world.connect(*to, o.Local)
	if errno != 0 {
		return -1, errno
	}
	return e.fd, 0
}

func (m *machine) endpoint(fd int) *endpoint {
	e, ok := m.world.files[fd].(*endpoint)
	if !ok {
		panic("sim: the loop uses a descriptor that it has closed")
	}
	return e
}

func (m *machine) SocketError(fd int) syscall.Errno { return m.endpoint(fd).failed }
func (m *machine) LocalAddr(fd int) netip.AddrPort  { return m.endpoint(fd).local }
func (m *machine) OriginalDst(fd int, _ bool) netip.AddrPort {
	e := m.endpoint(fd)
	if f := m.world.original; f != nil {
		return f(e.local, e.remote)
	}
	return e.original
}
func (m *machine) Unread(fd int) int                          { return len(m.endpoint(fd).inbox) }
func (m *machine) CloseWrite(fd int) syscall.Errno            { return m.endpoint(fd).closeWrite() }
func (m *machine) Reset(fd int)                               { m.endpoint(fd).hardClose = true }
func (m *machine) CloseFD(fd int)                             { m.endpoint(fd).close() }
func (m *machine) Read(fd int, b []byte) (int, syscall.Errno) { return m.endpoint(fd).readInto(b) }
func (m *machine) Write(fd int, b []byte) (int, syscall.Errno) {
	return m.endpoint(fd).write(b)
}
func (m *machine) Writev(fd int, bufs [][]byte) (int, syscall.Errno) {
	return m.endpoint(fd).write(bufs...)
}

// Shutdown: whatever the loop left open would leak, which OpenFDs tells.
func (m *machine) Shutdown() { m.stopped = true }

var _ reactor.System = (*machine)(nil)
