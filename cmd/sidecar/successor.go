// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/handover"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

// successor is the part of a process that takes over from a running one.
type successor struct {
	link *handover.Link
	// serving is closed when this process is the one that serves.
	serving chan struct{}
}

// findPredecessor finds the process to take over from: the one that started this, or
// with --upgrade the one that has the data folder. nil: there is none.
func findPredecessor(o *Options, dataDir string) (*handover.Link, error) {
	if value, started := os.LookupEnv(handoverEnv); started {
		_ = os.Unsetenv(handoverEnv) // for what this process starts
		fd, err := strconv.ParseUint(value, 10, 31)
		if err != nil || fd < 3 {
			return nil, fmt.Errorf("%s=%q: want a descriptor; it is set by a running sidecar alone", handoverEnv, value)
		}
		syscall.CloseOnExec(int(fd))
		link, err := handover.FromFile(os.NewFile(uintptr(fd), handoverEnv))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", handoverEnv, err)
		}
		return link, nil
	}
	if !o.Upgrade {
		return nil, nil
	}
	link, err := handover.Dial(filepath.Join(dataDir, handoverSocket))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil // nobody to take over from: the folder's lock tells if that is wrong
	}
	if err != nil {
		return nil, fmt.Errorf("--upgrade: %w", err)
	}
	return link, nil
}

// inherit asks the predecessor for its sockets.
func (s *process) inherit(link *handover.Link) (*heritage, error) {
	s.successor = &successor{link: link, serving: make(chan struct{})}
	s.log.Info("taking over from the running sidecar", "pid", link.Peer())
	_ = link.SetDeadline(time.Now().Add(2 * stepLimit))
	files, epoch, err := link.Ask(s.o.Node().ID, version())
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended before it gave its sockets")
		}
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	_ = link.SetDeadline(time.Time{})
	s.epoch = epoch + 1
	s.tellUpgrade(event.Began, link.Peer(), "taking over from the running sidecar")
	return newHeritage(files, true)
}

// takeOver waits for the first complete configuration, then serves in the predecessor's
// place.
func (s *process) takeOver(ctx context.Context, signals *signals) error {
	limit := time.NewTimer(upgradeLimit)
	defer limit.Stop()
	for configured := false; !configured; {
		select {
		case <-s.dp.Configured():
			configured = true
		case err := <-s.dp.Failed():
			return failed("upgrade: data path: %w", err)
		case <-limit.C:
			return failed("upgrade: no complete configuration within %v", upgradeLimit)
		case <-ctx.Done():
			return context.Cause(ctx)
		case sig := <-signals.received:
			if signals.ends(sig) {
				return failed("upgrade: ended by %v", sig)
			}
		}
	}
	link := s.successor.link
	_ = link.SetDeadline(time.Now().Add(stepLimit))
	lock, err := link.Ready()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the running sidecar did not let go")
		}
		return failed("upgrade: %w", err)
	}
	if lock != nil {
		s.lock = lock
	}
	_ = link.SetDeadline(time.Now().Add(stepLimit))
	if err := link.Serve(s.dp.Listeners()); err != nil {
		// The predecessor is gone, or serves on: it must not be both.
		return failed("upgrade: %w", err)
	}
	_ = link.SetDeadline(time.Time{})
	s.dp.Take()
	close(s.successor.serving)
	s.tellUpgrade(event.Ended, link.Peer(), "this process serves")
	go s.adopt(link) // ends when the predecessor does, or with the link at this process's end
	return nil
}

// adopt takes the predecessor's idle connections until it has none.
func (s *process) adopt(link *handover.Link) {
	n, counted := 0, false
	err := link.TakeConns(func(conns []handover.Conn, fds []int) {
		list := make([]proxy.HandedConn, len(conns))
		for i, c := range conns {
			list[i] = proxy.HandedConn{
				FD: fds[i], Listener: c.Listener, Remote: c.Remote, ToldLocal: c.ToldLocal, ToldRemote: c.ToldRemote,
				Requests: c.Requests, Age: c.Age, Idle: c.Idle,
			}
		}
		n += len(list)
		s.dp.Adopt(list)
	}, func(counters map[string]uint64) {
		counted = true
		s.dp.Inherit(counters)
	})
	_ = link.Close()
	if !counted {
		s.dp.Inherit(nil) // nobody says it any more
	}
	if err != nil {
		s.log.Warn("the process before ended early", "idleConnections", n, "error", err)
		return
	}
	s.log.Info("the process before has ended", "idleConnections", n)
}
