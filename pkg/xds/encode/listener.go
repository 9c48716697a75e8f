// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"errors"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	statefulsessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const (
	hcmFilter    = "envoy.filters.network.http_connection_manager"
	routerFilter = "envoy.filters.http.router"
)

// ListenerInput is what a sidecar's listener is made of.
type ListenerInput struct {
	Flavor    Flavor
	Service   string // whose sidecar it is; may be empty for Envoy
	Address   string // to listen on
	Telemetry mesh.TelemetrySpec
	Taps      []*mesh.Tap // of the service, oldest first; inbound only
	TLS       TLSMode     // of the inbound listener
	// GRPCWeb lets clients of gRPC-Web call an application that is declared to speak
	// gRPC; inbound only. Others may speak gRPC-Web themselves.
	GRPCWeb bool
	// Connections says that the application speaks no HTTP: what comes is passed on as
	// it is; inbound only.
	Connections bool
	Streams     []Stream // of the mesh; outbound only
	// RateLimit is the policy's, of the inbound listener; nil: none. Faults and Sessions say
	// that routes may have some; outbound only.
	RateLimit *mesh.RateLimit
	Faults    bool
	Sessions  bool
}

// Inbound is the listener from other sidecars to the local application.
func Inbound(in ListenerInput) (*listenerv3.Listener, error) {
	routes, err := inboundRoutes(in.Service)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", InboundListener, err)
	}
	m, err := manager(in, InboundListener)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", InboundListener, err)
	}
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes}
	taps, err := tapFilter(in)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", InboundListener, err)
	}
	if in.RateLimit != nil {
		limit, err := rateLimit(in.RateLimit)
		if err != nil {
			return nil, fmt.Errorf("listener %q: %w", InboundListener, err)
		}
		m.HttpFilters = append([]*hcmv3.HttpFilter{limit}, m.HttpFilters...)
	}
	if taps != nil { // before the limit: what is refused is seen
		m.HttpFilters = append([]*hcmv3.HttpFilter{taps}, m.HttpFilters...)
	}
	if in.TLS != Plaintext {
		tellPeer(m)
	}
	l, err := socket(InboundListener, in.Address, corev3.TrafficDirection_INBOUND, m)
	if err == nil && in.Connections {
		l, err = passOn(l, in)
	}
	if err != nil || in.TLS == Plaintext {
		return l, err
	}
	if err := secure(l, in); err != nil {
		return nil, fmt.Errorf("listener %q: %w", InboundListener, err)
	}
	if in.Connections && in.TLS == Permissive {
		detect(l)
	}
	return l, nil
}

// Outbound is the listener from the local application to the mesh.
func Outbound(in ListenerInput) (*listenerv3.Listener, error) {
	m, err := manager(in, OutboundListener)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", OutboundListener, err)
	}
	m.RouteSpecifier = rds(OutboundRoutes)
	for _, f := range []struct { // what routes have settings for; the last one comes first
		name   string
		config proto.Message
		wanted bool
	}{
		{sessionFilter, &statefulsessionv3.StatefulSession{}, in.Sessions},
		{faultFilter, &faultv3.HTTPFault{}, in.Faults},
	} {
		if !f.wanted {
			continue
		}
		filter, err := httpFilter(f.name, f.config)
		if err != nil {
			return nil, fmt.Errorf("listener %q: %w", OutboundListener, err)
		}
		m.HttpFilters = append([]*hcmv3.HttpFilter{filter}, m.HttpFilters...)
	}
	l, err := socket(OutboundListener, in.Address, corev3.TrafficDirection_OUTBOUND, m)
	if err != nil || len(in.Streams) == 0 {
		return l, err
	}
	return addStreams(l, in)
}

// APIListener is what a proxyless gRPC client asks for under the name of its
// target: "orders" or "orders:8080".
func APIListener(target string) (*listenerv3.Listener, error) {
	router, err := httpFilters()
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", target, err)
	}
	m, err := pack(&hcmv3.HttpConnectionManager{StatPrefix: OutboundListener, RouteSpecifier: rds(OutboundRoutes), HttpFilters: router})
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", target, err)
	}
	l := &listenerv3.Listener{Name: target, ApiListener: &listenerv3.ApiListener{ApiListener: m}}
	if err := Validate(l); err != nil {
		return nil, fmt.Errorf("listener %q: %w", target, err)
	}
	return l, nil
}

