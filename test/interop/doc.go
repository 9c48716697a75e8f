// SPDX-License-Identifier: Apache-2.0

// Package interop runs the sidecar with programs of others on either side of it:
// Envoy as the proxy before and behind it, and the WebSocket cases of the Autobahn
// Testsuite through it. Tests with such programs need OUTRIGGER_PEERS=1; what they
// start is installed by the scripts in test/peers.
package interop
