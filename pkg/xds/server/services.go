// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	clusterservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	extensionservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	listenerservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	runtimeservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	secretservicev3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	deltav3 "github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	restv3 "github.com/envoyproxy/go-control-plane/pkg/server/rest/v3"
	sotwv3 "github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"
)

// services are the gRPC methods of xDS, in terms of go-control-plane's three
// servers. Its own wrapper of them also links a rate-limit API that is not
// served here.
type services struct {
	sotw  sotwv3.Server
	delta deltav3.Server
	rest  restv3.Server
}

func newServices(ctx context.Context, s *Server) services {
	// These types have no wildcard: an empty list of names is an empty list.
	byName := []string{
		resourcev3.EndpointType, resourcev3.RouteType, resourcev3.VirtualHostType,
		resourcev3.SecretType, resourcev3.ExtensionConfigType, resourcev3.RuntimeType,
	}
	w, c := watcher{s}, callbacks{s}
	return services{
		sotw:  sotwv3.NewServer(ctx, w, c, sotwv3.WithOrderedADS(), sotwv3.DeactivateLegacyWildcardForTypes(byName)),
		delta: deltav3.NewServer(ctx, w, c, deltav3.DeactivateLegacyWildcardForTypes(byName)),
		rest:  restv3.NewServer(w, c),
	}
}

// Register adds the aggregated and the single-type services to a gRPC server.
func (s *Server) Register(g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s.xds)
	clusterservicev3.RegisterClusterDiscoveryServiceServer(g, s.xds)
	endpointservicev3.RegisterEndpointDiscoveryServiceServer(g, s.xds)
	listenerservicev3.RegisterListenerDiscoveryServiceServer(g, s.xds)
	routeservicev3.RegisterRouteDiscoveryServiceServer(g, s.xds)
	routeservicev3.RegisterScopedRoutesDiscoveryServiceServer(g, s.xds)
	routeservicev3.RegisterVirtualHostDiscoveryServiceServer(g, s.xds)
	secretservicev3.RegisterSecretDiscoveryServiceServer(g, s.xds)
	runtimeservicev3.RegisterRuntimeDiscoveryServiceServer(g, s.xds)
	extensionservicev3.RegisterExtensionConfigDiscoveryServiceServer(g, s.xds)
}

func (v services) fetch(ctx context.Context, req *discoveryv3.DiscoveryRequest, typeURL string) (*discoveryv3.DiscoveryResponse, error) {
	req.TypeUrl = typeURL
	return v.rest.Fetch(ctx, req)
}

// The aggregated service.

func (v services) StreamAggregatedResources(st discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return v.sotw.StreamHandler(st, resourcev3.AnyType)
}

func (v services) DeltaAggregatedResources(st discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.AnyType)
}

// The single-type services.

func (v services) StreamClusters(st clusterservicev3.ClusterDiscoveryService_StreamClustersServer) error {
	return v.sotw.StreamHandler(st, resourcev3.ClusterType)
}

func (v services) DeltaClusters(st clusterservicev3.ClusterDiscoveryService_DeltaClustersServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.ClusterType)
}

func (v services) FetchClusters(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return v.fetch(ctx, req, resourcev3.ClusterType)
}

func (v services) StreamEndpoints(st endpointservicev3.EndpointDiscoveryService_StreamEndpointsServer) error {
	return v.sotw.StreamHandler(st, resourcev3.EndpointType)
}

func (v services) DeltaEndpoints(st endpointservicev3.EndpointDiscoveryService_DeltaEndpointsServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.EndpointType)
}

func (v services) FetchEndpoints(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return v.fetch(ctx, req, resourcev3.EndpointType)
}

func (v services) StreamListeners(st listenerservicev3.ListenerDiscoveryService_StreamListenersServer) error {
	return v.sotw.StreamHandler(st, resourcev3.ListenerType)
}

func (v services) DeltaListeners(st listenerservicev3.ListenerDiscoveryService_DeltaListenersServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.ListenerType)
}

func (v services) FetchListeners(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return v.fetch(ctx, req, resourcev3.ListenerType)
}

func (v services) StreamRoutes(st routeservicev3.RouteDiscoveryService_StreamRoutesServer) error {
	return v.sotw.StreamHandler(st, resourcev3.RouteType)
}

func (v services) DeltaRoutes(st routeservicev3.RouteDiscoveryService_DeltaRoutesServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.RouteType)
}

func (v services) FetchRoutes(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return v.fetch(ctx, req, resourcev3.RouteType)
}

func (v services) StreamScopedRoutes(st routeservicev3.ScopedRoutesDiscoveryService_StreamScopedRoutesServer) error {
	return v.sotw.StreamHandler(st, resourcev3.ScopedRouteType)
}

func (v services) DeltaScopedRoutes(st routeservicev3.ScopedRoutesDiscoveryService_DeltaScopedRoutesServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.ScopedRouteType)
}

func (v services) FetchScopedRoutes(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return v.fetch(ctx, req, resourcev3.ScopedRouteType)
}

func (v services) DeltaVirtualHosts(st routeservicev3.VirtualHostDiscoveryService_DeltaVirtualHostsServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.VirtualHostType)
}

func (v services) StreamSecrets(st secretservicev3.SecretDiscoveryService_StreamSecretsServer) error {
	return v.sotw.StreamHandler(st, resourcev3.SecretType)
}

func (v services) DeltaSecrets(st secretservicev3.SecretDiscoveryService_DeltaSecretsServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.SecretType)
}

func (v services) FetchSecrets(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return v.fetch(ctx, req, resourcev3.SecretType)
}

func (v services) StreamRuntime(st runtimeservicev3.RuntimeDiscoveryService_StreamRuntimeServer) error {
	return v.sotw.StreamHandler(st, resourcev3.RuntimeType)
}

func (v services) DeltaRuntime(st runtimeservicev3.RuntimeDiscoveryService_DeltaRuntimeServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.RuntimeType)
}

func (v services) FetchRuntime(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return v.fetch(ctx, req, resourcev3.RuntimeType)
}

func (v services) StreamExtensionConfigs(st extensionservicev3.ExtensionConfigDiscoveryService_StreamExtensionConfigsServer) error {
	return v.sotw.StreamHandler(st, resourcev3.ExtensionConfigType)
}

func (v services) DeltaExtensionConfigs(st extensionservicev3.ExtensionConfigDiscoveryService_DeltaExtensionConfigsServer) error {
	return v.delta.DeltaStreamHandler(st, resourcev3.ExtensionConfigType)
}

func (v services) FetchExtensionConfigs(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return v.fetch(ctx, req, resourcev3.ExtensionConfigType)
}