func rds(name string) *hcmv3.HttpConnectionManager_Rds {
	return &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: name, ConfigSource: ads()}}
}

// manager is what both listeners' connection managers have in common.
func manager(in ListenerInput, name string) (*hcmv3.HttpConnectionManager, error) {
	filters, err := callFilters(in)
	if err != nil {
		return nil, err
	}
	logs, err := accessLogs(in.Telemetry.AccessLog)
	if err != nil {
		return nil, err
	}
	m := &hcmv3.HttpConnectionManager{
		CodecType:   hcmv3.HttpConnectionManager_AUTO,
		StatPrefix:  name,
		HttpFilters: filters,
		AccessLog:   logs,
		// Nobody should have to ask for WebSocket; other protocols are not let through
		// unseen.
		UpgradeConfigs:       []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true},
		// The application's own Server header is part of its answer.
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		// Routes match, and applications get, one spelling of a path. What is escaped
		// stays: %2F and / differ for many applications.
		NormalizePath: wrapperspb.Bool(true),
		MergeSlashes:  true,
	}
	if in.Flavor == Sidecar {
		if m.Tracing, err = tracing(in.Service, in.Telemetry.Tracing); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// callFilters are those of gRPC, then the router. Sidecars bound the number of
// methods that they count by name, Envoy does not.
func callFilters(in ListenerInput) ([]*hcmv3.HttpFilter, error) {
	var list []*hcmv3.HttpFilter
	add := func(name string, config proto.Message) error {
		packed, err := pack(config)
		list = append(list, &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed}})
		return err
	}
	var err error
	if in.GRPCWeb {
		err = add("envoy.filters.http.grpc_web", &grpcwebv3.GrpcWeb{})
	}
	err = errors.Join(err, add("envoy.filters.http.grpc_stats", &grpcstatsv3.FilterConfig{
		PerMethodStatSpecifier: &grpcstatsv3.FilterConfig_StatsForAllMethods{StatsForAllMethods: wrapperspb.Bool(in.Flavor == Sidecar)},
	}))
	router, routerErr := httpFilters()
	return append(list, router...), errors.Join(err, routerErr)
}

func httpFilters() ([]*hcmv3.HttpFilter, error) {
	router, err := pack(&routerv3.Router{})
	if err != nil {
		return nil, err
	}
	return []*hcmv3.HttpFilter{{Name: routerFilter, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router}}}, nil
}

func socket(name, address string, d corev3.TrafficDirection, m *hcmv3.HttpConnectionManager) (*listenerv3.Listener, error) {
	addr, err := Address(address)
	if err != nil {
		return nil, fmt.Errorf("listener %q: address: %w", name, err)
	}
	var packed *anypb.Any
	if packed, err = pack(m); err != nil {
		return nil, fmt.Errorf("listener %q: %w", name, err)
	}
	l := &listenerv3.Listener{
		Name:             name,
		StatPrefix:       name,
		Address:          addr,
		TrafficDirection: d,
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: hcmFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed},
		}}}},
	}
	if err := Validate(l); err != nil {
		return nil, fmt.Errorf("listener %q: %w", name, err)
	}
	return l, nil
}

// inboundRoutes send everything to the application. The caller's timeout is
// in force, so there is none here; what surely did not reach the application
// is tried once more, because its listener may just be coming up.
func inboundRoutes(service string) (*routev3.RouteConfiguration, error) {
	cluster := InboundCluster(service)
	rc := &routev3.RouteConfiguration{
		Name: InboundListener,
		VirtualHosts: []*routev3.VirtualHost{{
			Name: InboundListener, Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Name:  "app",
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
					Timeout:          durationpb.New(0),
					RetryPolicy: &routev3.RetryPolicy{
						RetryOn: "connect-failure,reset-before-request", NumRetries: u32(1),
						RetryBackOff: &routev3.RetryPolicy_RetryBackOff{BaseInterval: seconds(25 * time.Millisecond)},
					},
				}},
			}},
		}},
	}
	callTimeout(rc.VirtualHosts[0].Routes[0].GetRoute(), 0)
	if err := Validate(rc); err != nil {
		return nil, fmt.Errorf("route configuration %q: %w", rc.Name, err)
	}
	return rc, nil
}
