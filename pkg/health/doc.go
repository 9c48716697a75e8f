// SPDX-License-Identifier: Apache-2.0

// Package health checks the endpoints of clusters actively: by requests of HTTP,
// calls of gRPC (grpc.health.v1) and TCP connections, as Envoy does.
//
// State is what one host's checks have come to. It is pure: what a check found, and
// chance, are arguments. A Cluster has the hosts of one cluster, puts their verdicts
// on them (lb.Host.SetFailed, SetDegraded) and lets the cluster's view be made anew;
// Checks has all clusters of a process, and the time.
//
// Concurrency: nothing of it runs on a loop. One goroutine, which exists while there
// is something to check, begins checks when they are due; each check is a goroutine,
// of which there are at most Config.Concurrent. One mutex guards what they share; it
// is never held over I/O, nor while a view is made. A verdict belongs to the host that
// was checked, so that hosts which stay in a cluster keep it over updates. What a
// check needs beyond its time is bounded: Config.Kept connections of all hosts.
//
// What does not belong here: the joining of verdicts (pkg/lb), outlier detection
// (pkg/breaker), the filter that answers health checks (pkg/filter/healthcheck), and
// the check of an application by its own sidecar for the registry (pkg/agent).
//
// Source: Envoy's documentation of active health checking and the API
// envoy.config.core.v3.HealthCheck.
package health
