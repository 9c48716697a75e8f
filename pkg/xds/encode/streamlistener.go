// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const (
	tcpFilter = "envoy.filters.network.tcp_proxy"
	// inspectLimit is how long a client may take to say its TLS hello. One that says
	// nothing speaks something else.
	inspectLimit = 5 * time.Second
)

// passOn makes the inbound listener hand connections to the application as they are.
func passOn(l *listenerv3.Listener, in ListenerInput) (*listenerv3.Listener, error) {
	p := &tcpv3.TcpProxy{StatPrefix: InboundListener, ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: InboundCluster(in.Service)}}
	filter, err := tcpProxy(p, in.Telemetry)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", l.Name, err)
	}
	for _, c := range l.FilterChains {
		c.Filters, c.Metadata = []*listenerv3.Filter{filter}, connectionTap(in)
	}
	return l, nil
}

// detect lets clients in the clear wait for the server to speak: there is no policy that
// silence could get around, as plaintext is allowed.
func detect(l *listenerv3.Listener) {
	l.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		MetadataNamespace: {Fields: map[string]*structpb.Value{"protocolDetection": object(nil)}},
	}}
}

func tcpProxy(p *tcpv3.TcpProxy, t mesh.TelemetrySpec) (*listenerv3.Filter, error) {
	logs, err := accessLogs(t.AccessLog)
	if err != nil {
		return nil, err
	}
	p.AccessLog = logs
	packed, err := pack(p)
	if err != nil {
		return nil, err
	}
	return &listenerv3.Filter{Name: tcpFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed}}, nil
}

// streamChains gathers the filter chains of streams.
type streamChains struct {
	in       ListenerInput
	chains   []*listenerv3.FilterChain
	claimed  map[string]bool // ports with server names: no two chains may share one
	tlsPorts []uint16
	err      error
}

// addStreams gives the outbound listener a chain for each destination of connections:
// by the address that a name of the mesh has at the sidecar and the port, and for TLS
// by the server name and the port, whatever the address. What is none of these is a
// request, as without streams. A client of TLS that was not intercepted may use
// the listener's own port, where its server name is a service's.
func addStreams(l *listenerv3.Listener, in ListenerInput) (*listenerv3.Listener, error) {
	s := &streamChains{in: in, claimed: map[string]bool{}}
	own := uint16(l.GetAddress().GetSocketAddress().GetPortValue()) // 0: none
	var direct []uint16
	if own != 0 {
		direct = []uint16{own}
	}
	for i := range in.Streams { // a service's own names first: no route may take them
		st := &in.Streams[i]
		s.add(st.label(), match(st.Port), st.names(), st, st.Other)
		if st.Protocol != mesh.ProtocolTLS {
			continue
		}
		for _, port := range append([]uint16{st.Port}, direct...) {
			s.byName(fmt.Sprintf("%s/own@%d", st.label(), port), port, st.names(), st, st.Other)
		}
	}
	for i := range in.Streams {
		st := &in.Streams[i]
		for k, n := range st.Named {
			label := st.label() + "/" + strconv.Itoa(k)
			m := match(st.Port)
			m.ServerNames, m.TransportProtocol = n.ServerNames, "tls"
			s.add(label, m, st.names(), st, n.Destination)
			for _, port := range append([]uint16{st.Port}, direct...) {
				s.byName(fmt.Sprintf("%s@%d", label, port), port, n.ServerNames, st, n.Destination)
			}
		}
	}
	if s.err != nil {
		return nil, fmt.Errorf("listener %q: %w", l.Name, s.err)
	}
	l.DefaultFilterChain, l.FilterChains = l.FilterChains[0], s.chains
	var err error
	if l.ListenerFilters, err = s.filters(); err != nil {
		return nil, fmt.Errorf("listener %q: %w", l.Name, err)
	}
	l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = seconds(inspectLimit), true
	if err := Validate(l); err != nil {
		return nil, fmt.Errorf("listener %q: %w", l.Name, err)
	}
	return l, nil
}

