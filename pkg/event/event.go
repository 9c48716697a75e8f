// SPDX-License-Identifier: Apache-2.0

package event

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Kinds of events: what they are about.
const (
	KindEjection = "ejection" // outlier detection and an endpoint
	KindCircuit  = "circuit"  // a cluster's circuit breaker
	KindPanic    = "panic"    // a cluster whose health is ignored
	KindHealth   = "health"   // active health checks of an endpoint
	KindNACK     = "nack"     // configuration that was refused
	KindCallback = "callback" // a panic on a worker
	KindOverload = "overload" // an action of the overload manager
	KindDrain    = "drain"    // this process lets connections end
	KindUpgrade  = "upgrade"  // one process takes over from another
)

// Kinds are all of them, in the order of the documentation.
var Kinds = [...]string{
	KindEjection, KindCircuit, KindPanic, KindHealth, KindNACK, KindCallback, KindOverload, KindDrain, KindUpgrade,
}

// Types of events: what has happened. Each belongs to the kinds in the comment.
const (
	Ejected  = "ejected"   // ejection
	Spared   = "spared"    // ejection: detected, and not ejected
	Returned = "returned"  // ejection
	Opened   = "opened"    // circuit
	HalfOpen = "half_open" // circuit
	Closed   = "closed"    // circuit
	Entered  = "entered"   // panic
	Left     = "left"      // panic; ejection: an ejected endpoint has left its cluster
	Failed   = "failed"    // health, upgrade
	Passed   = "passed"    // health
	Degraded = "degraded"  // health
	Restored = "restored"  // health: no longer degraded
	Refused  = "refused"   // nack
	Panicked = "panicked"  // callback
	Began    = "began"     // overload, drain, upgrade
	Ended    = "ended"     // overload, drain, upgrade
)

// Known says whether there are events of the kind and the type. Whoever takes events from
// others asks: nothing else becomes the name of anything.
func Known(kind, typ string) bool {
	switch kind {
	case KindEjection:
		return typ == Ejected || typ == Spared || typ == Returned || typ == Left
	case KindCircuit:
		return typ == Opened || typ == HalfOpen || typ == Closed
	case KindPanic:
		return typ == Entered || typ == Left
	case KindHealth:
		return typ == Failed || typ == Passed || typ == Degraded || typ == Restored
	case KindNACK:
		return typ == Refused
	case KindCallback:
		return typ == Panicked
	case KindOverload, KindDrain:
		return typ == Began || typ == Ended
	case KindUpgrade:
		return typ == Began || typ == Failed || typ == Ended
	}
	return false
}

// Event is one decision, or something that has happened to the process.
type Event struct {
	// ID grows by one with each event of a process, from 1.
	ID   uint64    `json:"id"`
	Time time.Time `json:"time"`
	Kind string    `json:"kind"`
	Type string    `json:"type"`
	// Cluster and Endpoint are what it is about, where it is about one.
	Cluster  string `json:"cluster,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	// Name is what it is about where that is neither: a resource, an action.
	Name string `json:"name,omitempty"`
	// Message says why, in words.
	Message string `json:"message,omitempty"`
	// Until is when it ends by itself; zero where nobody knows.
	Until time.Time `json:"until,omitzero"`
	// Numbers are those at the decision.
	Numbers Numbers `json:"numbers,omitempty"`
}

// Bounds of what an event holds, in bytes and elements. What goes beyond is cut off.
const (
	MaxText    = 512
	MaxMessage = 1 << 10
	MaxNumbers = 32
)

// Clip cuts off what goes beyond the bounds.
func (e *Event) Clip() {
	for _, s := range [...]*string{&e.Kind, &e.Type, &e.Cluster, &e.Endpoint, &e.Name} {
		*s = clip(strings.ToValidUTF8(*s, "\uFFFD"), MaxText)
	}
	e.Message = clip(strings.ToValidUTF8(e.Message, "\uFFFD"), MaxMessage)
	e.Numbers = e.Numbers[:min(len(e.Numbers), MaxNumbers)]
}

const ellipsis = "…"

// clip shortens s to most bytes without cutting a character in two.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	n := most - len(ellipsis)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + ellipsis
}
