// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/handover"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

// passing is a data plane that notes how it passes on.
type passing struct {
	dataPlane // nothing else is asked of it
	did       []string
	again     chan struct{} // not nil: something is under way for good
}

func (p *passing) HandOver(ctx context.Context, _ func(string) bool, _ func([]proxy.HandedConn) (int, error), _ func(map[string]uint64)) error {
	p.did = append(p.did, "hand over")
	if p.again != nil {
		<-p.again
		<-ctx.Done()
	}
	return nil
}

func (p *passing) Drain(context.Context, proxy.DrainScope) error {
	p.did = append(p.did, "drain")
	return nil
}

func (p *passing) AcceptAgain() { close(p.again) }

func (p *passing) Leave()       { p.did = append(p.did, "leave") }
func (p *passing) Freeze(bool)  { p.did = append(p.did, "freeze") }
func (p *passing) Close() error { p.did = append(p.did, "close"); return nil }

// parent is a process that offers its sockets over link.
func parent(t *testing.T) (s *process, dp *passing, link, successor *handover.Link) {
	t.Helper()
	link, file, err := handover.Pair()
	if err != nil {
		t.Fatal(err)
	}
	if successor, err = handover.FromFile(file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = link.Close(), successor.Close() }) // the test may have
	dp = &passing{}
	log := slog.New(slog.DiscardHandler)
	s = &process{log: log, notify: notifier{log}, dp: dp, upgrades: newUpgrades(), ending: make(chan struct{}), unwatch: func() {}}
	s.upgrades.link = link
	return s, dp, link, successor
}

// A signal that comes as a successor begins to serve ends the process as one that has
// handed over: what both own stays.
func TestAnEndBehindASuccessorThatServesIsAHandOver(t *testing.T) {
	s, dp, link, successor := parent(t)
	s.upgrades.offers <- offered{link: link}
	if err := s.end(t.Context(), &signals{}, "terminated"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(dp.did, []string{"hand over"}) {
		t.Errorf("it did: %s", strings.Join(dp.did, ", "))
	}
	if err := successor.TakeConns(func([]handover.Conn, []int) {}, func(map[string]uint64) {}); err != nil {
		t.Errorf("the successor was not told of the end: %v", err)
	}

	s, dp, link, successor = parent(t)
	s.upgrades.offers <- offered{link: link}
	s.close()
	if !slices.Equal(dp.did, []string{"leave", "close"}) {
		t.Errorf("at a failure it did: %s", strings.Join(dp.did, ", "))
	}
	if err := successor.TakeConns(func([]handover.Conn, []int) {}, func(map[string]uint64) {}); err != io.EOF {
		t.Errorf("after a failure: %v", err)
	}
}

// A successor that hangs takes nothing: what does not fit into the link stays here.
func TestASuccessorThatHangsHoldsNobodyUp(t *testing.T) {
	_, _, link, successor := parent(t)
	list := make([]proxy.HandedConn, 640) // more bytes than the kernel keeps for the reader
	for i := range list {
		fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		list[i] = proxy.HandedConn{FD: fd, Listener: strings.Repeat("l", 800)}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the second signal, or the end of the limit
	n, err := give(ctx, link, list)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == len(list) {
		t.Errorf("%d of %d were taken: %v", n, len(list), err)
	}
	for i := range list {
		if err := syscall.Close(list[i].FD); (err == nil) != (i >= n) {
			t.Errorf("connection %d of which %d went: %v", i, n, err)
		}
	}
	_ = successor.Close()
}

func TestAStartedSuccessorThatIsStuckIsKilledOnceItHasFailed(t *testing.T) {
	s, _, link, _ := parent(t)
	c := exec.Command("sleep", "600")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s.upgrades.child, s.upgrades.grace = c.Process, 0
	if s.answered(offered{link: link, err: errors.New("it was not ready in time")}) {
		t.Error("it serves")
	}
	if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("it ended: %v", err)
	}
}

// What the old process has under way may take long. It must not keep sockets that nobody
// accepts from, nor the data folder, for as long.
func TestTheEndOfASuccessorThatServesCutsTheHandOverShort(t *testing.T) {
	s, dp, link, successor := parent(t)
	s.o.ParentShutdownTime, dp.again = time.Hour, make(chan struct{})
	_ = successor.Close() // it was killed
	if err := s.retire(t.Context(), &signals{}, offered{link: link}, false); err != nil {
		t.Fatal(err)
	}
}
