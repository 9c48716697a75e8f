// SPDX-License-Identifier: Apache-2.0

// Command bench measures the sidecar beside nginx, HAProxy and Envoy, in one run
// on one machine, and writes a table and a plot under bench/results.
//
// Every proxy runs with one worker pinned to one core; backend, load generator
// (wrk, h2load, or this program where no tool counts exactly) and this program are
// pinned to another. Rounds are interleaved: each round measures every proxy once
// under each load, so that what the machine does meanwhile falls on all alike, and
// ratios are taken within a round. The main figure is CPU time per request from the
// kernel's accounting of the proxy's threads: it is steadier than requests per
// second where the machine is shared.
//
// The protocol part (protocols.go) does the same for HTTP/2, TLS, gRPC, mutual TLS
// between two proxies, handshakes and TCP.
//
// Beside it: latency and throughput as wrk sees them, resident memory idle and
// under load, for each idle connection and each cluster, and the time to be ready.
//
// With --profile it measures nothing: the same loads make the CPU profile that guides
// builds of the sidecar (profile.go, stacks.go).
//
// What belongs here: drivers of the real programs, their configurations
// (configs/), the arithmetic and the report. What does not: benchmarks of single
// functions (they live beside the function), and claims about correctness.
//
// Everything started is a child of one thread and ends with it: at the
// end, on an error, on a panic and on a signal, and by the kernel's parent-death
// signal if this program is killed.
package main
