// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// pipe is what splice(2) needs between two sockets. One does for a loop, because it
// is empty between two calls.
type pipe struct {
	from, to int
	state    pipeState
}

type pipeState uint8

const (
	pipeUntried pipeState = iota
	pipeOpen
	pipeRefused
)

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// open makes the pipe at its first use. One of less than relayMost bytes is not
// worth it: the steps would be too small.
func (p *pipe) open() bool {
	if p.state == pipeUntried {
		p.state = pipeRefused
		var fds [2]int
		if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
			return false
		}
		p.from, p.to, p.state = fds[0], fds[1], pipeOpen
		if n, err := unix.FcntlInt(uintptr(p.to), unix.F_SETPIPE_SZ, relayMost); err != nil || n < relayMost {
			p.close()
		}
	}
	return p.state == pipeOpen
}

// close is for good: what may be left in the pipe belongs to nobody.
func (p *pipe) close() {
	if p.state == pipeOpen {
		_ = unix.Close(p.from)
		_ = unix.Close(p.to)
	}
	p.state = pipeRefused
}

// drop empties the pipe: the next use makes another.
func (p *pipe) drop() {
	if p.state == pipeOpen {
		p.close()
		p.state = pipeUntried
	}
}

// Splice implements splicer. Without a pipe readErr is ENOSYS, and nothing is taken.
func (k *kernel) Splice(from, to, n int) (taken, moved int, readErr, writeErr syscall.Errno) {
	if !k.pipe.open() {
		return 0, 0, syscall.ENOSYS, 0
	}
	if taken, readErr = splice(from, k.pipe.to, n); readErr != 0 || taken == 0 {
		if readErr == syscall.EINVAL { // a kind of socket that cannot
			readErr = syscall.ENOSYS
		}
		return 0, 0, readErr, 0
	}
	for moved < taken {
		m, errno := splice(k.pipe.from, to, taken-moved)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 || m == 0 {
			return taken, moved, 0, errno
		}
		moved += m
	}
	return taken, moved, 0, 0
}

// SpliceRest implements splicer.
func (k *kernel) SpliceRest(b []byte) int {
	for {
		n, err := unix.Read(k.pipe.from, b)
		if err != unix.EINTR {
			return n
		}
	}
}

// SpliceDrop implements splicer.
func (k *kernel) SpliceDrop() { k.pipe.drop() }

func splice(from, to, n int) (int, syscall.Errno) {
	m, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), spliceFlags)
	if errno != 0 {
		return 0, errno
	}
	return int(m), 0
}
