// SPDX-License-Identifier: Apache-2.0

// Package e2e holds no code but tests: they run the sidecar and the control plane
// as users do, break what can break, and count what their users would notice.
//
// With OUTRIGGER_CONFORMANCE=FILE the figures are appended to a file, one line
// each, for docs/CONFORMANCE.md. OUTRIGGER_BIN=DIR takes the programs from there
// instead of building them.
package e2e
