// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"net/netip"
	"syscall"
	"time"
)

// System is everything that one loop asks of the world: readiness, sockets, the
// clock. A nil Config.System means the kernel. Each loop has its own; only
// WakeOffLoop may be called from elsewhere.
//
// Errors are bare Errnos, so that none is allocated on the path. Sockets are
// non-blocking; a System never blocks but in Poll.
type System interface {
	// Clock returns monotonic and wall-clock nanoseconds. Monotonic time is
	// comparable between the loops of a process.
	Clock() (mono, wall int64)
	// Poll fills events and returns how many; wait is the longest time to
	// block, 0 for none, negative for no limit. It may return 0 early.
	Poll(events []Event, wait time.Duration) (int, syscall.Errno)
	// WakeOffLoop makes Poll report an Event with WakeToken, now or at its next call.
	WakeOffLoop()

	// Watch reports events of fd under token. Unwatch ends that; closing does too.
	Watch(fd int, token uint64, mode WatchMode) syscall.Errno
	Unwatch(fd int) syscall.Errno

	// Accept takes one connection; remote is zero for Unix sockets.
	Accept(fd int) (conn int, remote netip.AddrPort, errno syscall.Errno)
	// Shed closes up to most pending connections when descriptors have run
	// out, with a descriptor that it keeps in reserve, and returns how many.
	Shed(fd, most int) int
	// Connect makes a socket and starts to connect it. A zero Errno means
	// connected or under way: EventOut tells, with SocketError as the verdict.
	Connect(to *Addr, o *DialOptions) (fd int, errno syscall.Errno)
	SocketError(fd int) syscall.Errno
	LocalAddr(fd int) netip.AddrPort
	// OriginalDst is where a connection of that family was going before the
	// kernel redirected it; zero where it was not.
	OriginalDst(fd int, v6 bool) netip.AddrPort

	// Read returns 0 with no error at the end of the stream. When it returns
	// less than len(b), nothing more was there (but see EventHangup, EventUrgent).
	Read(fd int, b []byte) (int, syscall.Errno)
	// Write and Writev return less than they were given only when the socket is
	// full; EventOut follows when it no longer is.
	Write(fd int, b []byte) (int, syscall.Errno)
	Writev(fd int, bufs [][]byte) (int, syscall.Errno)
	// Unread returns how many bytes a Read would find.
	Unread(fd int) int

	// CloseWrite sends FIN.
	CloseWrite(fd int) syscall.Errno
	// Reset makes the close that follows send RST.
	Reset(fd int)
	CloseFD(fd int)

	// Shutdown gives back what the System itself holds.
	Shutdown()
}

// Event is one report of Poll.
type Event struct {
	Token uint64
	Flags EventFlags
}

// EventFlags says what an Event reports.
type EventFlags uint8

// The flags. A Watch in ModeStream reports a change once, with all flags that
// hold at that time.
const (
	EventIn     EventFlags = 1 << iota // bytes, the end of the stream or a connection to accept
	EventOut                           // room to write, or a connect has ended
	EventHangup                        // the peer sent FIN: reads go on to the end of the stream
	EventUrgent                        // urgent data: a short read does not mean drained
	EventBroken                        // an error, or both directions have ended
)

// WatchMode says how a descriptor is watched.
type WatchMode uint8

const (
	// ModeStream: connections; edge-triggered, in and out, registered once.
	ModeStream WatchMode = iota
	// ModeAccept: a listening socket of this loop alone; level-triggered.
	ModeAccept
	// ModeAcceptShared: a listening socket that several loops watch; one of them wakes.
	ModeAcceptShared
)

// WakeToken is the token of the event that WakeOffLoop causes.
const WakeToken = ^uint64(0)
