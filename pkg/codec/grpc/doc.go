// SPDX-License-Identifier: Apache-2.0

// Package grpc is what a proxy has to know of gRPC's protocol over HTTP: content
// types, status codes and how they map to those of HTTP, the timeout and message
// fields, and the frames of messages ("gRPC over HTTP2" and "HTTP to gRPC Status
// Code Mapping" of grpc/grpc's documentation).
//
// All of it is pure and allocates nothing; messages themselves are never looked
// into.
package grpc
