// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// network is a Unix socket whose packets keep their bounds.
const network = "unixpacket"

// Link is one end of a hand-over.
type Link struct {
	conn *net.UnixConn
	peer int // pid
	// counted says that the parent gives counters; both ends know it from Agreed on.
	counted bool
	in      []byte
	oob     []byte
}

// newLink refuses a peer of another user.
func newLink(conn *net.UnixConn) (*Link, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var (
		cred *syscall.Ucred
		cerr error
	)
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	if cerr != nil {
		return nil, os.NewSyscallError("getsockopt", cerr)
	}
	if own := os.Geteuid(); int(cred.Uid) != own {
		return nil, fmt.Errorf("hand-over: process %d is of user %d, not %d: refused", cred.Pid, cred.Uid, own)
	}
	return &Link{conn: conn, peer: int(cred.Pid), in: make([]byte, MaxMessage+1), oob: make([]byte, syscall.CmsgSpace(4*MaxFiles))}, nil
}

// Peer is the process at the other end; of a Pair this process, until SetPeer.
func (l *Link) Peer() int { return l.peer }

// SetPeer says which process has the other end of a Pair: the kernel knows who made it.
func (l *Link) SetPeer(pid int) { l.peer = pid }

// Close ends the hand-over; the other end sees io.EOF.
func (l *Link) Close() error { return l.conn.Close() }

// SetDeadline bounds what waits; zero: no end.
func (l *Link) SetDeadline(t time.Time) error { return l.conn.SetDeadline(t) }

// SetSendDeadline bounds what waits for the other end to take messages; zero: no end.
func (l *Link) SetSendDeadline(t time.Time) error { return l.conn.SetWriteDeadline(t) }

// Send sends a message with copies of descriptors, which stay the caller's.
func (l *Link) Send(m *Message, fds ...int) error {
	b, err := m.Encode(len(fds))
	if err != nil {
		return fmt.Errorf("hand-over: send: %w", err)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	if _, _, err := l.conn.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("hand-over: send %s: %w", m.Kind, err)
	}
	return nil
}

// Receive waits for a message, whose descriptors are the caller's. The other end's
// close is io.EOF. A message that breaks a rule is an error, and its descriptors are
// closed.
func (l *Link) Receive() (*Message, []int, error) {
	n, oobn, flags, _, err := l.conn.ReadMsgUnix(l.in, l.oob)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, io.EOF
		}
		return nil, nil, fmt.Errorf("hand-over: receive: %w", err)
	}
	fds, err := rights(l.oob[:oobn])
	if err == nil && flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		err = errors.New("a message larger than is allowed")
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	var m *Message
	if err == nil {
		m, err = Decode(l.in[:n], len(fds))
	}
	if err != nil {
		CloseAll(fds)
		if errors.Is(err, io.EOF) {
			return nil, nil, io.EOF
		}
		return nil, nil, fmt.Errorf("hand-over: receive: %w", err)
	}
	return m, fds, nil
}

// rights are the descriptors of a control message, also where it is broken.
func rights(oob []byte) (fds []int, err error) {
	list, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, os.NewSyscallError("parse control message", err)
	}
	for i := range list {
		got, perr := syscall.ParseUnixRights(&list[i])
		if perr != nil {
			err = os.NewSyscallError("parse rights", perr)
			continue
		}
		fds = append(fds, got...)
	}
	return fds, err
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}

// Listener is where successors knock.
type Listener struct {
	l    *net.UnixListener
	path string
}

// Listen makes the socket with mode 0600, in the place of one that is there: only the
// owner of the folder's lock may call it.
func Listen(path string) (*Listener, error) {
	dir, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	temporary := filepath.Base(path) + ".new"
	_ = os.Remove(filepath.Join(filepath.Dir(path), temporary)) // of a process that was killed here
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: inFolder(dir, temporary), Net: network})
	if err != nil {
		return nil, fmt.Errorf("hand-over: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(filepath.Join(filepath.Dir(path), temporary), 0o600); err == nil {
		err = os.Rename(filepath.Join(filepath.Dir(path), temporary), path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hand-over: %w", err), l.Close())
	}
	return &Listener{l: l, path: path}, nil
}

// openFolder and inFolder name a file by its folder's descriptor: the path of a Unix
// socket holds 107 bytes, and folders may be deeper than that.
func openFolder(path string) (*os.File, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("hand-over: %w", err)
	}
	return dir, nil
}

func inFolder(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}

// Accept waits for a successor. Strangers are refused and not returned; the error is
// net.ErrClosed after Close.
func (l *Listener) Accept() (*Link, error) {
	for {
		conn, err := l.l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		link, err := newLink(conn)
		if err == nil {
			return link, nil
		}
		_ = conn.Close()
	}
}

// Close stops listening; the file stays, as a successor may have made it its own.
func (l *Listener) Close() error { return l.l.Close() }

// Remove takes the file away. Only the owner of the folder's lock may call it.
func (l *Listener) Remove() error {
	if err := os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("hand-over: %w", err)
	}
	return nil
}

// Dial knocks at the running process's socket. os.ErrNotExist and ECONNREFUSED mean
// that there is none.
func Dial(path string) (*Link, error) {
	dir, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	conn, err := net.DialUnix(network, nil, &net.UnixAddr{Name: inFolder(dir, filepath.Base(path)), Net: network})
	if err != nil {
		return nil, fmt.Errorf("hand-over: %w", err)
	}
	link, err := newLink(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return link, nil
}

// Pair makes both ends of a hand-over: one to use here, and the other as a file for a
// child process, which opens it with FromFile.
func Pair() (*Link, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	here, there := os.NewFile(uintptr(fds[0]), "hand-over"), os.NewFile(uintptr(fds[1]), "hand-over")
	link, err := FromFile(here)
	if err != nil {
		return nil, nil, errors.Join(err, there.Close())
	}
	return link, there, nil
}

// FromFile makes a Link of an end that Pair made; the file is closed.
func FromFile(f *os.File) (*Link, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("hand-over: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("hand-over: no Unix socket"), c.Close())
	}
	link, err := newLink(conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return link, nil
}
