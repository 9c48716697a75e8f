// SPDX-License-Identifier: Apache-2.0

package decode

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/proto"
)

// Kind is a type of xDS resource.
type Kind uint8

// The kinds, in the order in which a proxy needs them: what others refer to
// comes first, but for secrets, which few refer to.
const (
	Cluster Kind = iota
	Endpoints
	Listener
	ScopedRoute
	Route
	VirtualHost
	Runtime
	Secret
	Extension
	kindCount
)

// KindCount is the number of kinds.
const KindCount = int(kindCount)

// String is the name that error messages use.
func (k Kind) String() string { return types[k].word }

// Type describes a kind on the wire.
type Type struct {
	Kind Kind
	URL  string
	// Short is Envoy's abbreviation: "cds".
	Short string
	// REST is the last part of the path of the REST-JSON service.
	REST string
	// Service is the gRPC service of this type alone; Stream and Delta its methods
	// ("" where there is none).
	Service, Stream, Delta string
	// Full says that a state-of-the-world response is all there is: what is not in
	// it has been deleted.
	Full bool

	word    string
	message func() proto.Message
	name    func(proto.Message) string
	decode  func(*job, proto.Message) any
}

// types is every kind that can be received. Order: Kind.
var types = [kindCount]Type{
	Cluster: {
		Kind: Cluster, URL: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Short: "cds", REST: "clusters", Full: true,
		Service: "envoy.service.cluster.v3.ClusterDiscoveryService", Stream: "StreamClusters", Delta: "DeltaClusters",
		word:    "cluster",
		message: func() proto.Message { return new(clusterv3.Cluster) },
		name:    func(m proto.Message) string { return m.(*clusterv3.Cluster).GetName() },
		decode:  func(j *job, m proto.Message) any { return j.cluster(m.(*clusterv3.Cluster), nil) },
	},
	Endpoints: {
		Kind: Endpoints, URL: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", Short: "eds", REST: "endpoints",
		Service: "envoy.service.endpoint.v3.EndpointDiscoveryService", Stream: "StreamEndpoints", Delta: "DeltaEndpoints",
		word:    "endpoints of",
		message: func() proto.Message { return new(endpointv3.ClusterLoadAssignment) },
		name:    func(m proto.Message) string { return m.(*endpointv3.ClusterLoadAssignment).GetClusterName() },
		decode:  func(j *job, m proto.Message) any { return j.assignment(m.(*endpointv3.ClusterLoadAssignment), nil) },
	},
	Listener: {
		Kind: Listener, URL: "type.googleapis.com/envoy.config.listener.v3.Listener", Short: "lds", REST: "listeners", Full: true,
		Service: "envoy.service.listener.v3.ListenerDiscoveryService", Stream: "StreamListeners", Delta: "DeltaListeners",
		word:    "listener",
		message: func() proto.Message { return new(listenerv3.Listener) },
		name:    func(m proto.Message) string { return m.(*listenerv3.Listener).GetName() },
		decode:  func(j *job, m proto.Message) any { return j.listener(m.(*listenerv3.Listener), nil) },
	},
	ScopedRoute: {
		Kind: ScopedRoute, URL: "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration", Short: "srds", REST: "scoped-routes", Full: true,
		Service: "envoy.service.route.v3.ScopedRoutesDiscoveryService", Stream: "StreamScopedRoutes", Delta: "DeltaScopedRoutes",
		word:    "scoped route",
		message: func() proto.Message { return new(routev3.ScopedRouteConfiguration) },
		name:    func(m proto.Message) string { return m.(*routev3.ScopedRouteConfiguration).GetName() },
		decode: func(j *job, m proto.Message) any {
			s := j.scopedRoute(m.(*routev3.ScopedRouteConfiguration), nil)
			if s.RouteConfigName != "" {
				j.need(Route, s.RouteConfigName, Source{}) // from the listener's rds_config_source
			}
			return s
		},
	},
	Route: {
		Kind: Route, URL: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", Short: "rds", REST: "routes",
		Service: "envoy.service.route.v3.RouteDiscoveryService", Stream: "StreamRoutes", Delta: "DeltaRoutes",
		word:    "route configuration",
		message: func() proto.Message { return new(routev3.RouteConfiguration) },
		name:    func(m proto.Message) string { return m.(*routev3.RouteConfiguration).GetName() },
		decode:  func(j *job, m proto.Message) any { return j.routeConfig(m.(*routev3.RouteConfiguration), nil) },
	},
	VirtualHost: {
		Kind: VirtualHost, URL: "type.googleapis.com/envoy.config.route.v3.VirtualHost", Short: "vhds",
		Service: "envoy.service.route.v3.VirtualHostDiscoveryService", Delta: "DeltaVirtualHosts",
		word:    "virtual host",
		message: func() proto.Message { return new(routev3.VirtualHost) },
		name:    func(m proto.Message) string { return m.(*routev3.VirtualHost).GetName() },
		decode: func(j *job, m proto.Message) any {
			return j.virtualHost(m.(*routev3.VirtualHost), &routeScope{maxBody: defaultDirectBody}, nil)
		},
	},
	Runtime: {
		Kind: Runtime, URL: "type.googleapis.com/envoy.service.runtime.v3.Runtime", Short: "rtds", REST: "runtime",
		Service: "envoy.service.runtime.v3.RuntimeDiscoveryService", Stream: "StreamRuntime", Delta: "DeltaRuntime",
		word:    "runtime layer",
		message: func() proto.Message { return new(runtimev3.Runtime) },
		name:    func(m proto.Message) string { return m.(*runtimev3.Runtime).GetName() },
		decode:  func(j *job, m proto.Message) any { return j.runtime(m.(*runtimev3.Runtime), nil) },
	},
	Secret: {
		Kind: Secret, URL: typeURLPrefix + tlsPackage + "Secret", Short: "sds", REST: "secrets",
		Service: "envoy.service.secret.v3.SecretDiscoveryService", Stream: "StreamSecrets", Delta: "DeltaSecrets",
		word:    "secret",
		message: func() proto.Message { return new(tlsv3.Secret) },
		name:    func(m proto.Message) string { return m.(*tlsv3.Secret).GetName() },
		decode:  func(j *job, m proto.Message) any { return j.secret(m.(*tlsv3.Secret), nil) },
	},
	Extension: {
		Kind: Extension, URL: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", Short: "ecds", REST: "extension_configs",
		Service: "envoy.service.extension.v3.ExtensionConfigDiscoveryService", Stream: "StreamExtensionConfigs", Delta: "DeltaExtensionConfigs",
		word:    "extension config",
		message: func() proto.Message { return new(corev3.TypedExtensionConfig) },
		name:    func(m proto.Message) string { return m.(*corev3.TypedExtensionConfig).GetName() },
		decode:  func(j *job, m proto.Message) any { return j.extension(m.(*corev3.TypedExtensionConfig), nil) },
	},
}

// Types lists every type that can be received, in the order of their kinds.
func Types() []Type { return append([]Type(nil), types[:]...) }

// TypeOf returns a kind's type.
func TypeOf(k Kind) *Type { return &types[k] }

// KindOf finds the kind of a type URL.
func KindOf(url string) (Kind, bool) {
	for i := range types {
		if types[i].URL == url {
			return Kind(i), true
		}
	}
	return 0, false
}
