// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// TLSMode says what a sidecar's inbound listener takes.
type TLSMode uint8

// The modes.
const (
	Plaintext  TLSMode = iota // of a sidecar without an identity
	Strict                    // mutual TLS only
	Permissive                // mutual TLS and plaintext
)

// String is the mode as people are shown it.
func (m TLSMode) String() string { return [...]string{"plaintext", "strict", "permissive"}[m] }

const (
	tlsSocket       = "envoy.transport_sockets.tls"
	tlsInspector    = "envoy.filters.listener.tls_inspector"
	mutualTLSKey    = "mutualTLS" // in endpoints' metadata for transport_socket_matches
	mutualTLSChain  = "mutual-tls"
	plaintextChain  = "plaintext"
	transportTLS    = "tls"
	transportRaw    = "raw_buffer"
	mutualTLSSocket = "mutual-tls"
)

// listenerProtocols are what mesh connections negotiate.
var listenerProtocols = []string{"h2", "http/1.1"}

// commonTLS is what both directions have: TLS 1.3, the sidecar's own certificate.
func commonTLS() *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: resource.IdentitySecret}},
	}
}

func tlsTransport(m proto.Message) (*corev3.TransportSocket, error) {
	packed, err := pack(m)
	if err != nil {
		return nil, err
	}
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed}}, nil
}

// Peer is whom a cluster's endpoints have to be.
type Peer struct {
	Identity string // the SPIFFE ID; it comes from here and from nowhere else
	// Always: those that have registered without an identity are no exception.
	Always bool
}

// SecureCluster is ServiceCluster for sidecars with an identity: they speak mutual TLS
// with the instances that have one.
func SecureCluster(service string, policy *mesh.TrafficPolicy, subsets []string, peer Peer) (*clusterv3.Cluster, error) {
	c, err := ServiceCluster(service, policy, subsets, Sidecar)
	if err != nil {
		return nil, err
	}
	common := commonTLS()
	common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
				SanType: tlsv3.SubjectAltNameMatcher_URI,
				Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: peer.Identity}},
			}}},
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: resource.RootsSecret},
		},
	}
	socket, err := tlsTransport(&tlsv3.UpstreamTlsContext{CommonTlsContext: common})
	if err != nil {
		return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
	}
	if peer.Always {
		c.TransportSocket = socket
	} else {
		c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{{
			Name: mutualTLSSocket, Match: hasMutualTLS(), TransportSocket: socket,
		}}
	}
	if err := Validate(c); err != nil {
		return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
	}
	return c, nil
}

func hasMutualTLS() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{mutualTLSKey: structpb.NewStringValue("true")}}
}

// markMutualTLS marks an endpoint that takes mutual TLS, for transport_socket_matches.
func markMutualTLS(e *endpointv3.LbEndpoint) {
	e.Metadata.FilterMetadata[resource.MatchNamespace] = hasMutualTLS()
}

// secure makes the listener from other sidecars take mutual TLS, and plaintext beside
// it where that is permissive.
func secure(l *listenerv3.Listener, in ListenerInput) error {
	common := commonTLS()
	common.AlpnProtocols = listenerProtocols
	common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
		ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: resource.RootsSecret},
	}
	socket, err := tlsTransport(&tlsv3.DownstreamTlsContext{CommonTlsContext: common, RequireClientCertificate: wrapperspb.Bool(true)})
	if err != nil {
		return err
	}
	chain := l.FilterChains[0]
	chain.Name, chain.TransportSocket = mutualTLSChain, socket
	if in.TLS == Permissive {
		plain := &listenerv3.FilterChain{Name: plaintextChain, Filters: chain.Filters, Metadata: chain.Metadata}
		chain.FilterChainMatch = &listenerv3.FilterChainMatch{TransportProtocol: transportTLS}
		plain.FilterChainMatch = &listenerv3.FilterChainMatch{TransportProtocol: transportRaw}
		l.FilterChains = append(l.FilterChains, plain)
		inspector, err := pack(&tlsinspectorv3.TlsInspector{})
		if err != nil {
			return err
		}
		l.ListenerFilters = []*listenerv3.ListenerFilter{{
			Name: tlsInspector, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: inspector},
		}}
	}
	if l.AccessLog, err = refusalLogs(in.Telemetry.AccessLog); err != nil {
		return err
	}
	return Validate(l)
}

// tellPeer makes the application know who calls: what the caller's certificate says
// is in x-forwarded-client-cert, and never what the caller wrote there.
func tellPeer(m *hcmv3.HttpConnectionManager) {
	m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
}
