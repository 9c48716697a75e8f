// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// tellCircuit is a circuit that is driven by one worker, and what was told of it.
type tellCircuit struct {
	t    *testing.T
	c    *Circuit
	now  int64
	told []CircuitEvent
}

func newTold(t *testing.T, change func(*CircuitEvent)) *tellCircuit {
	r := &tellCircuit{t: t, now: int64(time.Hour)}
	e := CircuitEvent{Config: hystrixDefaults}
	change(&e)
	r.c = NewCircuit("c", &e.Config)
	r.c.Tell(func(e CircuitEvent) {
		r.c.Metrics(r.now) // may be asked meanwhile
		r.told = append(r.told, e)
	})
	return r
}

func (r *tellCircuit) count(o Outcome, n int) {
	for range n {
		var k Counts
		r.c.Count(&k, o, false)
		r.c.Flush(&k)
	}
	r.tick(50 * time.Millisecond)
}

func (r *tellCircuit) tick(d time.Duration) {
	r.now += int64(d)
	r.c.Tick(r.now)
}

// probe lets a request test the open circuit.
func (r *tellCircuit) probe(o Outcome) {
	r.t.Helper()
	r.tick(hystrixDefaults.SleepWindow + 1)
	token, ok := r.c.Allow(r.now)
	if !ok || !token.Probe() {
		r.t.Fatal("no probe passes")
	}
	r.c.Report(token, o, r.now)
	r.tick(50 * time.Millisecond)
}

func (r *tellCircuit) want(states string) {
	r.t.Helper()
	var got []string
	for _, e := range r.told {
		got = append(got, e.State.String())
	}
	if s := strings.Join(got, " "); s != states {
		r.t.Errorf("told: %s, want %s", s, states)
	}
}

func TestACircuitTellsWhyItOpensAndCloses(t *testing.T) {
	r := newTold(t, func(*CircuitEvent) {})
	r.count(Success, 12)
	r.count(Failure, 28)
	r.want("open")
	if e := r.told[0]; e.Requests != 40 || e.Errors != 28 || e.ErrorPercent != 70 || e.Openings != 1 || e.TestIn != hystrixDefaults.SleepWindow || e.Config.ErrorThresholdPercent != hystrixDefaults.ErrorThresholdPercent {
		t.Errorf("open: %+v", e)
	}
	for range 9 {
		r.probe(Failure)
	}
	r.want("open half-open half-open half-open half-open") // tests 1, 2, 4 and 8
	if e := r.told[4]; e.Tests != 8 || e.FailedTests != 8 {
		t.Errorf("half-open: %+v", e)
	}
	r.probe(Success)
	r.want("open half-open half-open half-open half-open closed")
	if e := r.told[5]; e.Tests != 10 || e.FailedTests != 9 || e.After < 10*hystrixDefaults.SleepWindow {
		t.Errorf("closed: %+v", e)
	}
	r.told = nil
	r.count(Failure, 30)
	r.want("open")
	if e := r.told[0]; e.Requests != 30 || e.Errors != 30 || e.Openings != 2 {
		t.Errorf("open again: %+v", e)
	}
	r.probe(Success)
	r.want("open half-open closed")
	if e := r.told[2]; e.Tests != 1 || e.FailedTests != 0 {
		t.Errorf("closed again: %+v", e)
	}
}

func TestACircuitTellsOfRoundsAndOfItsRecovery(t *testing.T) {
	r := newTold(t, func(e *CircuitEvent) { e.Config.HalfOpenCalls, e.Config.Recovery = 2, 10*time.Second })
	r.count(Failure, 30)
	round := func(o Outcome) {
		r.tick(hystrixDefaults.SleepWindow + 1)
		var tokens []Token
		for range 2 {
			token, ok := r.c.Allow(r.now)
			if !ok {
				t.Fatal("a call of the round is refused")
			}
			tokens = append(tokens, token)
		}
		for _, token := range tokens {
			r.c.Report(token, o, r.now)
		}
		r.tick(50 * time.Millisecond)
	}
	round(Failure)
	round(Success)
	r.tick(11 * time.Second)
	r.want("open half-open half-open recovering closed")
	if e := r.told[3]; e.Tests != 2 || e.FailedTests != 1 {
		t.Errorf("recovering: %+v", e)
	}
}

func TestACircuitThatIsForcedTellsSo(t *testing.T) {
	r := newTold(t, func(e *CircuitEvent) { e.Config.ForceOpen = true })
	r.tick(time.Second)
	cfg := hystrixDefaults
	r.c.Update(&cfg)
	r.tick(time.Second)
	r.tick(time.Second)
	r.want("forced-open closed")
}

func TestTheEventLogTellsOfWhatItDoesNotLog(t *testing.T) {
	var hosts []*fakeHost
	for i := range 3 {
		hosts = append(hosts, &fakeHost{name: fmt.Sprint("host", i)})
	}
	members := hosts
	var lines int
	var told []Event
	log := NewEventLog(8, func([]byte) { lines++ }, nil)
	log.Tell(func(e Event) { told = append(told, e) })
	cfg := envoyDefaults
	cfg.MaxEjectionPercent, cfg.ConsecutiveGateway, cfg.UnejectChecked = 50, 0, true
	o := NewOutlier("c", &cfg, Members{Each: func(f func(Host)) {
		for _, h := range members {
			f(h)
		}
	}, Changed: func() {}}, log, 1)
	now := int64(time.Hour)
	fail := func(h Host) {
		for range 5 {
			o.Result(h, nil, 503)
		}
		now += int64(50 * time.Millisecond)
		o.Tick(now)
	}
	actions := func() (s []string) {
		for _, e := range told {
			s = append(s, e.Action+" "+e.Upstream)
		}
		return s
	}
	fail(hosts[0])
	if list := o.Ejections(); len(list) != 1 || list[0].Host != Host(hosts[0]) || list[0].Since != now || list[0].Until != now+int64(cfg.BaseEjection) || list[0].Times != 1 || list[0].Type != Consecutive5xx {
		t.Errorf("ejections: %+v", list)
	}
	for range 10 { // is found again and again, and told of once
		fail(hosts[1])
	}
	now += int64(cfg.Interval)
	fail(hosts[1])
	if got, want := actions(), []string{"EJECT host0", "SPARE host1", "SPARE host1"}; !slices.Equal(got, want) {
		t.Fatalf("told %v, want %v", got, want)
	}
	if e := told[1]; e.MaxPercent != 50 || e.Active != 1 || e.Hosts != 3 || e.Threshold != 5 || e.Enforced || e.Time.IsZero() {
		t.Errorf("spared: %+v", e)
	}
	told, members = nil, hosts[1:]
	fail(hosts[1])
	if got, want := actions(), []string{"LEAVE host0", "EJECT host1"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	told = nil
	o.HealthCheckSucceeded(hosts[1], now)
	fail(hosts[1])
	o.Update(nil)
	if got, want := actions(), []string{"UNEJECT host1", "EJECT host1", "RELEASE host1"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if !told[0].Checked {
		t.Error("nobody says that a health check has passed")
	}
	if list := o.Ejections(); list != nil {
		t.Errorf("ejections: %+v", list)
	}
	if lines != 4 { // ejections and returns alone, as Envoy logs them
		t.Errorf("%d lines are logged", lines)
	}
}
