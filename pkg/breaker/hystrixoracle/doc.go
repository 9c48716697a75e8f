// SPDX-License-Identifier: Apache-2.0

// Package hystrixoracle has no code of its own: its test replays scripts of
// events through hystrix-go's CircuitBreaker and through ours and compares every
// decision. It is apart from pkg/breaker because hystrix-go reads the real clock
// and its goroutines never end: the test runs it in a process of its own, in a
// bubble of virtual time.
//
// Where the two are meant to differ:
//   - a straggler's success closes hystrix-go's circuit, but not ours;
//   - at the edges of its window hystrix-go counts nine to eleven seconds,
//     depending on which of its counters was incremented last; ours counts the
//     present bucket and those before it that make up the window;
//   - zero is a value for ours, and means the default to hystrix-go.
package hystrixoracle
