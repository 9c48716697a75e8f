// SPDX-License-Identifier: Apache-2.0

// Package sim runs whole reactor loops, with everything on them, on a virtual
// clock and network, in one goroutine. A World is the machine: it implements
// reactor.System for each of its loops and reactor.Binder for their listeners,
// and it holds scripted peers that connect to the loops and that the loops
// connect to. Time passes only when no loop has anything to do, so that an hour
// of idling takes no time; with one seed, a run is the same each time.
//
// The network has what a test wants to vary: latency, jitter, fragmentation,
// windows, short writes, resets, addresses that refuse or swallow connections,
// and a limit on descriptors. It keeps bytes in order and loses none.
//
// What does not belong here: protocols, and knowledge of what runs on the loops.
// Nothing in it is safe for use by more than one goroutine.
package sim