// TCPOutbound is a listener of its own for one port of a service, for applications
// that are told an address and are not intercepted.
func TCPOutbound(in ListenerInput, st Stream) (*listenerv3.Listener, error) {
	name := st.label()
	addr, err := Address(in.Address)
	if err != nil {
		return nil, fmt.Errorf("listener %q: address: %w", name, err)
	}
	s := &streamChains{in: in, claimed: map[string]bool{}}
	for k, n := range st.Named {
		m := &listenerv3.FilterChainMatch{ServerNames: n.ServerNames, TransportProtocol: "tls"}
		s.add(name+"/"+strconv.Itoa(k), m, nil, &st, n.Destination)
	}
	s.add(name, nil, nil, &st, st.Other)
	l := &listenerv3.Listener{Name: name, StatPrefix: name, Address: addr, TrafficDirection: corev3.TrafficDirection_OUTBOUND, FilterChains: s.chains}
	if len(st.Named) > 0 {
		inspector, err := listenerFilter("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{})
		if err != nil {
			return nil, err
		}
		l.ListenerFilters = []*listenerv3.ListenerFilter{inspector}
		l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = seconds(inspectLimit), true
	}
	if s.err != nil {
		return nil, fmt.Errorf("listener %q: %w", name, s.err)
	}
	if err := Validate(l); err != nil {
		return nil, fmt.Errorf("listener %q: %w", name, err)
	}
	return l, nil
}

// label names a stream's chains and numbers.
func (s *Stream) label() string { return s.Service + ":" + strconv.Itoa(int(s.Port)) }

func match(port uint16) *listenerv3.FilterChainMatch {
	return &listenerv3.FilterChainMatch{DestinationPort: u32(uint32(port))}
}

// byName adds a chain for server names at a port, those that no chain has yet.
func (s *streamChains) byName(name string, port uint16, serverNames []string, st *Stream, d Destination) {
	m := match(port)
	for _, n := range serverNames {
		if key := n + ":" + strconv.Itoa(int(port)); !s.claimed[key] {
			s.claimed[key] = true
			m.ServerNames = append(m.ServerNames, n)
		}
	}
	if len(m.ServerNames) == 0 {
		return
	}
	m.TransportProtocol = "tls"
	if !slices.Contains(s.tlsPorts, port) {
		s.tlsPorts = append(s.tlsPorts, port)
	}
	s.add(name, m, nil, st, d)
}

// add adds a chain. Where it has names of the mesh, the sidecar puts the addresses in
// that it gave them.
func (s *streamChains) add(name string, m *listenerv3.FilterChainMatch, at []string, st *Stream, d Destination) {
	filter, err := tcpProxy(st.tcpProxy(st.label(), d), s.in.Telemetry)
	if err != nil {
		s.err = err
		return
	}
	c := &listenerv3.FilterChain{Name: name, FilterChainMatch: m, Filters: []*listenerv3.Filter{filter}}
	if len(at) > 0 {
		c.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			MetadataNamespace: {Fields: map[string]*structpb.Value{"destinationNames": texts(at)}},
		}}
	}
	s.chains = append(s.chains, c)
}

// filters find out where a connection was meant to go, and its server name where a
// port has TLS: nobody else is waited for, so that servers may speak first.
func (s *streamChains) filters() ([]*listenerv3.ListenerFilter, error) {
	original, err := listenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{})
	if err != nil || len(s.tlsPorts) == 0 {
		return []*listenerv3.ListenerFilter{original}, err
	}
	inspector, err := listenerFilter("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{})
	if err != nil {
		return nil, err
	}
	slices.Sort(s.tlsPorts)
	var any []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range s.tlsPorts {
		any = append(any, &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
			DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1},
		}})
	}
	one := any[0]
	if len(any) > 1 {
		one = &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
			OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: any},
		}}
	}
	inspector.FilterDisabled = &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_NotMatch{NotMatch: one}}
	return []*listenerv3.ListenerFilter{original, inspector}, nil
}

func listenerFilter(name string, m proto.Message) (*listenerv3.ListenerFilter, error) {
	packed, err := pack(m)
	if err != nil {
		return nil, err
	}
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: packed}}, nil
}
