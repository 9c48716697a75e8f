// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/handover"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

const (
	// upgradeLimit is how long a successor may take until it could serve.
	upgradeLimit = time.Minute
	// stepLimit is how long each other step of a hand-over may take.
	stepLimit = 10 * time.Second
	// handoverSocket is where successors knock, in the data folder.
	handoverSocket = "handover"
	// handoverEnv tells a process that the running one has started it, and which of its
	// descriptors leads there.
	handoverEnv = "OUTRIGGER_HANDOVER_FD"
)

// upgrades is the part of a running process that hands over to a successor.
type upgrades struct {
	// set once
	program string             // the successor's, as this process was started
	socket  *handover.Listener // nil: there is no data folder, or nobody could knock
	knocks  chan *handover.Link
	offers  chan offered

	// of run's goroutine
	link    *handover.Link // to the successor that is asked to get ready; nil: none is
	child   *os.Process    // that successor where this process has started it; nil: others did
	grace   time.Duration  // that child's time to end after it has failed
	working sync.WaitGroup
}

// offered is what became of an offer.
type offered struct {
	link      *handover.Link
	listeners []string
	err       error
}

// newUpgrades remembers which program this is. The name that it was started by is
// better than what the kernel says: a link may lead to another one by now.
func newUpgrades() *upgrades {
	u := &upgrades{knocks: make(chan *handover.Link), offers: make(chan offered, 1), grace: stepLimit}
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		path, _ = os.Executable()
	}
	u.program = path
	return u
}

// listenForSuccessor lets another process with the same data folder take over.
func (s *process) listenForSuccessor() {
	if s.dataDir == "" || s.upgrades == nil {
		return
	}
	l, err := handover.Listen(filepath.Join(s.dataDir, handoverSocket))
	if err != nil {
		s.log.Warn("no successor can take over by --upgrade", "error", err)
		return
	}
	u := s.upgrades
	u.socket = l
	u.working.Go(func() { // ends when the socket closes
		for {
			link, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					s.log.Warn("no successor can take over any more", "error", err)
				}
				return
			}
			select {
			case u.knocks <- link:
			case <-s.ending:
				_ = link.Close()
			}
		}
	})
}

// consider begins to offer the sockets to a successor, one at a time.
func (s *process) consider(link *handover.Link) {
	u := s.upgrades
	reason := ""
	switch {
	case u.link != nil:
		reason = "another upgrade is under way"
	case !s.isConfigured():
		reason = "it has no complete configuration itself"
	}
	if reason != "" {
		s.log.Warn("no upgrade", "reason", reason, "pid", link.Peer())
		u.working.Go(func() { // ends within a step
			_ = link.SetDeadline(time.Now().Add(stepLimit))
			_, fds, _ := link.Receive() // it hears the answer to what it says
			handover.CloseAll(fds)
			_ = link.Refuse(reason)
			_ = link.Close()
		})
		return
	}
	u.link = link
	u.working.Go(func() { // ends within upgradeLimit and two steps, or when the link closes
		listeners, err := s.offer(link)
		u.offers <- offered{link, listeners, err}
	})
}

func (s *process) isConfigured() bool {
	select {
	case <-s.dp.Configured():
		return true
	default:
		return false
	}
}

// offer brings a successor up to the point where it serves. With an error this process
// goes on as if nothing had been; without one it has to go.
func (s *process) offer(link *handover.Link) (listeners []string, err error) {
	within := func(d time.Duration) { _ = link.SetDeadline(time.Now().Add(d)) }
	within(stepLimit)
	hello, err := link.Greet(s.o.Node().ID)
	if err != nil {
		return nil, err
	}
	s.log.Info("a successor starts", "pid", link.Peer(), "build", hello.Build)
	s.tellUpgrade(event.Began, link.Peer(), "a successor starts: "+hello.Build)
	s.dp.Freeze(true)
	defer func() {
		if err != nil {
			s.dp.Freeze(false)
		}
	}()
	files, err := s.dp.Sockets()
	if err != nil {
		return nil, errors.Join(err, link.Refuse("its sockets cannot be copied: "+err.Error()))
	}
	err = link.SendSockets(files, s.epoch)
	handover.CloseFiles(files)
	if err != nil {
		return nil, err
	}
	within(upgradeLimit)
	if err := link.AwaitReady(); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the successor ended before it was ready; its log says why")
		}
		return nil, err
	}
	within(stepLimit)
	if listeners, err = link.Go(s.lock); err != nil {
		return nil, err
	}
	_ = link.SetDeadline(time.Time{})
	return listeners, nil
}

// respawn starts the program on disk as the successor, with the arguments of this process.
func (s *process) respawn() {
	if s.upgrades.link != nil {
		s.log.Warn("no upgrade", "reason", "another upgrade is under way")
		return
	}
	link, there, err := handover.Pair()
	if err != nil {
		s.log.Error("upgrade failed: this process serves on", "error", err)
		return
	}
	c := exec.Command(s.upgrades.program, os.Args[1:]...) //nolint:gosec // our own program
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.ExtraFiles = []*os.File{there} // descriptor 3
	c.Env = append(slices.DeleteFunc(os.Environ(), ofThisProcess), handoverEnv+"=3")
	err = c.Start()
	_ = there.Close()
	if err != nil {
		s.log.Error("upgrade failed: this process serves on", "error", err)
		_ = link.Close()
		return
	}
	link.SetPeer(c.Process.Pid)
	go func() { // ends with the successor, or with this process if that is first
		err := c.Wait()
		s.log.Info("the successor that was started has ended", "pid", c.Process.Pid, "error", err)
	}()
	s.consider(link)
	if s.upgrades.link == link { // it was not refused
		s.upgrades.child = c.Process
	}
}

