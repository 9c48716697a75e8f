// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/handover"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

// passing is a data plane that notes how it passes on.
type passing struct {
	dataPlane // nothing else is asked of it
	did       []string
}

func (p *passing) HandOver(context.Context, func(string) bool, func([]proxy.HandedConn) (int, error)) error {
	p.did = append(p.did, "hand over")
	return nil
}

func (p *passing) Drain(context.Context, proxy.DrainScope) error {
	p.did = append(p.did, "drain")
	return nil
}

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
	if err := successor.TakeConns(func([]handover.Conn, []int) {}); err != nil {
		t.Errorf("the successor was not told of the end: %v", err)
	}

	s, dp, link, successor = parent(t)
	s.upgrades.offers <- offered{link: link}
	s.close()
	if !slices.Equal(dp.did, []string{"leave", "close"}) {
		t.Errorf("at a failure it did: %s", strings.Join(dp.did, ", "))
	}
	if err := successor.TakeConns(func([]handover.Conn, []int) {}); err != io.EOF {
		t.Errorf("after a failure: %v", err)
	}
}
