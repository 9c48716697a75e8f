// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// newEventRig is a proxy with one worker and a log of events.
func newEventRig(t *testing.T, filters *filter.Registry, edit func(*resource.Snapshot)) (*rig, *event.Log) {
	log := event.NewLog(0, nil)
	return newRigOf(t, Options{Workers: 1, DrainTime: 200 * time.Millisecond, Filters: filters, Events: log}, edit), log
}

// told waits for the next event of a kind after the last, and checks its type and numbers.
func (r *rig) told(l *event.Log, after uint64, kind, typ string, numbers map[string]float64) event.Event {
	r.t.Helper()
	var e event.Event
	eventually(r.t, kind+" "+typ, func() bool {
		list, _, _ := l.After(after, event.Filter{Kinds: []string{kind}}, 100)
		i := slices.IndexFunc(list, func(e event.Event) bool { return e.Type == typ })
		if i >= 0 {
			e = list[i]
		}
		return i >= 0
	})
	for name, want := range numbers {
		if got, ok := e.Numbers.Get(name); !ok || got != want {
			r.t.Errorf("%s %s: %s is %v, want %v, of %v", kind, typ, name, got, want, e.Numbers)
		}
	}
	return e
}

// change applies another cluster "c".
func (r *rig) change(edit func(*resource.Cluster)) {
	c := *r.snap.Clusters["c"]
	edit(&c)
	r.snap.Clusters["c"] = &c
	r.apply(r.snap)
}

func ejecting(c *resource.Cluster, most uint32) {
	c.Outlier = &resource.OutlierDetection{
		Consecutive5xx: 3, Enforcing5xx: 100, ConsecutiveGateway: 3, Interval: time.Hour, BaseEjection: time.Hour, MaxEjection: time.Hour, MaxEjectionPercent: most,
	}
}

func TestAnEjectionIsToldWithItsNumbers(t *testing.T) {
	var broken atomic.Bool
	bad := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(503)
		}
	})
	good := backend(t, func(http.ResponseWriter, *http.Request) {})
	r, log := newEventRig(t, nil, func(s *resource.Snapshot) {
		c := withCluster(s, "c", bad, good)
		ejecting(c, 50)
		c.LB.HasPanic, c.LB.PanicThreshold = true, 60
	})
	broken.Store(true)
	for log.Last() == 0 {
		r.get("/")
	}
	e := r.told(log, 0, event.KindEjection, event.Ejected, map[string]float64{
		"failuresInARow": 3, "threshold": 3, "ejectedEndpoints": 1, "endpoints": 2, "ejectedPercent": 50, "maxEjectionPercent": 50, "ejections": 1, "ejectedForMillis": 3600e3,
	})
	if e.Cluster != "c" || e.Endpoint != bad || e.Name != "CONSECUTIVE_5XX" || e.Message != "3 server errors in a row, and the threshold is 3" || e.Until.Sub(e.Time) != time.Hour {
		t.Errorf("%+v", e)
	}
	x := r.p.EjectedNow()
	if len(x) != 1 || x[0].Endpoint != bad || x[0].Cluster != "c" || x[0].Detector != "CONSECUTIVE_5XX" || x[0].Until.Sub(x[0].Since) != time.Hour || x[0].Since.Sub(e.Time).Abs() > time.Second {
		t.Errorf("ejected now: %+v, the event is of %v", x, e.Time)
	}
	if list, _, _ := log.After(0, event.Filter{Kinds: []string{event.KindEjection}}, 10); len(list) != 1 {
		t.Errorf("what is never enforced is told, too: %+v", list)
	}
	r.told(log, 0, event.KindPanic, event.Entered, map[string]float64{"healthy": 1, "endpoints": 2, "healthyPercent": 50, "healthyPanicThreshold": 60, "priority": 0})

	last := log.Last()
	r.change(func(c *resource.Cluster) { c.Outlier = nil })
	r.told(log, last, event.KindEjection, event.Returned, nil)
	r.told(log, last, event.KindPanic, event.Left, map[string]float64{"healthy": 2, "healthyPercent": 100})
	if x := r.p.EjectedNow(); len(x) != 0 {
		t.Errorf("ejected now: %+v", x)
	}
}

