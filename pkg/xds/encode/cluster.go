// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Defaults of the mesh.
const (
	defaultConnectTimeout = time.Second
	defaultLimit          = 1024
	defaultBudgetPercent  = 20
	minRetryConcurrency   = 3
	appLimit              = 65536 // connections and requests from a sidecar to its own application
)

// ServiceCluster is the cluster of a service's instances, which come by EDS.
// policy may be nil; subsets are the sets of keys of [Index.SubsetKeys].
func ServiceCluster(service string, policy *mesh.TrafficPolicy, subsets []string, f Flavor) (*clusterv3.Cluster, error) {
	var spec mesh.TrafficPolicySpec
	if policy != nil {
		spec = policy.Spec
	}
	c := &clusterv3.Cluster{
		Name:                 OutboundCluster(service),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
		ConnectTimeout:       seconds(connectTimeout(spec.Timeouts)),
		CircuitBreakers:      thresholds(spec.Limits),
		OutlierDetection:     outliers(spec.OutlierDetection),
		Metadata:             resilience(spec.CircuitBreaker, spec.Fallback),
	}
	if err := balance(c, spec.LoadBalancer, f); err != nil {
		return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
	}
	if f != GRPC { // its clients make none, and know no subsets
		if err := divide(c, subsets, spec.Subsets); err != nil {
			return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
		}
		c.HealthChecks = healthChecks(service, spec.HealthCheck)
	}
	retryAfter(c, spec.OutlierDetection)
	if err := sameProtocol(c, errorMatcher(spec.OutlierDetection)); err != nil {
		return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
	}
	if err := Validate(c); err != nil {
		return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
	}
	return c, nil
}

// sameProtocol lets requests go by the protocol that they came by, so that gRPC
// works end to end with nothing declared. outliers may be nil.
func sameProtocol(c *clusterv3.Cluster, outliers *httpv3.HttpProtocolOptions_OutlierDetection) error {
	packed, err := pack(&httpv3.HttpProtocolOptions{
		OutlierDetection: outliers,
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
			},
		},
	})
	if err != nil {
		return err
	}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed}
	return nil
}

// AppCluster is the application behind a sidecar. Unless it is declared to speak HTTP/2,
// only calls of gRPC come to it by HTTP/2: most applications know HTTP/1.1 alone,
// whatever their callers use. policy is the service's and may be nil: its health check is
// made of the application too.
func AppCluster(service, app string, http2 bool, policy *mesh.TrafficPolicy) (*clusterv3.Cluster, error) {
	name := InboundCluster(service)
	addr, err := Address(app)
	if err != nil {
		return nil, fmt.Errorf("cluster %q: app: %w", name, err)
	}
	off := false
	c := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       seconds(defaultConnectTimeout),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: addr}}}},
		}}},
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: u32(appLimit), MaxPendingRequests: u32(appLimit), MaxRequests: u32(appLimit),
		}}},
		// The callers' breakers judge the service; the sidecar beside it must not
		// cut it off.
		Metadata: resilience(&mesh.CircuitBreaker{Enabled: &off}, nil),
	}
	if policy != nil {
		c.HealthChecks = appHealthChecks(service, policy.Spec.HealthCheck)
	}
	if !http2 {
		c.Metadata.FilterMetadata[MetadataNamespace].Fields[http2Key] = structpb.NewStringValue(http2Calls)
	}
	if err := sameProtocol(c, nil); err != nil {
		return nil, fmt.Errorf("cluster %q: %w", name, err)
	}
	if err := Validate(c); err != nil {
		return nil, fmt.Errorf("cluster %q: %w", name, err)
	}
	return c, nil
}

func connectTimeout(t *mesh.Timeouts) time.Duration {
	if t == nil || t.Connect == nil {
		return defaultConnectTimeout
	}
	return t.Connect.Std()
}

func thresholds(l *mesh.Limits) *clusterv3.CircuitBreakers {
	if l == nil {
		l = &mesh.Limits{}
	}
	t := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections:     u32(or(l.Connections, defaultLimit)),
		MaxPendingRequests: u32(or(l.PendingRequests, defaultLimit)),
		MaxRequests:        u32(or(l.Requests, defaultLimit)),
		TrackRemaining:     true,
	}
	if l.Retries != nil {
		t.MaxRetries = u32(*l.Retries)
	} else {
		t.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: float64(or(l.RetryBudget, defaultBudgetPercent))},
			MinRetryConcurrency: u32(minRetryConcurrency),
		}
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{t}}
}

// resilience are the settings that Envoy has no field for: the circuit
// breaker in Hystrix's words, and the fallback.
func resilience(b *mesh.CircuitBreaker, fb *mesh.Fallback) *corev3.Metadata {
	fields := map[string]*structpb.Value{"circuitBreaker": structpb.NewStructValue(breaker(b))}
	if fb != nil {
		fields["fallback"] = fallback(fb)
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{MetadataNamespace: {Fields: fields}}}
}
