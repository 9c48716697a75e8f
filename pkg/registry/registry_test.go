// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal counts commits; gate, when set, makes each wait; fail fails the next.
type journal struct {
	revision atomic.Uint64
	gate     chan struct{}
	entered  chan int // number of writes of each commit, before it waits

	mu      sync.Mutex
	commits int
	writes  int
	fail    error
}

func (j *journal) NextRevision() uint64 { return j.revision.Add(1) }

func (j *journal) CommitInstances(w []Write) error {
	if j.entered != nil {
		j.entered <- len(w)
	}
	if j.gate != nil {
		<-j.gate
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fail != nil {
		return j.fail
	}
	j.commits++
	j.writes += len(w)
	return nil
}

// models follows what is published.
type models struct {
	m atomic.Pointer[mesh.Model]
}

func (m *models) publish(c []mesh.Change) { m.m.Store(m.m.Load().Apply(c...)) }

func start(t *testing.T, j *journal, c Config) (*Registry, *models) {
	t.Helper()
	m := &models{}
	m.m.Store(mesh.Empty())
	c.Journal, c.Publish = j, m.publish
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, m
}

func inst(service, id string) mesh.Instance {
	return mesh.Instance{Service: service, ID: id, Address: "10.0.0.1", Port: 80}
}

func TestAWriterSeesItsOwnWrite(t *testing.T) {
	r, m := start(t, &journal{}, Config{})
	ctx := t.Context()
	revision, created, err := r.Register(ctx, inst("a", "1"), 0, Match{})
	if err != nil || !created || revision != 1 {
		t.Fatalf("got %d %v %v", revision, created, err)
	}
	if got := m.m.Load().Instance(mesh.InstanceKey{Service: "a", ID: "1"}); got == nil || got.Revision != 1 {
		t.Errorf("published: %+v", got)
	}
	if _, created, err = r.Register(ctx, inst("a", "1"), 0, Match{}); created || err != nil {
		t.Errorf("again: created %v, %v", created, err)
	}
	if err := r.SetHealth(ctx, mesh.InstanceKey{Service: "a", ID: "1"}, mesh.HealthDraining); err != nil {
		t.Fatal(err)
	}
	if got := m.m.Load().Instances["a"][0].Health; got != mesh.HealthDraining {
		t.Errorf("health: got %s, want draining", got)
	}
	if _, err := r.Deregister(ctx, mesh.InstanceKey{Service: "a", ID: "1"}, Match{}); err != nil {
		t.Fatal(err)
	}
	if got := m.m.Load().Instances["a"]; got != nil {
		t.Errorf("after deregistering: %+v", got)
	}
}

func TestConditionsOnTheRevisionAreKept(t *testing.T) {
	r, _ := start(t, &journal{}, Config{})
	ctx := t.Context()
	k := mesh.InstanceKey{Service: "a", ID: "1"}
	var re *RevisionError
	if _, _, err := r.Register(ctx, inst("a", "1"), 0, Match{Exists: true}); !errors.As(err, &re) {
		t.Errorf("If-Match * of nothing: %v", err)
	}
	if _, _, err := r.Register(ctx, inst("a", "1"), 0, Match{Absent: true}); err != nil {
		t.Error(err)
	}
	if _, _, err := r.Register(ctx, inst("a", "1"), 0, Match{Absent: true}); !errors.As(err, &re) || re.Current != 1 {
		t.Errorf("If-None-Match * of something: %v", err)
	}
	if _, err := r.Deregister(ctx, k, Match{Revision: 7}); !errors.As(err, &re) || re.Current != 1 {
		t.Errorf("wrong revision: %v", err)
	}
	if _, err := r.Deregister(ctx, k, Match{Revision: 1}); err != nil {
		t.Error(err)
	}
	if _, err := r.Deregister(ctx, k, Match{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
}

func TestAnInstanceKeepsItsIdentityFromOthers(t *testing.T) {
	r, _ := start(t, &journal{}, Config{})
	ctx := t.Context()
	secure := inst("a", "1")
	secure.MutualTLS = true
	for _, c := range []struct {
		i    mesh.Instance
		m    Match
		want error
	}{
		{secure, Match{}, nil},
		{inst("a", "1"), Match{KeepIdentity: true}, ErrIdentity},
		{secure, Match{KeepIdentity: true}, nil},
		{inst("a", "2"), Match{KeepIdentity: true}, nil},
		{inst("a", "1"), Match{}, nil}, // it says so itself
		{inst("a", "1"), Match{KeepIdentity: true}, nil},
	} {
		if _, _, err := r.Register(ctx, c.i, 0, c.m); !errors.Is(err, c.want) {
			t.Errorf("%s, mutual TLS %v, %+v: got %v, want %v", c.i.ID, c.i.MutualTLS, c.m, err, c.want)
		}
	}
}

func TestRegistrationsThatWaitShareOneCommitAndHeartbeatsNeedNone(t *testing.T) {
	j := &journal{gate: make(chan struct{}), entered: make(chan int, 16)}
	r, m := start(t, j, Config{})
	ctx := t.Context()
	const waiting = 500
	var wg sync.WaitGroup
	register := func(i int) {
		wg.Go(func() {
			if _, _, err := r.Register(ctx, inst("a", fmt.Sprint(i)), 0, Match{}); err != nil {
				t.Error(err)
			}
		})
	}
	register(0)
	<-j.entered // the first is being written
	for i := range waiting {
		register(i + 1)
	}
	for deadline := time.Now().Add(10 * time.Second); len(r.ops) < waiting; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d requests wait in the queue", len(r.ops), waiting)
		}
	}
	close(j.gate)
	wg.Wait()
	if j.commits != 2 || j.writes != waiting+1 {
		t.Errorf("commits: got %d with %d writes, want 2 with %d", j.commits, j.writes, waiting+1)
	}
	before := j.commits
	for i := range 1000 {
		if _, err := r.Renew(ctx, mesh.InstanceKey{Service: "a", ID: fmt.Sprint(i % waiting)}, mesh.HealthUnknown); err != nil {
			t.Fatal(err)
		}
	}
	if j.commits != before {
		t.Errorf("heartbeats made %d commits", j.commits-before)
	}
	if got := len(m.m.Load().Instances["a"]); got != waiting+1 {
		t.Errorf("instances: got %d, want %d", got, waiting+1)
	}
}

func TestWhatIsNotStoredIsNotPublished(t *testing.T) {
	j := &journal{}
	r, m := start(t, j, Config{})
	ctx := t.Context()
	if _, _, err := r.Register(ctx, inst("a", "1"), 0, Match{}); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	j.mu.Lock()
	j.fail = full
	j.mu.Unlock()
	changed := inst("a", "1")
	changed.Port = 81
	if _, _, err := r.Register(ctx, changed, 0, Match{}); !errors.Is(err, full) {
		t.Errorf("change: %v", err)
	}
	if _, _, err := r.Register(ctx, inst("a", "2"), 0, Match{}); !errors.Is(err, full) {
		t.Errorf("new: %v", err)
	}
	if _, err := r.Deregister(ctx, mesh.InstanceKey{Service: "a", ID: "1"}, Match{}); !errors.Is(err, full) {
		t.Errorf("deregister: %v", err)
	}
	if _, err := r.Renew(ctx, mesh.InstanceKey{Service: "a", ID: "1"}, mesh.HealthHealthy); err != nil {
		t.Errorf("heartbeats go on: %v", err)
	}
	list := m.m.Load().Instances["a"]
	if len(list) != 1 || list[0].Port != 80 || list[0].Health != mesh.HealthHealthy {
		t.Errorf("published: %+v", list)
	}
	j.mu.Lock()
	j.fail = nil
	j.mu.Unlock()
	if _, _, err := r.Register(ctx, changed, 0, Match{Revision: 1}); err != nil {
		t.Errorf("after the disk is back, on the old revision: %v", err)
	}
}

func TestTheRegistryIsBounded(t *testing.T) {
	r, _ := start(t, &journal{}, Config{MaxInstances: 1})
	ctx := t.Context()
	if _, _, err := r.Register(ctx, inst("a", "1"), 0, Match{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Register(ctx, inst("a", "2"), 0, Match{}); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	if _, _, err := r.Register(ctx, inst("a", "1"), 0, Match{}); err != nil {
		t.Errorf("the same again: %v", err)
	}
}

func TestARegistrationWithWrongFieldsNamesThemAll(t *testing.T) {
	r, _ := start(t, &journal{}, Config{})
	bad := mesh.Instance{Service: "A", ID: "x y", Address: "169.254.169.254", Protocol: "smtp", Weight: 1 << 20, Zone: "a\nb"}
	_, _, err := r.Register(t.Context(), bad, 2*time.Hour, Match{})
	var list mesh.Errors
	if !errors.As(err, &list) {
		t.Fatalf("got %v", err)
	}
	want := []string{"service", "id", "address", "port", "protocol", "weight", "zone", "leaseSeconds"}
	for i, e := range list {
		if i >= len(want) || e.Path != want[i] {
			t.Errorf("field %d: got %s", i, e)
		}
	}
	if len(list) != len(want) {
		t.Errorf("got %d faults, want %d", len(list), len(want))
	}
}

func TestLoadedInstancesGetANewLeaseAndAreKnown(t *testing.T) {
	i := inst("a", "1")
	i.Revision = 9
	r, m := start(t, &journal{}, Config{Loaded: []Write{{Put: &i, Lease: 5 * time.Second}}})
	if m.m.Load().Instance(mesh.InstanceKey{Service: "a", ID: "1"}) == nil {
		t.Fatal("not published")
	}
	lease, err := r.Renew(t.Context(), mesh.InstanceKey{Service: "a", ID: "1"}, mesh.HealthUnknown)
	if err != nil || lease != 5*time.Second {
		t.Errorf("renew: %s %v", lease, err)
	}
}

func TestACloseAnswersWhoWaits(t *testing.T) {
	r, _ := start(t, &journal{}, Config{})
	r.Close()
	if _, err := r.Renew(context.Background(), mesh.InstanceKey{Service: "a", ID: "1"}, mesh.HealthUnknown); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}
