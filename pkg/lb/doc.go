// SPDX-License-Identifier: Apache-2.0

// Package lb picks the host of a cluster that gets a request: policies,
// priorities, localities, health and panic.
//
// State is split by who needs it exact. A Host and a Cluster are process-wide:
// workers share a host's counts, and one updater replaces the cluster's View by
// one atomic store. A View is immutable, with everything that is expensive to
// make (hash rings, maglev tables) built before it is published. A Picker belongs
// to one loop and holds only cursors, so picking takes no lock, no allocation
// and no clock.
//
// Update and HealthChanged are for other goroutines than loops; they may race
// with each other and with any number of picks. Hosts are carried over from view
// to view by address, with their counts and ejection.
//
// Retry decisions, connection pools, hash keys of requests and health checks
// live elsewhere; so does outlier detection (pkg/breaker), which marks hosts by
// Eject and calls HealthChanged. A policy is one file and one entry in
// policies.go; lbtest.Run checks what all of them have to fulfil.
//
// Sources: Envoy's documentation of load balancing (priority levels, panic
// threshold, locality weighted, supported balancers) and API envoy.config.cluster.v3.
package lb
