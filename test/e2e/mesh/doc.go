// SPDX-License-Identifier: Apache-2.0

// Package mesh runs the product's two programs as real processes for tests: a
// control plane, sidecars and small applications on free loopback ports, with
// their logs in the test's temporary folder, and a closed-loop client that
// counts every failed request.
//
// Nothing here looks into the programs: what they do is seen through their
// ports, their output and /proc. Every process ends with the test that started
// it, and with the test binary if that is killed.
//
// A Mesh belongs to the goroutine of its test; a Load may be read from any.
package mesh