// The first endpoints of a mesh that starts are unhealthy until their sidecars have looked.
func TestPanicOfAClusterThatWasNeverHealthyIsNoNews(t *testing.T) {
	r, log := newEventRig(t, nil, func(s *resource.Snapshot) {
		withCluster(s, "c", freeAddr(t), freeAddr(t))
		withCluster(s, "d", freeAddr(t))
		list := s.Assignments["c"].Localities[0].Endpoints
		for i := range list {
			list[i].Health = resource.Unhealthy
		}
	})
	health := func(cluster string, h resource.HealthStatus) {
		a := *r.snap.Assignments[cluster]
		a.Localities = slices.Clone(a.Localities)
		list := slices.Clone(a.Localities[0].Endpoints)
		for i := range list {
			list[i].Health = h
		}
		a.Localities[0].Endpoints = list
		r.snap.Assignments[cluster] = &a
		r.apply(r.snap)
	}
	told := func(cluster string) bool {
		list, _, _ := log.After(0, event.Filter{Kinds: []string{event.KindPanic}}, 1000)
		return slices.ContainsFunc(list, func(e event.Event) bool { return e.Cluster == cluster && e.Type == event.Entered })
	}
	// The tick has to see a cluster healthy, and nothing says that it has.
	falls := func(cluster string, endpoints int) {
		t.Helper()
		r.until(cluster+" enters panic", func() bool {
			health(cluster, resource.Healthy)
			r.healthy(cluster, endpoints)
			health(cluster, resource.Unhealthy)
			r.healthy(cluster, 0)
			return told(cluster)
		})
	}
	falls("d", 1)
	if told("c") {
		t.Error("the panic of a cluster that was never healthy is told")
	}
	falls("c", 2)
}

func TestAnEndpointThatIsSparedIsToldWithTheCap(t *testing.T) {
	bad := backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	r, log := newEventRig(t, nil, func(s *resource.Snapshot) { ejecting(withCluster(s, "c", bad), 10) })
	for log.Last() == 0 {
		r.get("/")
	}
	e := r.told(log, 0, event.KindEjection, event.Spared, map[string]float64{"failuresInARow": 3, "ejectedEndpoints": 0, "endpoints": 1, "maxEjectionPercent": 10})
	if want := "3 server errors in a row, and the threshold is 3; not ejected: one more than 0 of 1 endpoints would be more than 10 %"; e.Message != want || !e.Until.IsZero() {
		t.Errorf("%+v", e)
	}
}

func TestACircuitIsToldWithItsNumbers(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	b := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(500)
		}
	})
	r, log := newEventRig(t, nil, func(s *resource.Snapshot) {
		withCluster(s, "c", b).Breaker = circuitOf(func(c *resource.CircuitBreaker) { c.SleepWindow = 20 * time.Millisecond })
	})
	for range 4 {
		r.get("/")
	}
	e := r.told(log, 0, event.KindCircuit, event.Opened, map[string]float64{
		"requests": 4, "errors": 4, "errorPercent": 100, "errorThresholdPercent": 50, "requestVolumeThreshold": 4, "windowMillis": 10e3, "openings": 1,
	})
	if e.Cluster != "c" || e.Message != "4 of 4 requests failed, 100 %, and the threshold is 50 %" {
		t.Errorf("%+v", e)
	}
	broken.Store(false)
	eventually(t, "the circuit closes", func() bool { resp, _ := r.get("/"); return resp.StatusCode == 200 })
	r.told(log, e.ID, event.KindCircuit, event.HalfOpen, nil)
	closed := r.told(log, e.ID, event.KindCircuit, event.Closed, nil)
	if n, _ := closed.Numbers.Get("tests"); n < 1 {
		t.Errorf("closed without a test: %+v", closed)
	}

	r.change(func(c *resource.Cluster) {
		c.Breaker = circuitOf(func(b *resource.CircuitBreaker) { b.ForceOpen = true })
	})
	r.told(log, closed.ID, event.KindCircuit, event.Opened, nil)
	last := log.Last()
	r.change(func(c *resource.Cluster) { c.Breaker = nil })
	r.told(log, last, event.KindCircuit, event.Closed, nil)
}

