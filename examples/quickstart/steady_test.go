// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	e2e "github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// answerLimit is how long a request may take before it counts as failed.
const answerLimit = 20 * time.Second

// steadyLoad is HTTP/1.1 clients that cost next to nothing, so that a machine which runs
// a whole mesh can also send what it is to carry: one thread, one epoll, keep-alive
// connections with one request at a time each. Requests fall due at a steady rate;
// where all connections are busy they wait, and are sent when one is free.
//
// Nothing is ever repeated: what fails is counted. Another connection is opened only
// after an answer that said "Connection: close", after an orderly end of one that was
// idle, and after a failure.
type steadyLoad struct {
	t       testing.TB
	to      syscall.Sockaddr
	request []byte
	rate    int
	check   func(body []byte) error
	checked map[string]error // by body: there are few different ones
	stop    atomic.Bool
	done    chan struct{}

	// Of the thread.
	epoll int
	conns []client
	idle  []int // of conns, the one that rests longest first
	busy  int

	mu    sync.Mutex
	tally e2e.Tally
	whole int // requests answered or failed, not only since the last take
}

// client is a connection of a steadyLoad.
type client struct {
	fd   int       // 0: none is open
	sent time.Time // of the request under way; zero: idle
	in   []byte
}

// startSteady sends GET / until stop or the end of the test.
func startSteady(t testing.TB, address, host string, conns, rate int, check func(body []byte) error) *steadyLoad {
	t.Helper()
	l := newSteady(t, address, host, conns, rate, check)
	go l.run() // ends with stop
	t.Cleanup(func() { l.end() })
	return l
}

func newSteady(t testing.TB, address, host string, conns, rate int, check func(body []byte) error) *steadyLoad {
	t.Helper()
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	l := &steadyLoad{
		t: t, to: &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, rate: rate, check: check,
		request: []byte("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"),
		checked: map[string]error{}, done: make(chan struct{}), conns: make([]client, conns),
	}
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		t.Fatal(os.NewSyscallError("epoll_create1", err))
	}
	for i := range l.conns {
		l.idle = append(l.idle, i)
	}
	return l
}

func (l *steadyLoad) run() {
	defer close(l.done)
	runtime.LockOSThread() // ends with the thread: nothing else may use its time
	defer func() {
		for i := range l.conns {
			l.close(i)
		}
		_ = syscall.Close(l.epoll)
	}()
	events := make([]syscall.EpollEvent, len(l.conns))
	began, looked, sent := time.Now(), time.Now(), 0
	for {
		now := time.Now()
		stopping := l.stop.Load()
		if stopping && l.busy == 0 {
			return
		}
		for due := int(now.Sub(began).Seconds() * float64(l.rate)); !stopping && sent < due && len(l.idle) > 0; sent++ {
			i := l.idle[0]
			l.idle = append(l.idle[:0], l.idle[1:]...)
			l.send(i, now)
		}
		if now.Sub(looked) > time.Second {
			looked = now
			l.giveUp(now)
		}
		// What comes meanwhile is taken at once: to be woken for each answer costs more
		// than to read it. An early end of the pause does no harm.
		_ = syscall.Nanosleep(&syscall.Timespec{Nsec: 1e6}, nil)
		n, err := syscall.EpollWait(l.epoll, events, 0)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			l.note(now, 0, "", os.NewSyscallError("epoll_wait", err))
			return
		}
		for _, e := range events[:max(n, 0)] {
			l.read(int(e.Fd))
		}
	}
}

func (l *steadyLoad) send(i int, now time.Time) {
	c := &l.conns[i]
	if c.fd == 0 {
		if err := l.open(i); err != nil {
			l.note(now, 0, "", fmt.Errorf("connect: %w", err))
			l.idle = append(l.idle, i)
			return
		}
	}
	c.sent = now
	l.busy++
	if n, err := syscall.Write(c.fd, l.request); err != nil || n < len(l.request) {
		l.finish(i, 0, "", fmt.Errorf("%d bytes of the request sent: %w", n, err), false)
	}
}

func (l *steadyLoad) open(i int) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		syscall.Connect(fd, l.to), // to this machine: at once
		syscall.SetNonblock(fd, true),
		syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)}))
	if err != nil {
		_ = syscall.Close(fd)
		return err
	}
	l.conns[i].fd, l.conns[i].in = fd, l.conns[i].in[:0]
	return nil
}

func (l *steadyLoad) close(i int) {
	if c := &l.conns[i]; c.fd != 0 {
		_ = syscall.Close(c.fd) // epoll forgets it with that
		c.fd = 0
	}
}

// read takes what has come on a connection.
func (l *steadyLoad) read(i int) {
	c := &l.conns[i]
	if c.fd == 0 {
		return
	}
	if cap(c.in)-len(c.in) < 1024 {
		c.in = append(make([]byte, 0, 2*cap(c.in)+2048), c.in...)
	}
	n, err := syscall.Read(c.fd, c.in[len(c.in):cap(c.in)])
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
	case c.sent.IsZero() && n == 0 && err == nil:
		l.close(i) // an orderly end
	case c.sent.IsZero():
		l.note(time.Now(), 0, string(c.in[:max(n, 0)]), fmt.Errorf("on an idle connection: %d bytes, %v", n, err))
		l.close(i)
	case err != nil || n == 0:
		l.finish(i, 0, string(c.in), fmt.Errorf("the connection ended after %d bytes of the answer: %v", len(c.in), err), false)
	default:
		c.in = c.in[:len(c.in)+n]
		if a, ok, err := parseReply(c.in); ok || err != nil {
			l.judge(i, a, err)
		}
	}
}

