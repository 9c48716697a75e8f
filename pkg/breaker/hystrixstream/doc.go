// SPDX-License-Identifier: Apache-2.0

// Package hystrixstream serves circuits in the format of Hystrix's metrics event
// stream, for dashboards and Turbine: two objects per circuit, HystrixCommand and
// HystrixThreadPool, with all the keys that Netflix's own stream has.
//
// It is the one part of the breaker that knows net/http. It reads snapshots that
// its source makes and has no state but its connections: each is served by the
// goroutine that net/http started for it and ends with the client, with Close, or
// when the client does not read for a while.
package hystrixstream
