// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/fault"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// faultRig is a simulated proxy with the filter, and what its filters have counted.
type faultRig struct {
	*simRig
	spec  filter.Spec
	heads *int // requests that came upstream
}

func newFaultRig(t testing.TB, f *resource.Fault, edit func(*resource.Snapshot)) *faultRig {
	r := &faultRig{spec: fault.Spec()}
	r.simRig = newSimWith(t, filter.NewRegistry(r.spec), 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
		m := s.Listeners["l"].FilterChains[0].HTTP
		m.Filters = append(m.Filters, resource.HTTPFilter{Name: r.spec.Name, TypeURL: r.spec.TypeURL, Config: f})
		if edit != nil {
			edit(s)
		}
	})
	r.heads = r.echo(plainAnswer)
	return r
}

func (r *faultRig) counted() string {
	var list []string
	for _, c := range r.spec.Counts(0, nil) {
		if c.Value > 0 {
			list = append(list, fmt.Sprintf("%s=%d", c.Name, c.Value))
		}
	}
	return strings.Join(list, " ")
}

// request sends one on a connection of its own.
func (r *faultRig) request(fields ...string) *sim.Peer {
	p := r.dial()
	p.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"))
	return p
}

// answer waits for the answer's head and returns its status line and how long it took.
func (r *faultRig) answer(p *sim.Peer) (string, time.Duration) {
	r.t.Helper()
	start := r.world.Now()
	r.until("the answer", 10*time.Minute, func() bool { return bytes.Contains(p.Received, []byte("\r\n\r\n")) })
	line, _, _ := strings.Cut(string(p.Received), "\r\n")
	return line, r.world.Now() - start
}

func always(key string) resource.Percent {
	return resource.Percent{RuntimeKey: key, PerMillion: 1_000_000, Denominator: 100}
}

func delayOf(d time.Duration) *resource.FaultDelay {
	return &resource.FaultDelay{Percent: always("delay"), Fixed: d, DurationKey: "delay.ms"}
}

func abortWith(status int) *resource.FaultAbort {
	return &resource.FaultAbort{Percent: always("abort"), HTTP: status, HTTPKey: "abort.status", GRPCKey: "abort.grpc", Body: []byte("fault filter abort")}
}

func TestFaultsAreInjectedWhereTheyAreMeant(t *testing.T) {
	const slow = 300 * time.Millisecond
	byHeader := &resource.Fault{
		Delay:     &resource.FaultDelay{Percent: always("delay"), DurationKey: "delay.ms", ByHeader: true},
		Abort:     &resource.FaultAbort{Percent: always("abort"), ByHeader: true, HTTPKey: "abort.status", GRPCKey: "abort.grpc", Body: []byte("asked for")},
		MaxActive: -1,
	}
	header := []resource.HeaderMatch{{Name: "x-try", Kind: resource.HeaderPresent, Present: true}}
	for _, c := range []struct {
		name    string
		fault   *resource.Fault
		runtime map[string]float64
		fields  []string
		status  string
		delay   time.Duration
		body    string
		counted string
	}{
		{name: "a delay", fault: &resource.Fault{Delay: delayOf(slow), MaxActive: -1}, status: "200 OK", delay: slow, counted: "delays_injected=1"},
		{name: "an abort", fault: &resource.Fault{Abort: abortWith(418), MaxActive: -1}, status: "418", body: "fault filter abort", counted: "aborts_injected=1"},
		{name: "both", fault: &resource.Fault{Delay: delayOf(slow), Abort: abortWith(500), MaxActive: -1}, status: "500", delay: slow, counted: "delays_injected=1 aborts_injected=1"},
		{name: "none of them", fault: &resource.Fault{MaxActive: -1}, status: "200 OK"},
		{name: "for none", fault: &resource.Fault{Abort: abortWith(500), MaxActive: -1}, runtime: map[string]float64{"abort": 0}, status: "200 OK"},
		{name: "another status by runtime", fault: &resource.Fault{Abort: abortWith(500), MaxActive: -1}, runtime: map[string]float64{"abort.status": 404}, status: "404", body: "fault filter abort", counted: "aborts_injected=1"},
		{name: "another delay by runtime", fault: &resource.Fault{Delay: delayOf(time.Minute), MaxActive: -1}, runtime: map[string]float64{"delay.ms": 300}, status: "200 OK", delay: slow, counted: "delays_injected=1"},
		{name: "for another cluster", fault: &resource.Fault{Abort: abortWith(500), Cluster: "d", MaxActive: -1}, status: "200 OK"},
		{name: "for this cluster", fault: &resource.Fault{Abort: abortWith(500), Cluster: "c", MaxActive: -1}, status: "500", body: "fault filter abort", counted: "aborts_injected=1"},
		{name: "without the header", fault: &resource.Fault{Abort: abortWith(500), Headers: header, MaxActive: -1}, status: "200 OK"},
		{name: "with the header", fault: &resource.Fault{Abort: abortWith(500), Headers: header, MaxActive: -1}, fields: []string{"x-try: 1"}, status: "500", body: "fault filter abort", counted: "aborts_injected=1"},
		{name: "from another node", fault: &resource.Fault{Abort: abortWith(500), Nodes: []string{"n"}, MaxActive: -1}, status: "200 OK"},
		{name: "too many", fault: &resource.Fault{Abort: abortWith(500), MaxActive: 0}, status: "200 OK", counted: "faults_overflow=1"},
		{name: "a delay that is not asked for", fault: byHeader, status: "200 OK"},
		{name: "a delay that is asked for", fault: byHeader, fields: []string{"x-envoy-fault-delay-request: 300"}, status: "200 OK", delay: slow, counted: "delays_injected=1"},
		{name: "asked for by none", fault: byHeader, fields: []string{"x-envoy-fault-delay-request: 300", "x-envoy-fault-delay-request-percentage: 0"}, status: "200 OK"},
		{name: "a delay that is none", fault: byHeader, fields: []string{"x-envoy-fault-delay-request: -5"}, status: "200 OK"},
		{name: "an abort that is asked for", fault: byHeader, fields: []string{"x-envoy-fault-abort-request: 503"}, status: "503", body: "asked for", counted: "aborts_injected=1"},
		{name: "an abort with no status", fault: byHeader, fields: []string{"x-envoy-fault-abort-request: 99"}, status: "200 OK"},
		{name: "a call's abort", fault: byHeader, fields: []string{"content-type: application/grpc", "x-envoy-fault-abort-grpc-request: 8"}, status: "200 OK", body: "grpc-status: 8", counted: "aborts_injected=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newFaultRig(t, c.fault, func(s *resource.Snapshot) { s.Runtime = &resource.Runtime{Numbers: c.runtime} })
			p := r.request(c.fields...)
			line, took := r.answer(p)
			if !strings.HasPrefix(line, "HTTP/1.1 "+c.status) || took < c.delay || took > c.delay+50*time.Millisecond {
				t.Errorf("got %s after %v, want %s after %v", line, took, c.status, c.delay)
			}
			if c.body != "" {
				r.until("the body", time.Second, func() bool { return bytes.Contains(p.Received, []byte(c.body)) })
			}
			if served := *r.heads == 1; served != (c.body == "" && strings.HasPrefix(c.status, "200")) {
				t.Errorf("%d requests came upstream", *r.heads)
			}
			r.world.Run(time.Second)
			if got := r.counted(); got != c.counted {
				t.Errorf("counted %s, want %s", got, c.counted)
			}
			r.settled()
		})
	}
}

