// SPDX-License-Identifier: Apache-2.0

// Package rest is the control plane's HTTP API: objects, instances, sidecars,
// events, schemas, health and metrics, and the place where further handlers are
// mounted.
//
// Every route is one line of the table in routes.go, from which the mux and the
// OpenAPI document are both made, so neither can know what the other does not.
// Handlers read the immutable model and write through the store's State; none
// holds state of its own. Errors are RFC 9457 problem documents that name the
// field.
//
// What does not belong here: the gRPC services, the command line, other products'
// wire formats (they are mounted).
package rest
