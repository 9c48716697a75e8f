// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"encoding/json"
	"strconv"
	"sync"
	"time"
)

// Event is one ejection or return of a host.
type Event struct {
	Time      time.Time
	Cluster   string
	Upstream  string
	Action    string
	Type      EjectionType
	Ejections uint32        // of the host so far
	Enforced  bool          // false: detected, but spared by the enforcing percentage
	SinceLast time.Duration // since the host's last event; negative: there was none
	For       time.Duration // how long, for an enforced ejection
	Threshold uint32        // failures in a row that led to it
	Percent   float64       // the host's success rate that led to it
	Rates     ClusterRates  // what that was compared with, by type SUCCESS_RATE
	Active    uint32        // hosts of the cluster that are ejected now
	Hosts     int           // hosts of the cluster

	// What led to it besides, for Tell; Envoy's log does not have it.
	MaxPercent       uint32 // of the hosts that may be ejected
	Enforcing        uint32 // percent of the ejections of this type that are enforced
	FailureThreshold uint32 // percent of failures, by type FAILURE_PERCENTAGE
	Volume           uint64 // requests of the host in the interval, where rates were judged
	Checked          bool   // of a return: a health check has passed
}

// Actions of events. Those that Envoy does not know are told of and not logged.
const (
	Eject   = "EJECT"
	Uneject = "UNEJECT"
	Spare   = "SPARE"   // detected, but too many of the cluster are ejected already
	Leave   = "LEAVE"   // an ejected host has left its cluster
	Release = "RELEASE" // outlier detection of the cluster has ended
)

// Envoy's details of an ejection; percentages are rounded down.
type (
	ejectSuccessRate struct {
		Host      uint32 `json:"host_success_rate"`
		Average   uint32 `json:"cluster_average_success_rate"`
		Threshold uint32 `json:"cluster_success_rate_ejection_threshold"`
	}
	ejectFailurePercentage struct {
		Host uint32 `json:"host_success_rate"`
	}
	ejectConsecutive struct{}
)

// envoyEvent is envoy.data.cluster.v3.OutlierDetectionEvent as JSON.
type envoyEvent struct {
	Type        string                  `json:"type"`
	Cluster     string                  `json:"cluster_name"`
	Upstream    string                  `json:"upstream_url"`
	Action      string                  `json:"action"`
	Ejections   uint32                  `json:"num_ejections"`
	Enforced    bool                    `json:"enforced"`
	Rate        *ejectSuccessRate       `json:"eject_success_rate_event,omitempty"`
	Consecutive *ejectConsecutive       `json:"eject_consecutive_event,omitempty"`
	Failure     *ejectFailurePercentage `json:"eject_failure_percentage_event,omitempty"`
	Timestamp   string                  `json:"timestamp"`
	SinceLast   string                  `json:"secs_since_last_action,omitempty"`
}

func (e *Event) envoy() envoyEvent {
	out := envoyEvent{
		Type: e.Type.String(), Cluster: e.Cluster, Upstream: e.Upstream, Action: e.Action,
		Ejections: e.Ejections, Enforced: e.Enforced && e.Action == Eject, Timestamp: stamp(e.Time),
	}
	if e.Action == Eject {
		switch host := uint32(max(e.Percent, 0)); e.Type {
		case SuccessRate, SuccessRateLocal:
			out.Rate = &ejectSuccessRate{host, uint32(max(e.Rates.Average, 0)), uint32(max(e.Rates.Threshold, 0))}
		case FailurePercentage, FailurePercentageLocal:
			out.Failure = &ejectFailurePercentage{host}
		default:
			out.Consecutive = &ejectConsecutive{}
		}
	}
	if e.SinceLast >= 0 {
		out.SinceLast = strconv.FormatInt(int64(e.SinceLast/time.Second), 10)
	}
	return out
}

// MarshalJSON writes the fields of Envoy's outlier event log and after them our own.
func (e Event) MarshalJSON() ([]byte, error) {
	out := struct {
		envoyEvent
		Failures  uint32 `json:"consecutive_failures,omitempty"`
		Active    uint32 `json:"ejected_hosts"`
		Hosts     int    `json:"cluster_hosts,omitempty"`
		ForMillis int64  `json:"ejected_for_ms,omitempty"`
		Until     string `json:"ejected_until,omitempty"`
	}{
		envoyEvent: e.envoy(),
		Failures:   e.Threshold, Active: e.Active, Hosts: e.Hosts, ForMillis: e.For.Milliseconds(),
	}
	if e.For > 0 {
		out.Until = stamp(e.Time.Add(e.For))
	}
	return json.Marshal(out)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// EventLog keeps the last events of all clusters and hands each on as a line of
// JSON, with Envoy's fields alone. Its methods may be called from any goroutine but a loop.
type EventLog struct {
	now  func() time.Time
	sink func(line []byte)
	tell func(Event) // nil: nobody is told

	mu     sync.Mutex
	events []Event // ring
	at     int
	size   int
}

// NewEventLog keeps the last size events. The sink may be nil; it gets one line
// with its newline at a time and must neither keep it nor block for long: it is
// called from the tick. A nil now means the wall clock.
func NewEventLog(size int, sink func(line []byte), now func() time.Time) *EventLog {
	if now == nil {
		now = time.Now
	}
	return &EventLog{now: now, sink: sink, size: max(size, 1)}
}

// Tell makes f hear of every event, with those that are not logged. It is called from
// the tick, and must be set before there is one.
func (l *EventLog) Tell(f func(Event)) { l.tell = f }

// note tells of an event without logging it.
func (l *EventLog) note(e Event) {
	if l != nil && l.tell != nil {
		e.Time = l.now()
		l.tell(e)
	}
}

// Events lists what is kept, the oldest first.
func (l *EventLog) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Event, 0, len(l.events))
	return append(append(out, l.events[l.at:]...), l.events[:l.at]...)
}

func (l *EventLog) add(e Event) {
	if l == nil {
		return
	}
	e.Time = l.now()
	l.mu.Lock()
	if len(l.events) < l.size {
		l.events = append(l.events, e)
	} else {
		l.events[l.at] = e
		l.at = (l.at + 1) % l.size
	}
	l.mu.Unlock()
	if l.tell != nil {
		l.tell(e)
	}
	if l.sink == nil {
		return
	}
	line, err := json.Marshal(e.envoy())
	if err != nil {
		return // no field of an event can fail
	}
	l.sink(append(line, '\n'))
}