func TestAtMostSoManyFaultsAreActive(t *testing.T) {
	r := newFaultRig(t, &resource.Fault{Delay: delayOf(time.Minute), MaxActive: 2}, nil)
	slow := []*sim.Peer{r.request(), r.request()}
	r.until("two delays", time.Second, func() bool { return r.counted() == "delays_injected=2 active_faults=2" })
	if line, took := r.answer(r.request()); !strings.HasPrefix(line, "HTTP/1.1 200") || took > time.Second {
		t.Errorf("the third got %s after %v", line, took)
	}
	slow[0].Reset() // whose delay ends with it
	r.until("the end of one", time.Second, func() bool { return r.counted() == "delays_injected=2 faults_overflow=1 active_faults=1" })
	third := r.request()
	for _, p := range []*sim.Peer{slow[1], third} {
		if line, _ := r.answer(p); !strings.HasPrefix(line, "HTTP/1.1 200") {
			t.Errorf("a delayed request got %s", line)
		}
	}
	r.world.Run(time.Second)
	if got := r.counted(); got != "delays_injected=3 faults_overflow=1" {
		t.Errorf("counted %s", got)
	}
	if *r.heads != 3 {
		t.Errorf("%d requests came upstream, one of four has gone before", *r.heads)
	}
	r.settled()
}

func TestARoutesFaultTakesThePlaceOfTheChains(t *testing.T) {
	spec := fault.Spec()
	r := newFaultRig(t, &resource.Fault{Abort: abortWith(500), MaxActive: -1}, func(s *resource.Snapshot) {
		s.Routes["r"].VirtualHosts[0].Routes[0].FilterConfig = map[string]any{spec.Name: &resource.Fault{Abort: abortWith(501), MaxActive: -1}}
	})
	if line, _ := r.answer(r.request()); !strings.HasPrefix(line, "HTTP/1.1 501") {
		t.Errorf("got %s", line)
	}
}

func TestFaultsAreOfThePartThatIsSaid(t *testing.T) {
	f := &resource.Fault{Abort: abortWith(500), MaxActive: -1}
	f.Abort.Percent.PerMillion = 250_000
	r := newFaultRig(t, f, nil)
	p := r.dial()
	const n = 2000
	for range n {
		p.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
	}
	r.until("the answers", time.Minute, func() bool { return bytes.Count(p.Received, []byte("HTTP/1.1 ")) == n })
	if aborted := bytes.Count(p.Received, []byte("HTTP/1.1 500")); aborted < n/4-100 || aborted > n/4+100 {
		t.Errorf("%d of %d requests were aborted", aborted, n)
	}
}
