// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"syscall"
)

// maxSockets bounds what a parent may send.
const maxSockets = 8192

// File is a listening socket with its descriptor, which whoever holds the value owns.
type File struct {
	Socket
	FD int
}

// CloseFiles closes the descriptors.
func CloseFiles(files []File) {
	for _, f := range files {
		_ = syscall.Close(f.FD)
	}
}

// Duplicate returns a copy of the descriptor of a listener or packet socket.
func Duplicate(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	n, errno := uintptr(0), syscall.Errno(0)
	if err := raw.Control(func(fd uintptr) {
		n, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, err
	}
	if errno != 0 {
		return -1, os.NewSyscallError("fcntl", errno)
	}
	return int(n), nil
}

// RefusedError is a parent's reason to hand nothing over.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "the running process refuses: " + e.Reason }

// expect receives a message of one kind and closes the descriptors of any other.
func (l *Link) expect(kind Kind) (*Message, []int, error) {
	m, fds, err := l.Receive()
	if err != nil {
		return nil, nil, err
	}
	if m.Kind == Refused && kind == Sockets {
		return nil, nil, &RefusedError{m.Reason}
	}
	if m.Kind != kind {
		CloseAll(fds)
		return nil, nil, fmt.Errorf("hand-over: %s where %s was due", m.Kind, kind)
	}
	return m, fds, nil
}

// Ask is the successor's first step: it returns the listening sockets, which are the
// caller's, and how many processes were before the parent.
func (l *Link) Ask(node, build string) (all []File, epoch int, err error) {
	defer func() {
		if err != nil {
			CloseFiles(all)
			all = nil
		}
	}()
	if err := l.Send(&Message{Kind: Hello, Version: Version, Node: node, Build: build, PID: os.Getpid(), Counted: true}); err != nil {
		return nil, 0, err
	}
	for {
		m, fds, err := l.expect(Sockets)
		if err != nil {
			return all, 0, err
		}
		for i, s := range m.Sockets {
			all = append(all, File{s, fds[i]})
		}
		switch {
		case len(all) > maxSockets:
			return all, 0, fmt.Errorf("hand-over: more than %d sockets", maxSockets)
		case !m.More:
			return all, m.Epoch, nil
		case len(m.Sockets) == 0:
			return all, 0, errors.New("hand-over: a part without sockets")
		}
	}
}

// Ready is the successor's second step: it says that it could serve, and waits until it
// may. lock is that of the data folder, nil where the parent has none.
func (l *Link) Ready() (lock *os.File, err error) {
	if err := l.Send(&Message{Kind: Ready}); err != nil {
		return nil, err
	}
	_, fds, err := l.expect(Go)
	if err != nil {
		return nil, err
	}
	if len(fds) > 0 {
		lock = os.NewFile(uintptr(fds[0]), "lock")
	}
	return lock, nil
}

// Serve is the successor's third step: it is about to accept connections, and may once
// this returns without an error. With one the parent serves on, or is gone.
func (l *Link) Serve(listeners []string) error {
	m := &Message{Kind: Serving, Listeners: listeners}
	if b, err := m.Encode(0); err != nil || len(b) > MaxMessage {
		m.Listeners = nil // too many names: no connection is taken, all are drained
	}
	if err := l.Send(m); err != nil {
		return err
	}
	a, _, err := l.expect(Agreed)
	l.counted = err == nil && a.Counted
	return err
}

// TakeConns is the successor's last step: it calls take with connections, whose
// descriptors are take's, until there are no more. io.EOF means that the parent ended
// without saying so. counted is called with all counters of the parent, at first at once,
// also where it has none, and later with what they have become.
func (l *Link) TakeConns(take func([]Conn, []int), counted func(map[string]uint64)) error {
	counters := map[string]uint64{}
	if !l.counted {
		counted(counters)
	}
	for {
		m, fds, err := l.Receive()
		switch {
		case err != nil:
			return err
		case m.Kind == Done:
			return nil
		case m.Kind == Counts:
			maps.Copy(counters, m.Counters)
			if len(counters) > maxCounters {
				return fmt.Errorf("hand-over: more than %d counters", maxCounters)
			}
			if !m.More {
				counted(maps.Clone(counters))
			}
			continue
		case m.Kind != Conns:
			CloseAll(fds)
			return fmt.Errorf("hand-over: %s where %s was due", m.Kind, Conns)
		}
		take(m.Conns, fds)
	}
}

// Greet is the parent's first step: it hears who wants its sockets, and refuses anybody
// but a successor of its own node that speaks this version.
func (l *Link) Greet(node string) (*Message, error) {
	m, _, err := l.expect(Hello)
	if err != nil {
		return nil, err
	}
	l.counted = m.Counted
	reason := ""
	switch {
	case m.Version != Version:
		reason = fmt.Sprintf("it speaks version %d of the hand-over, the successor version %d: restart in place of upgrading", Version, m.Version)
	case m.Node != node:
		reason = fmt.Sprintf("it is node %q, the successor is %q", node, m.Node)
	}
	if reason != "" {
		return m, errors.Join(fmt.Errorf("hand-over refused: %s", reason), l.Refuse(reason))
	}
	return m, nil
}

// Refuse tells the successor why it gets nothing.
func (l *Link) Refuse(reason string) error { return l.Send(&Message{Kind: Refused, Reason: reason}) }

// SendSockets is the parent's second step. The descriptors stay the caller's.
func (l *Link) SendSockets(all []File, epoch int) error {
	for {
		m, fds := &Message{Kind: Sockets, Epoch: epoch}, []int(nil)
		for len(all) > 0 && len(fds) < MaxFiles {
			m.Sockets, fds = append(m.Sockets, all[0].Socket), append(fds, all[0].FD)
			all = all[1:]
		}
		m.More = len(all) > 0
		if err := l.Send(m, fds...); err != nil || !m.More {
			return err
		}
	}
}

// AwaitReady is the parent's third step.
func (l *Link) AwaitReady() error {
	_, _, err := l.expect(Ready)
	return err
}

// Go is the parent's fourth step: the successor may serve. It returns the listeners that
// the successor has, once it does; with an error it does not, and never will. lock may be
// nil.
func (l *Link) Go(lock *os.File) (listeners []string, err error) {
	var fds []int
	if lock != nil {
		n, err := Duplicate(lock)
		if err != nil {
			return nil, fmt.Errorf("hand-over: lock: %w", err)
		}
		defer CloseAll([]int{n})
		fds = []int{n}
	}
	if err := l.Send(&Message{Kind: Go}, fds...); err != nil {
		return nil, err
	}
	m, _, err := l.expect(Serving)
	if err != nil {
		return nil, err
	}
	return m.Listeners, l.Send(&Message{Kind: Agreed, Counted: l.counted})
}

// Bounds of counters.
const (
	maxCounters   = 1 << 20
	countersBytes = MaxMessage - 256 // of names and values in one message
	longestName   = 2 << 10
)

// GiveCounters is the parent's first step after Go, and may be repeated: the values
// replace those before. A successor that does not know them gets none. Names that are
// longer than 2 KiB are left out, as is what is more than a million.
func (l *Link) GiveCounters(all map[string]uint64) error {
	if !l.counted {
		return nil
	}
	part, size, n := map[string]uint64{}, 0, 0
	for name, v := range all {
		if len(name) > longestName || n == maxCounters {
			continue
		}
		if n++; size+escaped(name) > countersBytes {
			if err := l.Send(&Message{Kind: Counts, Counters: part, More: true}); err != nil {
				return err
			}
			clear(part)
			size = 0
		}
		part[name] = v
		size += escaped(name)
	}
	return l.Send(&Message{Kind: Counts, Counters: part})
}

// escaped is the most that a name and its value need in a message.
func escaped(name string) int {
	n := len(`"":18446744073709551615,`)
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || strings.IndexByte(`"\\<>&`, c) >= 0 {
			n += len(`\u0000`)
		} else {
			n++
		}
	}
	return n
}

// connsInMessage is how many connections one message holds: their names may be long.
const connsInMessage = 64

// GiveConns is the parent's last step but Done; it may be repeated. It returns how many
// connections have gone. The descriptors stay the caller's to close.
func (l *Link) GiveConns(conns []Conn, fds []int) (gone int, err error) {
	for gone < len(conns) {
		n := min(connsInMessage, len(conns)-gone)
		if err := l.Send(&Message{Kind: Conns, Conns: conns[gone : gone+n]}, fds[gone:gone+n]...); err != nil {
			return gone, err
		}
		gone += n
	}
	return gone, nil
}

// SendDone tells the successor that nothing more comes.
func (l *Link) SendDone() error { return l.Send(&Message{Kind: Done}) }
