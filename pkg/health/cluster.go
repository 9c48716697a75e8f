// SPDX-License-Identifier: Apache-2.0

package health

import (
	"container/heap"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Hooks are what the checks of a cluster need to know of its traffic. None is called
// on a loop.
type Hooks struct {
	// Secure returns what a connection to the host is secured with, nil for plaintext.
	// criteria, where there are some, take the place of the host's metadata. An error
	// means that nothing can be connected to yet.
	Secure func(h *lb.Host, criteria map[string]string) (*mtls.ClientContext, error)
	// Used reports whether the cluster has ever had a connection.
	Used func() bool
	// Failed is called for a host that has just become unhealthy, after picks have
	// learnt of it.
	Failed func(h *lb.Host)
	// Bind is the source address of connections; invalid for any.
	Bind func() netip.Addr
}

// Stats are a cluster's numbers; Envoy's names are in the comments.
type Stats struct {
	Attempts        uint64 // attempt
	Successes       uint64 // success
	Failures        uint64 // failure
	Passive         uint64 // passive_failure
	Network         uint64 // network_failure
	VerifiedCluster uint64 // verify_cluster
	Late            uint64 // begun late, as too many were under way
	Healthy         int    // healthy
	Degraded        int    // degraded
}

// Cluster are the health checks of one cluster.
type Cluster struct {
	// Set once.
	checks  *Checks
	name    string
	members *lb.Cluster
	hooks   Hooks
	// Atomic: something waits for Tick.
	immediate atomic.Bool
	waiting   atomic.Bool
	began     atomic.Bool // traffic has, and hosts are checked accordingly

	// Guarded by Checks.mu.
	check     *resource.HealthCheck
	write     func(line []byte) // nil: no events
	targets   map[*lb.Host]*target
	stats     Stats
	failed    []*lb.Host // since the last view
	passed    []*lb.Host // while ejected
	publishAt time.Time  // no view before
	ended     bool
}

// Cluster makes the checks of a cluster, which begin with Update.
func (c *Checks) Cluster(name string, members *lb.Cluster, hooks Hooks) *Cluster {
	cl := &Cluster{checks: c, name: name, members: members, hooks: hooks, targets: map[*lb.Host]*target{}}
	members.Watch(cl.sync)
	return cl
}

// Update takes over settings, and the cluster's present hosts; nil ends all checks and
// takes their verdicts back. Hosts that stay keep their verdict, and connections that
// are kept stay where nothing has changed.
func (cl *Cluster) Update(h *resource.HealthCheck) {
	c := cl.checks
	var write func([]byte)
	if h != nil && h.EventLog != "" && c.config.Events != nil {
		var err error
		if write, err = c.config.Events(h.EventLog); err != nil {
			c.config.Log.Error("health checks leave no events", "cluster", cl.name, "path", h.EventLog, "error", err)
		}
	}
	c.mu.Lock()
	cl.write = write
	if !reflect.DeepEqual(cl.check, h) {
		cl.check = h
		now := time.Now()
		for _, t := range cl.targets {
			c.drop(t)
			if h != nil && t.index >= 0 && !t.running {
				t.at = now.Add(draw(h.InitialJitter, random))
				heap.Fix(&c.due, t.index)
			}
		}
	}
	cl.syncLocked()
	changed := h == nil && c.dirty[cl]
	c.mu.Unlock()
	if changed {
		cl.members.HealthChanged() // now: Close may follow
	}
}

// Close ends all checks for good. Verdicts stay on the hosts, which are of no use by
// then.
func (cl *Cluster) Close() {
	cl.members.Watch(nil)
	c := cl.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	cl.ended = true
	for _, t := range cl.targets {
		cl.remove(t)
	}
	delete(c.dirty, cl)
}

// sync brings the hosts that are checked up to date with the view.
func (cl *Cluster) sync() {
	c := cl.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	cl.syncLocked()
}

func (cl *Cluster) syncLocked() {
	c := cl.checks
	v := cl.members.View()
	if cl.ended || v == nil {
		return
	}
	now := time.Now()
	stay := make(map[*lb.Host]*target, len(v.Hosts()))
	for _, h := range v.Hosts() {
		t := cl.targets[h]
		switch {
		case !h.CheckedBy(cl.check):
			if forget(h) {
				c.dirty[cl] = true
			}
			continue
		case t == nil:
			t = &target{cluster: cl, host: h, state: State{Failed: h.Failed()}, at: now.Add(draw(cl.check.InitialJitter, random)), index: -1}
			cl.count(t, 1)
			heap.Push(&c.due, t)
		}
		stay[h] = t
	}
	for h, t := range cl.targets {
		if stay[h] == nil {
			cl.remove(t)
		}
	}
	cl.targets = stay
	c.signal()
}

// forget takes from a host what its checks have said.
func forget(h *lb.Host) (changed bool) {
	changed = h.Failed() || h.DegradedByCheck() || h.Unchecked()
	h.SetFailed(false)
	h.SetDegraded(false)
	h.SetTimedOut(false)
	h.SetChecked()
	h.TakeFailNow()
	return changed
}

// remove ends the checks of a host. Under Checks.mu.
func (cl *Cluster) remove(t *target) {
	t.gone = true
	cl.count(t, -1)
	cl.checks.drop(t)
	if t.index >= 0 {
		heap.Remove(&cl.checks.due, t.index)
	}
	if t.cancel != nil {
		t.cancel()
	}
}

// count adds a host to the gauges, or takes it away. Under Checks.mu.
func (cl *Cluster) count(t *target, n int) {
	if !t.state.Failed {
		cl.stats.Healthy += n
	}
	if t.state.Degraded {
		cl.stats.Degraded += n
	}
}

// take applies a result to its host, which is neither in the queue nor gone. Under
// Checks.mu.
func (cl *Cluster) take(t *target, r *Result, now time.Time) *Event {
	e := cl.apply(t, r, now)
	used := cl.hooks.Used == nil || cl.hooks.Used()
	c := Change{}
	if e != nil {
		c = e.Change
	}
	wait := Wait(cl.check, r.Outcome, c, used, random)
	if r.Outcome == Unknown {
		wait = min(wait, unknownWait)
	}
	t.at = now.Add(wait)
	return e
}

// unknownWait is how soon a check is repeated that said nothing of the host.
const unknownWait = time.Second

// apply changes the host's state; nil where the result says nothing of it.
func (cl *Cluster) apply(t *target, r *Result, now time.Time) *Event {
	if r.Outcome == Unknown {
		t.reason = r.Reason
		return nil
	}
	s, h := &cl.stats, t.host
	cl.count(t, -1)
	change := t.state.Apply(cl.check, r)
	cl.count(t, 1)
	t.last, t.reason = now, r.Reason
	switch {
	case r.Outcome.passed():
		s.Successes++
	case r.Outcome.network():
		s.Network++
	case r.Outcome == Passive:
		s.Passive++
	}
	if !r.Outcome.passed() {
		s.Failures++
	}
	if cl.check.ServiceName != nil && cl.check.Kind == resource.CheckHTTP && r.verified {
		s.VerifiedCluster++
	}
	h.SetFailed(t.state.Failed)
	h.SetDegraded(t.state.Degraded)
	h.SetTimedOut(t.state.Failed && r.Outcome == TimedOut)
	if change.First {
		h.SetChecked()
	}
	if change.First || change.Health || change.Degraded {
		cl.checks.dirty[cl] = true
	}
	if change.Health && t.state.Failed && cl.hooks.Failed != nil {
		cl.failed = append(cl.failed, h)
	}
	if r.Outcome.passed() && !t.state.Failed && cl.check.Uneject && h.Ejected() && len(cl.passed) < len(cl.targets) {
		cl.passed = append(cl.passed, h)
		cl.waiting.Store(true)
	}
	return &Event{Cluster: cl.name, Kind: cl.check.Kind, Host: h, Change: change, Result: *r, Failed: t.state.Failed, Time: now, write: cl.write, check: cl.check}
}

// publish makes picks see the verdicts. What a view costs to make decides how soon the
// next one is made: hosts of a large cluster that change one by one share views.
func (cl *Cluster) publish() {
	begun := time.Now()
	cl.members.HealthChanged()
	now := time.Now()
	c := cl.checks
	c.mu.Lock()
	cl.publishAt = now.Add(4 * now.Sub(begun))
	failed := cl.failed
	cl.failed = nil
	c.mu.Unlock()
	for _, h := range failed {
		cl.hooks.Failed(h)
	}
}

// FailNow is for loops: a response of the host has said that its health checks are to
// fail. Tick takes notice.
func (cl *Cluster) FailNow(h *lb.Host) {
	if h.FailNow() {
		cl.immediate.Store(true)
	}
}

// Tick takes notice of what loops have said, and hands on the hosts that have passed
// a check while they were ejected. With the first traffic it moves up the checks that
// were to wait for the long intervals of a cluster without. It costs next to nothing
// while there is nothing to do.
func (cl *Cluster) Tick(uneject func(*lb.Host)) {
	if !cl.began.Load() && (cl.hooks.Used == nil || cl.hooks.Used()) {
		cl.began.Store(true)
		cl.hurry()
	}
	if cl.immediate.Swap(false) {
		cl.failPassively()
	}
	if !cl.waiting.Swap(false) {
		return
	}
	c := cl.checks
	c.mu.Lock()
	passed := cl.passed
	cl.passed = nil
	c.mu.Unlock()
	for _, h := range passed {
		if !h.Failed() {
			uneject(h)
		}
	}
}

// hurry spreads the next checks over an interval from now.
func (cl *Cluster) hurry() {
	c := cl.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, t := range cl.targets {
		if cl.check == nil || t.index < 0 {
			continue
		}
		if at := now.Add(draw(cl.check.Interval, random)); at.Before(t.at) {
			t.at = at
			heap.Fix(&c.due, t.index)
		}
	}
	c.signal()
}

func (cl *Cluster) failPassively() {
	c := cl.checks
	c.mu.Lock()
	var events []*Event
	for h, t := range cl.targets {
		if cl.check != nil && h.TakeFailNow() {
			events = append(events, cl.apply(t, &Result{Outcome: Passive, Reason: "a response to traffic had x-envoy-immediate-health-check-fail"}, time.Now()))
		}
	}
	c.mu.Unlock()
	for _, e := range events {
		cl.log(e)
	}
	c.signal()
}

// Stats reads the numbers.
func (cl *Cluster) Stats() Stats {
	cl.checks.mu.Lock()
	defer cl.checks.mu.Unlock()
	return cl.stats
}

// Explain says in words what the checks of a host have come to; "" for nothing.
func (cl *Cluster) Explain(h *lb.Host) string {
	cl.checks.mu.Lock()
	defer cl.checks.mu.Unlock()
	t := cl.targets[h]
	switch {
	case t == nil && cl.check != nil && h.Check() != nil && h.Check().Disabled:
		return "not health checked, as the endpoint says"
	case t == nil:
		return ""
	case !t.state.Checked && t.reason != "":
		return "not health checked yet: " + t.reason
	case !t.state.Checked:
		return "not health checked yet"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "health check %s ago: ", time.Since(t.last).Round(time.Millisecond))
	if t.reason == "" {
		b.WriteString("passed")
	} else {
		b.WriteString(t.reason)
	}
	switch s := &t.state; {
	case s.failures > 0:
		fmt.Fprintf(&b, " (%d of %d failures in a row)", s.failures, cl.check.UnhealthyThreshold)
	case s.successes > 0:
		fmt.Fprintf(&b, " (%d of %d successes in a row)", s.successes, cl.check.HealthyThreshold)
	}
	return b.String()
}
