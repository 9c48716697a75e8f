// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// kept is a journal that remembers instances, as a store does.
type kept struct {
	journal
	mu   sync.Mutex
	last map[mesh.InstanceKey]Write
}

func (j *kept) CommitInstances(w []Write) error {
	if err := j.journal.CommitInstances(w); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, x := range w {
		if x.Put != nil {
			j.last[keyOf(x.Put)] = x
		}
	}
	return nil
}

func (j *kept) health(k mesh.InstanceKey) mesh.Health {
	j.mu.Lock()
	defer j.mu.Unlock()
	if w := j.last[k]; w.Put != nil && !w.Put.Held && w.Lease == DefaultLease {
		return w.Put.Health
	}
	return mesh.HealthUnknown
}

func TestHealthIsStoredWithTheAnswer(t *testing.T) {
	j := &kept{last: map[mesh.InstanceKey]Write{}}
	m := startKept(t, j)
	ctx, k := t.Context(), mesh.InstanceKey{Service: "a", ID: "1"}
	if _, _, err := m.Register(ctx, inst("a", "1"), 0, Match{}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		do   func() error
		want mesh.Health
	}{
		{"taken out", func() error { return m.SetHealth(ctx, k, mesh.HealthUnhealthy) }, mesh.HealthUnhealthy},
		{"a heartbeat without a word", func() error { _, err := m.Renew(ctx, k, mesh.HealthUnknown); return err }, mesh.HealthUnhealthy},
		{"a heartbeat that brings it back", func() error { _, err := m.Renew(ctx, k, mesh.HealthHealthy); return err }, mesh.HealthHealthy},
	} {
		if err := step.do(); err != nil || j.health(k) != step.want {
			t.Errorf("%s: stored %s, %v, want %s", step.what, j.health(k), err, step.want)
		}
	}
	j.journal.mu.Lock()
	before := j.commits
	j.journal.mu.Unlock()
	for range 100 {
		if _, err := m.Renew(ctx, k, mesh.HealthHealthy); err != nil {
			t.Fatal(err)
		}
	}
	j.journal.mu.Lock()
	defer j.journal.mu.Unlock()
	if j.commits != before {
		t.Errorf("the same health made %d commits", j.commits-before)
	}
}

func TestHealthThatCannotBeStoredHoldsAndIsStoredLater(t *testing.T) {
	j := &kept{last: map[mesh.InstanceKey]Write{}}
	m := startKept(t, j)
	ctx, k := t.Context(), mesh.InstanceKey{Service: "a", ID: "1"}
	if _, _, err := m.Register(ctx, inst("a", "1"), 0, Match{}); err != nil {
		t.Fatal(err)
	}
	full := func(err error) {
		j.journal.mu.Lock()
		defer j.journal.mu.Unlock()
		j.fail = err
	}
	full(errors.New("disk full"))
	if err := m.SetHealth(ctx, k, mesh.HealthDraining); err != nil || j.health(k) != mesh.HealthUnknown {
		t.Errorf("on a full disk: %v, stored %s", err, j.health(k))
	}
	full(nil)
	for deadline := time.Now().Add(20 * time.Second); j.health(k) != mesh.HealthDraining; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("stored %s, want draining", j.health(k))
		}
	}
}

// Heartbeats of a registry on a full disk do not write anew what waits for the next tick.
func TestHeartbeatsDoNotStoreWhatWaits(t *testing.T) {
	j := &kept{last: map[mesh.InstanceKey]Write{}}
	j.entered = make(chan int, 10000)
	m := startKept(t, j)
	ctx := t.Context()
	for _, id := range []string{"1", "2", "3"} {
		if _, _, err := m.Register(ctx, inst("a", id), 0, Match{}); err != nil {
			t.Fatal(err)
		}
	}
	j.journal.mu.Lock()
	j.fail = errors.New("disk full")
	j.journal.mu.Unlock()
	for _, id := range []string{"1", "2"} {
		if err := m.SetHealth(ctx, mesh.InstanceKey{Service: "a", ID: id}, mesh.HealthUnhealthy); err != nil {
			t.Fatal(err)
		}
	}
	const beats = 1000
	before := time.Now()
	for range beats {
		if _, err := m.Renew(ctx, mesh.InstanceKey{Service: "a", ID: "3"}, mesh.HealthUnknown); err != nil {
			t.Fatal(err)
		}
	}
	// Three registrations, two changes, and the ticks.
	if n, most := len(j.entered), 5+2+int(time.Since(before)/tickInterval); n > most {
		t.Errorf("the journal was asked %d times in %d heartbeats, want at most %d", n, beats, most)
	}
}

func startKept(t *testing.T, j *kept) *Registry {
	t.Helper()
	r, err := New(Config{Journal: j, Publish: func([]mesh.Change) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}
