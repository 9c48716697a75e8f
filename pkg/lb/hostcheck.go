// SPDX-License-Identifier: Apache-2.0

package lb

import "github.com/outrigger-mesh/outrigger/pkg/xds/resource"

// Bits of Host.flags that active health checks set beside flagFailed.
const (
	flagDegraded  uint32 = 1 << (iota + 16) // the host says of itself that it is degraded
	flagUnchecked                           // no check has seen it yet
	flagTimedOut                            // its last check, failed, was not answered in time
	flagImmediate                           // a response to traffic said that checks fail
)

// DegradedByCheck reports whether the host passes its active health checks with the
// word that it is degraded.
func (h *Host) DegradedByCheck() bool { return h.flags.Load()&flagDegraded != 0 }

// SetDegraded marks the host for active health checks; Cluster.HealthChanged makes
// picks see it.
func (h *Host) SetDegraded(on bool) { h.setFlag(flagDegraded, on) }

// Unchecked reports whether active health checks have yet to see the host.
func (h *Host) Unchecked() bool { return h.flags.Load()&flagUnchecked != 0 }

// SetChecked ends what the host began with: it counts by its verdict from here on.
func (h *Host) SetChecked() { h.setFlag(flagUnchecked, false) }

// healthIn is health, but that a host which no check has seen yet counts as absent where
// the cluster says so (ignore_new_hosts_until_first_hc): it is not there to be sick.
func (h *Host) healthIn(cfg *resource.LoadBalancing) healthState {
	s := h.health()
	if s == stateUnhealthy && cfg.IgnoreNewHosts && h.Unchecked() {
		return stateExcluded
	}
	return s
}

// counted is the number of hosts that panic is decided by.
func (p *Priority) counted() int { return p.Total() - int(p.excluded) }

// ExcludedLen is the number of hosts that count as absent.
func (v *View) ExcludedLen() (n int) {
	for i := range v.priorities {
		n += int(v.priorities[i].excluded)
	}
	return n
}

// TimedOut reports whether the host has failed its active health checks, the last one
// for want of an answer.
func (h *Host) TimedOut() bool { return h.flags.Load()&flagTimedOut != 0 }

// SetTimedOut marks the host for active health checks; picks do not look at it.
func (h *Host) SetTimedOut(on bool) { h.setFlag(flagTimedOut, on) }

// FailNow is for loops: a response of the host said that its health checks are to
// fail. It reports whether that is news; Cluster.HealthChanged need not be called.
func (h *Host) FailNow() bool {
	if h.flags.Load()&(flagImmediate|flagFailed) != 0 {
		return false
	}
	return h.flags.Or(flagImmediate)&flagImmediate == 0
}

// TakeFailNow reports whether FailNow was called since, and takes that away.
func (h *Host) TakeFailNow() bool {
	return h.flags.Load()&flagImmediate != 0 && h.flags.And(^flagImmediate)&flagImmediate != 0
}

// Check is what the endpoint says of its own health checks; nil for nothing.
func (h *Host) Check() *resource.EndpointCheck { return h.spec.Load().Check }

// Address is where the endpoint is.
func (h *Host) Address() resource.Address { return h.spec.Load().Address }

// CheckedBy reports whether the health checks are for the host.
func (h *Host) CheckedBy(c *resource.HealthCheck) bool {
	e := h.Check()
	return c != nil && (e == nil || !e.Disabled)
}

// await makes a host that has just come into a cluster wait for its first check.
func (h *Host) await(c *resource.HealthCheck) {
	if h.CheckedBy(c) {
		h.flags.Or(flagFailed | flagUnchecked)
	}
}
