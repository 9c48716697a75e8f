// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// loop decides when to build. It is one goroutine with one select, the only
// one that builds, and with Config.Clock the only reader of the clock.
type loop struct {
	cp      *ControlPlane
	changes <-chan uint64
	builder *builder

	hold      time.Duration // what the next change will wait
	firstSeen time.Time     // when the oldest change that waits came; zero if none does
	holdOff   *time.Timer   // fires when nothing came for a while, or the oldest waited enough
	// keysChanged holds one when session keys have changed; nil where there are none.
	keysChanged <-chan struct{}
	endings     *time.Timer  // fires when a tap or a permissive policy ends, or former sets of labels
	sweep       *time.Ticker // looks for groups that nobody needs

	nextEnd  time.Time // when endings fires; zero: not
	ended    int64     // how often a tap or a permissive policy ended: part of what builds depend on
	problems map[string]BuildProblem
	labels   labelWatch
}

func newLoop(cp *ControlPlane, changes <-chan uint64) *loop {
	l := &loop{
		cp: cp, changes: changes, builder: newBuilder(cp.server.NewResource, cp.cfg.TrustDomain),
		hold: cp.cfg.MinHold, problems: map[string]BuildProblem{},
		holdOff: time.NewTimer(time.Hour), endings: time.NewTimer(time.Hour),
		sweep:  time.NewTicker(max(cp.cfg.GroupIdle/4, time.Second)),
		labels: newLabelWatch(cp.cfg.WarnAfter, cp.cfg.OnLabels),
	}
	l.holdOff.Stop()
	l.endings.Stop()
	return l
}

func (l *loop) stop() {
	l.holdOff.Stop()
	l.endings.Stop()
	l.sweep.Stop()
	l.labels.due.Stop()
}

func (l *loop) run(ctx context.Context) error {
	l.build(map[Group]struct{}{{Kind: KindMesh}: {}}) // every sidecar needs it
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.changes: // wait for more: changes come in crowds
			l.postpone()
		case <-l.holdOff.C: // nothing came for a while, or enough was waited
			l.build(nil)
		case <-l.cp.wake: // a client waits for a group: at once, from the model as it is
			l.build(l.cp.takeWanted())
			if len(l.builder.groups) > l.cp.cfg.MaxGroups {
				l.forgetIdle(0)
			}
		case <-l.endings.C: // a tap, a permissive policy or former sets of labels end
			l.ended++
			l.build(nil)
		case <-l.labels.due.C:
			l.labels.tell(l.cp.cfg.Clock())
		case <-l.keysChanged:
			l.build(nil)
		case <-l.sweep.C:
			l.forgetIdle(l.cp.cfg.GroupIdle)
		}
	}
}

// postpone waits a little longer with each change, but never too long.
func (l *loop) postpone() {
	now := l.cp.cfg.Clock()
	if l.firstSeen.IsZero() {
		l.firstSeen, l.hold = now, l.cp.cfg.MinHold
	} else {
		l.hold = min(2*l.hold, l.cp.cfg.MaxHold)
	}
	l.holdOff.Reset(min(l.hold, l.firstSeen.Add(l.cp.cfg.MaxDelay).Sub(now)))
}

// build brings every group to the newest model, and publishes what changed.
func (l *loop) build(wanted map[Group]struct{}) {
	start := l.cp.cfg.Clock()
	l.holdOff.Stop()
	l.firstSeen = time.Time{}
	if !l.nextEnd.IsZero() && !start.Before(l.nextEnd) {
		l.ended++ // another cause was faster than the timer
	}
	m := l.cp.cfg.Source.Model()
	l.builder.adopt(m, start)
	if k := l.cp.cfg.SessionKeys; k != nil {
		l.builder.sessionKeys = string(k.Bytes())
	}

	groups := map[Group]struct{}{}
	for g := range l.builder.groups {
		groups[g] = struct{}{}
	}
	maps.Copy(groups, wanted)
	order := slices.SortedFunc(maps.Keys(groups), func(a, b Group) int {
		// The shared group first: it has the clusters that the others route to.
		return cmp.Or(cmp.Compare(rankOf(a), rankOf(b)), cmp.Compare(a.String(), b.String()))
	})
	var problems []BuildProblem
	for _, g := range order {
		updates, bad := l.builder.build(g, start, l.ended)
		problems = append(problems, bad...)
		if len(updates) > 0 {
			l.cp.server.Publish(g.String(), updates...)
		}
	}
	news := l.compare(problems, start)
	l.awaitEnding(m, start)

	end := l.cp.cfg.Clock()
	l.cp.mu.Lock()
	s := &l.cp.status
	s.Revision, s.At, s.Took, s.Groups = m.Revision, end, end.Sub(start), len(order)
	s.Builds++
	s.Problems = slices.SortedFunc(maps.Values(l.problems), func(a, b BuildProblem) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Error(), b.Error()))
	})
	l.cp.mu.Unlock()
	l.labels.update(m, end)
	for _, n := range news { // who is told finds it in the status
		l.cp.cfg.OnProblem(n.problem, n.cleared)
	}
}

func rankOf(g Group) int {
	switch g.Kind {
	case KindMesh: // its routes name clusters of the group before it
		return 1
	case KindSecure:
		return 0
	}
	return 2
}

// problemNews is a problem that is new, or over.
type problemNews struct {
	problem BuildProblem
	cleared bool
}

// compare takes the problems of a build, and answers what is new among them and what is
// over.
func (l *loop) compare(now []BuildProblem, at time.Time) (news []problemNews) {
	before := l.problems
	l.problems = make(map[string]BuildProblem, len(now))
	for _, p := range now {
		key := p.Group + "\x00" + p.Type + "\x00" + p.Resource + "\x00" + p.Error()
		if old, known := before[key]; known {
			l.problems[key] = old
			continue
		}
		p.Since = at
		l.problems[key] = p
		news = append(news, problemNews{p, false})
	}
	for key, p := range before {
		if _, still := l.problems[key]; !still {
			news = append(news, problemNews{p, true})
		}
	}
	return news
}

// awaitEnding sets the timer to the next end of a tap or of a permissive policy.
func (l *loop) awaitEnding(m *mesh.Model, now time.Time) {
	l.endings.Stop()
	var next time.Time
	for _, t := range mesh.Ordered[*mesh.Tap](m, mesh.KindTap) {
		if end := t.ExpiresAt(); end.After(now) && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	if end := policyEnd(m, now); !end.IsZero() && (next.IsZero() || end.Before(next)) {
		next = end
	}
	if end := l.builder.former.end(); !end.IsZero() && (next.IsZero() || end.Before(next)) {
		next = end
	}
	l.nextEnd = next
	if !next.IsZero() {
		l.endings.Reset(next.Sub(now) + time.Millisecond)
	}
}

// forgetIdle drops groups that have had no clients for that long. The shared
// group stays.
func (l *loop) forgetIdle(idle time.Duration) {
	now := l.cp.cfg.Clock()
	busy := map[string]bool{}
	for _, s := range l.cp.server.Groups() {
		if s.Subscribers > 0 || now.Sub(s.IdleSince) < idle {
			busy[s.Group] = true
		}
	}
	forgotten := false
	for g := range l.builder.groups {
		if key := g.String(); g.Kind != KindMesh && !busy[key] && !l.cp.server.Drop(key) {
			delete(l.builder.groups, g)
			forgotten = true
		}
	}
	if forgotten {
		l.build(nil) // their problems are over
	}
}
