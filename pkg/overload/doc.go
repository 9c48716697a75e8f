// SPDX-License-Identifier: Apache-2.0

// Package overload decides how much of its work a process under pressure leaves: it
// turns the pressures of resources (memory, connections, the delay of loops) into how far
// each action is taken and how often each load-shed point sheds, published as two words
// that loops read once a tick.
//
// One goroutine updates a Manager; how resources are measured is its caller's (memory is
// in memory.go), and so is what an action does.
package overload
