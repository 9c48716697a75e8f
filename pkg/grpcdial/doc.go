// SPDX-License-Identifier: Apache-2.0

// Package grpcdial is the one place where a sidecar dials gRPC: its control
// plane, and the gRPC services of a bootstrap file.
//
// It decides what must be the same everywhere: keepalive, reconnection with
// jittered backoff, the bearer token, message limits, that plaintext off the
// host must be asked for, and that link-local and metadata addresses are never
// dialled. What is spoken on a connection belongs to its users, which accept a
// grpc.ClientConnInterface.
//
// Concurrency: connections are grpc.ClientConn and safe for concurrent use; the
// caller closes what it dialled. A Backoff belongs to one goroutine.
package grpcdial
