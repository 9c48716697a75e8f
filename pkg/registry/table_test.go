// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const lease = 10 * time.Second

// stage is a table on a virtual clock.
type stage struct {
	t     *testing.T
	table *table
	now   instant
}

func newStage(t *testing.T, g Guard, service string, instances int) *stage {
	t.Helper()
	s := &stage{t: t, table: newTable(g, 0)}
	for i := range instances {
		s.add(service, strconv.Itoa(i))
	}
	return s
}

func (s *stage) add(service, id string) {
	inst := &mesh.Instance{Service: service, ID: id}
	s.table.put(keyOf(inst), &entry{inst: inst, lease: lease, expires: s.now + lease}, s.now)
}

func (s *stage) renew(service string, ids ...int) {
	s.t.Helper()
	for _, id := range ids {
		if _, _, ok := s.table.renew(mesh.InstanceKey{Service: service, ID: strconv.Itoa(id)}, mesh.HealthUnknown, s.now); !ok {
			s.t.Fatalf("renew %d: not known", id)
		}
	}
}

// advance ticks every half second, as the registry does, and tells what changed.
func (s *stage) advance(d time.Duration) string {
	var b strings.Builder
	for end := s.now + d; s.now < end; {
		s.now += tickInterval
		for _, c := range s.table.tick(s.now, tickInterval).changes {
			switch {
			case c.PutInstance != nil && c.PutInstance.Held:
				fmt.Fprintf(&b, "%s hold %s\n", s.now, c.PutInstance.ID)
			case c.PutInstance != nil:
				fmt.Fprintf(&b, "%s put %s\n", s.now, c.PutInstance.ID)
			case c.DropService != "":
				fmt.Fprintf(&b, "%s drop %s\n", s.now, c.DropService)
			default:
				fmt.Fprintf(&b, "%s remove %s\n", s.now, c.DeleteInstance.ID)
			}
		}
	}
	return b.String()
}

func (s *stage) want(got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestALeaseEndsWhenItIsNotRenewed(t *testing.T) {
	s := newStage(t, Guard{}, "a", 4)
	s.want(s.advance(9*time.Second), "")
	s.renew("a", 0, 1, 3)
	s.want(s.advance(9*time.Second), "10s remove 2\n")
}

func TestASingleInstanceExpiresWithoutGuard(t *testing.T) {
	s := newStage(t, Guard{}, "a", 1)
	s.want(s.advance(lease), "10s remove 0\n")
}

func TestOneOfTwoExpiresAndBothAreHeld(t *testing.T) {
	s := newStage(t, Guard{}, "a", 2)
	s.advance(5 * time.Second)
	s.renew("a", 1)
	s.want(s.advance(5*time.Second), "10s remove 0\n")

	s = newStage(t, Guard{}, "a", 2)
	s.want(s.advance(lease), "10s hold 0\n10s hold 1\n")
}

func TestMostOfAServiceAtOnceIsHeldUntilItRenewsOrTheHoldEnds(t *testing.T) {
	s := newStage(t, Guard{}, "a", 5)
	s.advance(5 * time.Second)
	s.renew("a", 4)
	s.want(s.advance(5*time.Second), "10s hold 0\n10s hold 1\n10s hold 2\n10s hold 3\n")
	held := s.table.get(mesh.InstanceKey{Service: "a", ID: "0"}).inst
	if !held.Held || held.Health != mesh.HealthUnhealthy {
		t.Errorf("held: %+v", held)
	}
	_, c, _ := s.table.renew(mesh.InstanceKey{Service: "a", ID: "0"}, mesh.HealthUnknown, s.now)
	if c.PutInstance == nil || c.PutInstance.Held || c.PutInstance.Health != mesh.HealthUnknown {
		t.Errorf("renewed: %+v, want it back as it was", c.PutInstance)
	}
	out := s.table.release("a", s.now)
	if len(out.gone) != 3 {
		t.Errorf("released: got %d, want 3", len(out.gone))
	}

	s = newStage(t, Guard{HoldFor: 20 * time.Second}, "a", 3)
	s.want(s.advance(40*time.Second), "10s hold 0\n10s hold 1\n10s hold 2\n30s remove 0\n30s remove 1\n30s remove 2\n")
}

// TestAStaggeredLossIsHeldOnceItPassesHalf: one instance every second.
func TestAStaggeredLossIsHeldOnceItPassesHalf(t *testing.T) {
	s := newStage(t, Guard{}, "a", 6)
	for i := range 6 {
		s.renew("a", i)
		s.advance(time.Second)
		for j := i + 1; j < 6; j++ {
			s.renew("a", j)
		}
	}
	s.want(s.advance(lease), "10s remove 0\n11s remove 1\n12s remove 2\n13s hold 3\n14s hold 4\n15s hold 5\n")
}

func TestASlowLossIsNotHeld(t *testing.T) {
	s := newStage(t, Guard{}, "a", 4)
	var got string
	for i := range 4 { // one goes every 15 s, outside of the guard's window
		for range 3 {
			for j := i + 1; j < 4; j++ {
				s.renew("a", j)
			}
			got += s.advance(5 * time.Second)
		}
	}
	if strings.Contains(got, "hold") || strings.Count(got, "remove") != 4 {
		t.Errorf("got\n%s", got)
	}
}

func TestTimeThatTheProcessDidNotRunEndsNoLease(t *testing.T) {
	s := newStage(t, Guard{Off: true}, "a", 4)
	s.advance(5 * time.Second)
	s.now += time.Hour // stopped, and continued
	s.want(s.advance(4*time.Second), "")
	if got := s.advance(3 * time.Second); strings.Count(got, "remove") != 4 {
		t.Errorf("got %q, want all to end when their time has passed", got)
	}
}

func TestAnEmptyServiceIsForgottenAfterItsGrace(t *testing.T) {
	s := newStage(t, Guard{}, "a", 1)
	got := s.advance(emptyGrace + 20*time.Second)
	if !strings.HasSuffix(got, "drop a\n") || strings.Count(got, "\n") != 2 {
		t.Errorf("got %q", got)
	}
	if len(s.table.services) != 0 {
		t.Error("the table still knows it")
	}
}
