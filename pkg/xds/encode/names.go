// SPDX-License-Identifier: Apache-2.0

package encode

// Flavor says who reads a resource.
type Flavor uint8

// The flavors.
const (
	Sidecar Flavor = iota // our own
	Envoy
	GRPC // proxyless gRPC
)

// Names of resources and of this project's extensions.
const (
	InboundListener  = "inbound"
	OutboundListener = "outbound"
	OutboundRoutes   = "outbound"

	MetadataNamespace = "io.outrigger"
	TracerName        = "io.outrigger.tracer"
	TracerType        = "type.googleapis.com/io.outrigger.v1.Tracer"
	TapName           = "io.outrigger.tap"
	TapType           = "type.googleapis.com/io.outrigger.v1.Tap"

	// http2Key in the metadata of a cluster or an endpoint with the value http2Calls: of
	// HTTP/2 only calls of gRPC go there by it.
	http2Key   = "http2"
	http2Calls = "calls"

	// MeshDomain is the suffix under which a service is also known.
	MeshDomain = "mesh"
)

// OutboundCluster is the cluster of a service's instances.
func OutboundCluster(service string) string { return "outbound|" + service }

// InboundCluster is the cluster of the application behind a sidecar.
func InboundCluster(service string) string { return "inbound|" + service }
