// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"
	"time"
)

// Overload are the settings of the overload manager: pressures of resources, each part
// of a limit, and what is done as they rise.
type Overload struct {
	Refresh  time.Duration // between looks at the resources; default 1 s
	Monitors []OverloadMonitor
	Actions  []OverloadAction
	Points   []LoadShedPoint
	// SocketBuffer is how many bytes the kernel may queue for a connection in each
	// direction at most; 0: as many as it sees fit.
	SocketBuffer int
	// SocketCharged: what the kernel queues counts against the limit on memory.
	SocketCharged bool
	// HeapLimit is what the Go runtime may take in bytes, less what the kernel needs for
	// the group of HeapLimitFile; 0: it is left as it is.
	HeapLimit     uint64
	HeapLimitFile string
}

// OverloadMonitorKind is a resource that is looked at.
type OverloadMonitorKind uint8

// The kinds.
const (
	MonitorMemory      OverloadMonitorKind = iota // fixed_heap: Max in bytes
	MonitorConnections                            // global_downstream_max_connections: Max is their number, which is never exceeded
	MonitorLoopDelay                              // io.outrigger.resource_monitors.loop_delay: Max in nanoseconds
	MonitorFile                                   // injected_resource: the pressure is the number in a file
)

// OverloadMonitor is a resource with its limit.
type OverloadMonitor struct {
	Name string
	Kind OverloadMonitorKind
	Max  uint64
	File string
}

// OverloadActionKind is what is done under pressure.
type OverloadActionKind uint8

// The kinds.
const (
	ActionDisableKeepAlive OverloadActionKind = iota
	ActionStopAcceptingRequests
	ActionStopAcceptingConnections
	ActionRejectConnections
	ActionReduceTimeouts
	ActionShrinkHeap
	ActionReduceBuffers // less is read at a time, and readers are too slow earlier
	OverloadActions     // how many there are
)

// overloadNames are Envoy's, but for the last.
var overloadNames = [OverloadActions]string{
	"envoy.overload_actions.disable_http_keepalive", "envoy.overload_actions.stop_accepting_requests",
	"envoy.overload_actions.stop_accepting_connections", "envoy.overload_actions.reject_incoming_connections",
	"envoy.overload_actions.reduce_timeouts", "envoy.overload_actions.shrink_heap",
	"io.outrigger.overload_actions.reduce_buffers",
}

// String is Envoy's name.
func (k OverloadActionKind) String() string { return overloadNames[k] }

// Short is the name without what tells whose it is.
func (k OverloadActionKind) Short() string {
	return overloadNames[k][strings.LastIndexByte(overloadNames[k], '.')+1:]
}

// OverloadActionByName finds an action by Envoy's name.
func OverloadActionByName(name string) (OverloadActionKind, bool) {
	for i, n := range overloadNames {
		if n == name {
			return OverloadActionKind(i), true
		}
	}
	return 0, false
}

// OverloadAction is done as far as one of its triggers says.
type OverloadAction struct {
	Kind     OverloadActionKind
	Triggers []OverloadTrigger
	// Of ActionReduceTimeouts: what is left of a timeout in the end. An action that
	// says nothing of a timeout leaves it.
	ConnectionIdle, StreamIdle ScaledTimeout
}

// OverloadTrigger acts more and more from a pressure to another; where both are the
// same it acts in full from there on.
type OverloadTrigger struct {
	Monitor  string
	From, To float64 // 0 to 1
}

// ScaledTimeout is what a timeout is reduced to.
type ScaledTimeout struct {
	On      bool
	Min     time.Duration
	Percent float64 // of the timeout; where above 0, in place of Min
}

// Scaled is what is left of a timeout where the action is at so many hundredths.
func (s *ScaledTimeout) Scaled(t time.Duration, scale uint8) time.Duration {
	if !s.On || scale == 0 || t <= 0 {
		return t
	}
	least := s.Min
	if s.Percent > 0 {
		least = time.Duration(float64(t) * s.Percent / 100)
	}
	if least = max(least, time.Millisecond); least >= t {
		return t
	}
	return least + (t-least)/100*time.Duration(100-min(scale, 100))
}