func TestAPanicIsToldWithItsPlace(t *testing.T) {
	b := backend(t, func(http.ResponseWriter, *http.Request) {})
	reg := filter.NewRegistry(filter.Spec{
		Name: "panicky", TypeURL: "panicky",
		Parse: func([]byte) (any, error) { return nil, nil },
		New:   func(any, filter.Worker) filter.Filter { return panicky{} },
	})
	r, log := newEventRig(t, reg, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "p", TypeURL: "panicky"}}
	})
	q, err := http.NewRequest(http.MethodGet, "http://"+r.addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("x-panic", "request")
	if resp, err := r.client().Do(q); err == nil {
		t.Fatalf("answered: %v", resp.Status)
	}
	e := r.told(log, 0, event.KindCallback, event.Panicked, map[string]float64{"worker": 0})
	if n, _ := e.Numbers.Get("panics"); n < 1 || !strings.HasSuffix(e.Name, "proxy.panicky.at") || e.Message != "asked to: request: the connection was closed" {
		t.Errorf("%+v", e)
	}
}

func TestChangesOfHealthAreTold(t *testing.T) {
	a := newSick(t)
	r, log := newEventRig(t, nil, func(s *resource.Snapshot) { withCluster(s, "c", a.addr).Health = checkedOften() })
	r.healthy("c", 1)
	if list, _, _ := log.After(0, event.Filter{Kinds: []string{event.KindHealth}}, 10); len(list) != 0 {
		t.Errorf("that a first check has passed is told: %+v", list)
	}
	a.status.Store(503)
	e := r.told(log, 0, event.KindHealth, event.Failed, map[string]float64{"status": 503, "healthyThreshold": 1, "unhealthyThreshold": 1})
	if e.Endpoint != a.addr || e.Name != "HTTP" || e.Message != "status 503" {
		t.Errorf("%+v", e)
	}
	a.status.Store(200)
	r.told(log, e.ID, event.KindHealth, event.Passed, nil)
}

func TestADrainIsTold(t *testing.T) {
	b := backend(t, func(http.ResponseWriter, *http.Request) {})
	r, log := newEventRig(t, nil, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	if err := r.p.Drain(context.Background(), DrainOutbound); err != nil {
		t.Fatal(err)
	}
	if e := r.told(log, 0, event.KindDrain, event.Began, nil); e.Name != "outbound" {
		t.Errorf("%+v", e)
	}
	r.told(log, 0, event.KindDrain, event.Ended, map[string]float64{"connections": 0})
}

func TestActionsAgainstPressureAreTold(t *testing.T) {
	log := event.NewLog(0, nil)
	r := newLoadRig(t, []resource.OverloadAction{act(resource.ActionStopAcceptingRequests, 0.5, 0.9)}, nil)
	r.p.options.Events = log
	r.press(0.7)
	r.press(0.8) // goes on
	r.press(0.1)
	list, _, _ := log.After(0, event.Filter{}, 10)
	if len(list) != 2 || list[0].Type != event.Began || list[1].Type != event.Ended || list[0].Name != "stop_accepting_requests" {
		t.Fatalf("%+v", list)
	}
	if n, _ := list[0].Numbers.Get("file.pressurePercent"); n != 70 {
		t.Errorf("%+v", list[0])
	}
	if n, _ := list[0].Numbers.Get("scalePercent"); n != 50 {
		t.Errorf("%+v", list[0])
	}
}
