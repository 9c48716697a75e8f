// SPDX-License-Identifier: Apache-2.0

// Package attack holds one named test for each class of attack on a proxy with
// its own codecs and on its control plane: what was tried against real
// processes, kept so that it stays repelled.
//
// Every test starts the real binaries on loopback, plays the hostile side with
// raw bytes, and asserts counts, order, boundaries and memory; never speed. What
// needs a hostile package input only belongs to that package's own tests.
package attack
