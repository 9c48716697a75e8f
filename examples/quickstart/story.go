// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// step is one thing that is to be seen.
type step struct {
	title string
	run   func(context.Context) (string, error)
	limit time.Duration

	seen   bool
	cut    bool   // it was not seen because somebody ended the run
	detail string // what was seen, or why not
}

// story is the account, in order.
type story struct {
	mesh  *mesh
	load  *load
	out   *screen
	steps []*step
	lake  *step
}

func newStory(m *mesh, l *load, out *screen) *story {
	s := &story{mesh: m, load: l, out: out}
	s.lake = &step{title: "tapped traffic in the lake", run: s.tapped, limit: 500 * time.Millisecond}
	s.steps = []*step{
		{title: "requests balanced over instances", run: s.balanced, limit: 8 * time.Second},
		{title: "one complete trace over three services", run: s.traced, limit: 8 * time.Second},
		{title: "a policy changed through the API is live in under a second", run: s.policy, limit: 8 * time.Second},
		{title: "one instance killed and no request lost", run: s.killed, limit: 12 * time.Second},
		{title: "a failing service's circuit opens and closes again", run: s.circuit, limit: 12 * time.Second},
		s.lake, // last: the lake makes its files some time after the traffic
	}
	return s
}

// errNotReached is the detail of a step that there was no time for.
var errNotReached = errors.New("the time was over before it")

// tell runs the steps one after the other and then goes on until ctx ends.
func (s *story) tell(ctx context.Context) {
	for _, x := range s.steps {
		x.detail = errNotReached.Error()
	}
	for _, x := range s.steps {
		if ctx.Err() != nil {
			x.cut = errors.Is(ctx.Err(), context.Canceled)
			continue
		}
		s.try(ctx, x)
		switch {
		case x.seen || ctx.Err() == nil && x != s.lake:
			s.out.step(x)
		case errors.Is(ctx.Err(), context.Canceled):
			x.cut = true
		case ctx.Err() != nil:
			x.detail = "the time was over: " + x.detail
		}
	}
	if !s.lake.seen {
		s.out.note("the lake has no file yet: it writes one every half minute, and when it ends")
	}
	s.idle(ctx)
}

func (s *story) try(ctx context.Context, x *step) {
	limited, cancel := context.WithTimeout(ctx, x.limit)
	defer cancel()
	detail, err := x.run(limited)
	if err != nil {
		x.detail = err.Error()
		return
	}
	x.seen, x.detail = true, detail
}

// idleEvery is the time between two lines about the load.
const idleEvery = 5 * time.Second

// idle tells of the load until ctx ends, and of the lake when it has files.
func (s *story) idle(ctx context.Context) {
	for wait(ctx, idleEvery) == nil {
		if !s.lake.seen {
			if s.try(ctx, s.lake); s.lake.seen {
				s.out.step(s.lake)
			}
		}
		s.out.load(s.load.total())
	}
}

// lookIntoLakeAtEnd looks again when the control plane has ended and has turned
// its log into files.
func (s *story) lookIntoLakeAtEnd() {
	if s.lake.seen {
		return
	}
	if s.try(context.Background(), s.lake); s.lake.seen {
		s.out.step(s.lake)
	}
}

// balanced wants each instance of payments to get its share.
func (s *story) balanced(ctx context.Context) (string, error) {
	const enough = 150
	s.load.begin()
	var t tally
	err := poll(ctx, time.Minute, func() error {
		if t = s.load.sofar(); t.sent < enough {
			return fmt.Errorf("only %d requests were answered", t.sent)
		}
		return t.flawless()
	})
	if err != nil {
		return "", orCause(err, t.flawless())
	}
	for _, x := range s.mesh.of("payments") {
		if share := float64(t.instances[x.id]) / float64(t.sent); share < 0.3 {
			return "", fmt.Errorf("%s got %.0f %% of %d requests, want at least 30 %%: %v", x.id, 100*share, t.sent, t.instances)
		}
	}
	return fmt.Sprintf("%d requests: payments-1 %d, payments-2 %d", t.sent, t.instances["payments-1"], t.instances["payments-2"]), nil
}

// killed ends an instance and its sidecar with SIGKILL under load, and starts it
// again.
func (s *story) killed(ctx context.Context) (string, error) {
	victim := s.mesh.of("payments")[0]
	s.load.begin()
	victim.sidecarProcess.kill()
	victim.appProcess.kill()
	if err := wait(ctx, 2*time.Second); err != nil {
		return "", err
	}
	without := s.load.sofar()
	if err := s.mesh.startMember(victim); err != nil {
		return "", err
	}
	if err := s.mesh.awaitMember(ctx, victim); err != nil {
		return "", err
	}
	before := s.load.sofar().instances[victim.id]
	err := poll(ctx, time.Minute, func() error {
		if s.load.sofar().instances[victim.id] < before+10 {
			return fmt.Errorf("%s was started again and gets no requests", victim.id)
		}
		return nil
	})
	t := s.load.sofar()
	if flaw := t.flawless(); flaw != nil {
		return "", flaw
	}
	if err != nil {
		return "", fmt.Errorf("%s was started again and gets no requests: %w", victim.id, err)
	}
	return fmt.Sprintf("%d requests, 0 lost, slowest %v; payments-2 answered %d meanwhile, %s is back",
		t.sent, t.slowest.Round(time.Millisecond), without.instances["payments-2"], victim.id), nil
}

// orCause prefers what went wrong to the end of the time.
func orCause(err, cause error) error {
	if cause != nil {
		return cause
	}
	return err
}
