// SPDX-License-Identifier: Apache-2.0

package resource

// StatusSet is a set of states of health. NoStatus is the empty one; 0 means that
// nothing was said.
type StatusSet uint8

// NoStatus has no state in it.
const NoStatus StatusSet = 1 << 7

// Bit is the set with the state alone.
func (h HealthStatus) Bit() StatusSet { return 1 << h }

// DefaultOverrideStatus is Envoy's default of override_host_status.
const DefaultOverrideStatus = StatusSet(1<<HealthUnknown | 1<<Healthy | 1<<Degraded)

// NamedHosts are request headers that list endpoints, "IP:PORT" by commas: for the
// first attempt, and then for each retry the next.
type NamedHosts struct{ Headers []string } // in lower case
