// SPDX-License-Identifier: Apache-2.0

// Package registry knows which instances of which services run: it grants
// leases, takes heartbeats and health, and takes out what stopped answering.
//
// One goroutine owns the table. It takes requests from a queue in batches, makes
// what must survive a crash durable with one commit per batch, and only then
// publishes the changes and answers. Registering and deregistering are durable
// when they return; heartbeats and health are not written, because after a
// restart every lease starts anew.
//
// Leases run on the monotonic clock of this process, so neither a step of the
// wall clock nor another machine's clock ends one. When the process itself did
// not run for a while (stopped, starved), the gap is added to every lease.
//
// Shrink guard: when more than half of a service's instances would expire within
// ten seconds, the cause is more likely on the way to the registry than in the
// instances. They stay, marked held and unhealthy, until they renew, are
// deregistered, are released by an operator, or the hold ends.
//
// What does not belong here: wire formats of other registries, the store's file
// (a Journal is given), HTTP.
package registry
