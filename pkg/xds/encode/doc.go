// SPDX-License-Identifier: Apache-2.0

// Package encode turns the mesh model into Envoy's protobuf resources:
// listeners, route configurations, clusters and endpoints.
//
// All functions are pure: the same input gives the same message, in the same
// order. Nothing is read from a clock, the network or a registry. A function
// that can fail answers an error that names the field of the object at fault;
// what they return is valid by the constraints that the API itself declares.
//
// # Names
//
// The cluster of a service is "outbound|<service>", for every client. The
// cluster of the application behind a sidecar is "inbound|<service>". All
// outbound routes are one route configuration, "outbound".
//
// # Flavors
//
// Clients differ: our sidecar understands the extensions that this project
// adds ("io.outrigger…"), Envoy does not, and gRPC has a part of the routes'
// language. A [Flavor] says who is going to read.
//
// What does not belong here: deciding who gets what, and marshalling; see the
// packages controlplane and xds/server.
package encode