// ofThisProcess says which variables are for this process alone: sockets and watchdog of
// a service manager, and the way to the predecessor.
func ofThisProcess(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	switch name {
	case handoverEnv, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID":
		return true
	}
	return false
}

// answered takes the result of an offer and says whether a successor serves.
func (s *process) answered(o offered) bool {
	if o.err == nil {
		return true
	}
	u := s.upgrades
	_ = o.link.Close()
	if child := u.child; child != nil {
		// It ends by itself, and says why. One that is stuck would keep its copies of the
		// sockets, in whose backlogs connections wait for it.
		time.AfterFunc(u.grace, func() { _ = child.Kill() }) // nothing to kill is as well
	}
	u.link, u.child = nil, nil
	s.tellUpgrade(event.Failed, o.link.Peer(), "this process serves on: "+o.err.Error())
	s.log.Error("upgrade failed: this process serves on", "error", o.err)
	return false
}

// abandonUpgrades ends what is under way: this process ends. An offer that has succeeded
// all the same is returned: its successor serves, and owns what both have.
func (s *process) abandonUpgrades() (taken *offered) {
	u := s.upgrades
	if u == nil {
		return nil
	}
	s.endingOnce.Do(func() { close(s.ending) })
	if u.socket != nil {
		_ = u.socket.Close() // it may be closed already
	}
	look := func() {
		select {
		case o := <-u.offers:
			if o.err == nil {
				taken = &o
				s.succeeded = true
			}
		default:
		}
	}
	look()
	if u.link != nil && !s.succeeded {
		_ = u.link.Close()
	}
	u.working.Wait()
	look()
	if u.socket != nil && !s.succeeded {
		if err := u.socket.Remove(); err != nil {
			s.log.Warn(err.Error())
		}
	}
	return taken
}

// retire drains behind a successor that serves, and ends. A signal that ends it is
// obeyed at the second time only: it has begun to end. told is that of wind.
func (s *process) retire(ctx context.Context, signals *signals, o offered, told bool) error {
	u := s.upgrades
	s.succeeded = true
	s.unwatch() // the successor feeds the watchdog
	s.notify.succeeded(o.link.Peer())
	s.tellUpgrade(event.Ended, o.link.Peer(), "a successor serves: this process drains")
	s.log.Info("a successor serves: draining", "pid", o.link.Peer(), "limit", s.o.ParentShutdownTime)
	if u.socket != nil {
		_ = u.socket.Close()
	}
	return s.wind(ctx, signals, told, func(ctx context.Context) {
		defer o.link.Close() //nolint:errcheck // the other end sees it
		drains, cancel := context.WithCancel(ctx)
		defer cancel()
		var finished atomic.Bool // the successor may go
		go func() {              // ends when the successor has all, or with the link
			if err := awaitEnd(o.link); finished.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			s.log.Error("the successor has gone: this process accepts again, drains, and ends", "limit", s.o.DrainTime)
			s.dp.AcceptAgain()
			time.AfterFunc(s.o.DrainTime, cancel) // it may have drained by then
		}()
		if s.agent != nil {
			limited, cancel := context.WithTimeout(ctx, deregisterLimit)
			if err := s.agent.Bequeath(limited); err != nil {
				s.log.Warn("the lease is still renewed by this process, too", "error", err)
			}
			cancel()
		}
		limited, cancelLimit := context.WithTimeout(drains, s.o.ParentShutdownTime)
		defer cancelLimit()
		has := func(name string) bool { return slices.Contains(o.listeners, name) }
		give := func(list []proxy.HandedConn) (int, error) { return give(limited, o.link, list) }
		count := func(all map[string]uint64) {
			if err := sendWithin(limited, o.link, func() error { return o.link.GiveCounters(all) }); err != nil {
				s.log.Warn("the successor does not know what was counted", "error", err)
			}
		}
		if err := s.dp.HandOver(limited, has, give, count); err != nil {
			s.log.Warn("drained only in part", "limit", s.o.ParentShutdownTime, "error", err)
		}
		finished.Store(true)
		if err := sendWithin(ctx, o.link, o.link.SendDone); err != nil {
			s.log.Warn("the successor was not told of the end", "error", err)
		}
		s.flush(ctx, flushLimit)
	})
}

// awaitEnd waits until the other end of a link has closed it. Nothing that it says counts.
func awaitEnd(link *handover.Link) error {
	for {
		_, fds, err := link.Receive()
		if err != nil {
			return err
		}
		handover.CloseAll(fds)
	}
}

// sendWithin bounds what f sends by a step, and by ctx: a successor that hangs must not
// keep this process.
func sendWithin(ctx context.Context, link *handover.Link, f func() error) error {
	_ = link.SetSendDeadline(time.Now().Add(stepLimit))
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = link.SetSendDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-cut // the deadline of what comes next is not touched any more
		}
	}()
	return f()
}

// give sends idle connections on and closes this process's copies of those that went.
func give(ctx context.Context, link *handover.Link, list []proxy.HandedConn) (int, error) {
	conns, fds := make([]handover.Conn, len(list)), make([]int, len(list))
	for i := range list {
		h := &list[i]
		fds[i] = h.FD
		conns[i] = handover.Conn{
			Listener: h.Listener, Remote: h.Remote, ToldLocal: h.ToldLocal, ToldRemote: h.ToldRemote,
			Requests: h.Requests, Age: h.Age, Idle: h.Idle,
		}
	}
	n := 0
	err := sendWithin(ctx, link, func() (err error) {
		n, err = link.GiveConns(conns, fds)
		return err
	})
	handover.CloseAll(fds[:n])
	if err != nil {
		return n, fmt.Errorf("%d of %d idle connections: %w", n, len(list), err)
	}
	return n, nil
}
