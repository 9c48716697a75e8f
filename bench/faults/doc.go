// SPDX-License-Identifier: Apache-2.0

// Command faults breaks things behind, beside and in a proxy while clients that never
// retry call through it, and counts what those lose: of the sidecar and of Envoy under
// the same faults, with the same settings, in one run.
//
// A row of the table is a fault (faults.go): what is broken, for how long, and how it
// is mended. Every proxy meets it alone, on the same instances, which are processes of
// their own and can be killed, stopped and told to fail.
//
// What belongs here: the faults, the instances, the clients, the count. What does not:
// the cost of requests (bench), and whether the counts are good enough: the report says
// what was lost, beside what Envoy lost.
//
// Times are those of a shared machine. A request that is lost is lost on any.
package main
