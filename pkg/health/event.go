// SPDX-License-Identifier: Apache-2.0

package health

import (
	"encoding/json"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Event is a result of a check with what it has changed.
type Event struct {
	Cluster string
	Kind    resource.HealthCheckKind
	Host    *lb.Host
	Change  Change
	Result  Result
	Failed  bool // the host, from now on
	Time    time.Time

	check *resource.HealthCheck
	write func(line []byte)
}

// Thresholds are the results in a row that bring a host back and take it out.
func (e *Event) Thresholds() (healthy, unhealthy uint32) {
	return e.check.HealthyThreshold, e.check.UnhealthyThreshold
}

// tells reports whether the result is news: that a host has passed its first check is
// none.
func (e *Event) tells() bool {
	c := e.Change
	return c.Degraded || c.Health && !(c.First && !e.Failed) || c.First && e.Failed
}

// log writes what there is to say of a result; any goroutine but a loop.
func (cl *Cluster) log(e *Event) {
	if e == nil {
		return
	}
	if f := cl.checks.config.Changed; f != nil && e.tells() {
		f(e)
	}
	if e.write == nil {
		return
	}
	for _, line := range e.lines() {
		e.write(line)
	}
}

// lines are Envoy's events (envoy.data.core.v3.HealthCheckEvent) as JSON: one result
// may be more than one of them.
func (e *Event) lines() (out [][]byte) {
	r, passed := &e.Result, e.Result.Outcome.passed()
	add := func(name string, about any) { out = append(out, e.line(name, about)) }
	failure := func() eventFailure { return eventFailure{r.Outcome.String(), r.Status} }
	switch {
	case e.Change.Health && !e.Failed:
		add("add_healthy_event", eventFirst{e.Change.First})
	case e.Change.Health:
		add("eject_unhealthy_event", failure())
	case passed && e.check.AlwaysLogSuccess:
		add("successful_health_check_event", struct{}{})
	}
	if !passed && (e.Change.First || e.check.AlwaysLogFailures) {
		add("health_check_failure_event", eventFirstFailure{failure(), e.Change.First})
	}
	if e.Change.Degraded {
		name := "no_longer_degraded_host"
		if r.Outcome == Degraded {
			name = "degraded_healthy_host"
		}
		add(name, struct{}{})
	}
	return out
}

type (
	eventFailure struct {
		Type   string `json:"failure_type"`
		Status int    `json:"http_status_code"`
	}
	eventFirst struct {
		First bool `json:"first_check"`
	}
	eventFirstFailure struct {
		eventFailure
		First bool `json:"first_check"`
	}
	eventSocket struct {
		Protocol string `json:"protocol"`
		Address  string `json:"address"`
		Port     uint16 `json:"port_value"`
	}
	eventPipe struct {
		Path string `json:"path"`
	}
	eventAddress struct {
		Socket *eventSocket `json:"socket_address,omitempty"`
		Pipe   *eventPipe   `json:"pipe,omitempty"`
	}
	eventLocality struct {
		Region  string `json:"region"`
		Zone    string `json:"zone"`
		SubZone string `json:"sub_zone"`
	}
)

// line is one event. Our own fields come last.
func (e *Event) line(name string, about any) []byte {
	at := e.Host.Address()
	host := eventAddress{Pipe: &eventPipe{at.Path}}
	if at.Path == "" {
		host = eventAddress{Socket: &eventSocket{"TCP", at.Host, at.Port}}
	}
	l := e.Host.Locality()
	fields := []struct {
		key   string
		value any
	}{
		{"health_checker_type", e.Kind.String()}, {"host", host}, {"cluster_name", e.Cluster}, {name, about},
		{"timestamp", e.Time.UTC().Format("2006-01-02T15:04:05.000Z")}, {"locality", eventLocality{l.Region, l.Zone, l.SubZone}},
		{"reason", e.Result.Reason},
	}
	b := []byte{'{'}
	for i, f := range fields {
		if f.key == "reason" && e.Result.Reason == "" {
			continue
		}
		if i > 0 {
			b = append(b, ',')
		}
		v, err := json.Marshal(f.value)
		if err != nil {
			continue // no field of an event can fail
		}
		b = append(append(append(append(b, '"'), f.key...), `":`...), v...)
	}
	return append(b, '}', '\n')
}