// judge counts a complete answer, or one that cannot become complete.
func (l *steadyLoad) judge(i int, a reply, err error) {
	if err == nil && a.status == 200 {
		var known bool
		if err, known = l.checked[string(a.body)]; !known {
			err = l.check(a.body)
			l.checked[string(a.body)] = err
		}
	}
	l.finish(i, a.status, string(a.body), err, !a.close && a.status != 0)
}

func (l *steadyLoad) finish(i, status int, body string, err error, keep bool) {
	c := &l.conns[i]
	began := c.sent
	c.sent, c.in = time.Time{}, c.in[:0]
	l.busy--
	l.idle = append(l.idle, i)
	if !keep {
		l.close(i)
	}
	l.note(began, status, body, err)
}

func (l *steadyLoad) giveUp(now time.Time) {
	for i := range l.conns {
		if c := &l.conns[i]; !c.sent.IsZero() && now.Sub(c.sent) > answerLimit {
			l.finish(i, 0, string(c.in), fmt.Errorf("no complete answer within %v", answerLimit), false)
		}
	}
}

func (l *steadyLoad) note(began time.Time, status int, body string, err error) {
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.tally
	l.whole++
	t.Sent++
	t.Slowest = max(t.Slowest, took)
	if err == nil && status == 200 {
		return
	}
	t.Failed++
	if len(t.Failures) < 64 {
		t.Failures = append(t.Failures, e2e.Failure{At: began, Status: status, Body: body, Err: err})
	}
}

// take returns what was counted since the last take.
func (l *steadyLoad) take() e2e.Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.tally
	l.tally = e2e.Tally{}
	return out
}

// end stops after the requests under way and returns what was counted since the last
// take.
func (l *steadyLoad) end() e2e.Tally {
	l.stop.Store(true)
	<-l.done
	return l.take()
}

// await waits until so many more requests were answered.
func (l *steadyLoad) await(n int) {
	l.t.Helper()
	answered := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.whole
	}
	goal := answered() + n
	e2e.Await(l.t, time.Minute, fmt.Sprintf("%d more requests", n), func() error {
		if got := answered(); got < goal {
			return fmt.Errorf("%d to go", goal-got)
		}
		return nil
	})
}

// reply is an answer to one of a steadyLoad's requests.
type reply struct {
	status int
	close  bool // no request may follow it
	body   []byte
}

// parseReply reads the answer in b. It is not ok where more has to come. An answer that
// is not framed by one length, in bytes or by chunks, and anything behind it is an
// error: each request is answered once, and so that its end is known.
func parseReply(b []byte) (a reply, ok bool, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return a, false, nil
	}
	head, rest := b[:end], b[end+4:]
	line, fields, _ := bytes.Cut(head, []byte("\r\n"))
	if len(line) < 13 || string(line[:9]) != "HTTP/1.1 " || line[12] != ' ' {
		return a, false, fmt.Errorf("status line %q", line)
	}
	for _, d := range line[9:12] {
		if d < '0' || d > '9' {
			return a, false, fmt.Errorf("status line %q", line)
		}
		a.status = a.status*10 + int(d-'0')
	}
	length, chunked := -1, false
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		name, value, found := bytes.Cut(field, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case !found:
			return a, false, fmt.Errorf("header field %q", field)
		case bytes.EqualFold(name, []byte("content-length")) && length >= 0:
			return a, false, errors.New("two lengths")
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = number(value, 10); err != nil {
				return a, false, err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			if chunked = string(value) == "chunked"; !chunked {
				return a, false, fmt.Errorf("transfer encoding %q", value)
			}
		case bytes.EqualFold(name, []byte("connection")):
			a.close = a.close || bytes.EqualFold(value, []byte("close"))
		}
	}
	switch {
	case chunked == (length >= 0):
		return a, false, fmt.Errorf("chunked %v and of length %d", chunked, length)
	case chunked:
		a.body, rest, ok, err = dechunk(rest)
	case len(rest) >= length:
		a.body, rest, ok = rest[:length], rest[length:], true
	}
	if ok && len(rest) > 0 {
		return reply{}, false, fmt.Errorf("%d bytes behind the answer", len(rest))
	}
	return a, ok, err
}

// dechunk takes a chunked body without trailers from b.
func dechunk(b []byte) (body, rest []byte, ok bool, err error) {
	for {
		line, next, found := bytes.Cut(b, []byte("\r\n"))
		if !found {
			return nil, nil, false, nil
		}
		size, err := number(line, 16)
		if err != nil {
			return nil, nil, false, err
		}
		if len(next) < size+2 {
			return nil, nil, false, nil
		}
		if next[size] != '\r' || next[size+1] != '\n' {
			return nil, nil, false, errors.New("a chunk is longer than it says")
		}
		if size == 0 {
			return body, next[2:], true, nil
		}
		body, b = append(body, next[:size]...), next[size+2:]
	}
}

func number(b []byte, base int) (n int, err error) {
	const digits = "0123456789abcdef"
	for _, c := range bytes.ToLower(b) {
		d := bytes.IndexByte([]byte(digits[:base]), c)
		if d < 0 || n > maxBody {
			return 0, fmt.Errorf("length %q", b)
		}
		n = n*base + d
	}
	if len(b) == 0 {
		return 0, errors.New("length without a number")
	}
	return n, nil
}
