// SPDX-License-Identifier: Apache-2.0

// Package xdstest runs real management servers (go-control-plane) for tests of
// xDS clients: gRPC streams of all kinds and REST-JSON on loopback ports, with a
// record of what clients asked, accepted and refused.
//
// Only tests import it. A server is safe for use by many goroutines.
package xdstest
