// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Stream is a port of a service that carries connections and no requests, with
// where they go.
type Stream struct {
	Service  string
	Port     uint16
	Protocol string // tcp or tls
	// Named are destinations by the server name that a TLS client asks for.
	Named []NamedStream
	// Other is the destination of what no name of Named is for.
	Other Destination
	Idle  time.Duration // 0: the default of the proxy
}

// NamedStream is a destination of some server names.
type NamedStream struct {
	ServerNames []string
	Destination Destination
}

// Destination is where connections go, and why.
type Destination struct {
	Route    string // Kind/name of the object that says so; "" for the service itself
	Backends []Backend
}

// Backend is one service with its share of connections.
type Backend struct {
	Service string
	Weight  uint32
}

// Streams lists the ports that carry connections, by service and port.
func (x *Index) Streams() []Stream { return x.streams }

// StreamsDigest is equal for equal Streams.
func (x *Index) StreamsDigest() string { return x.digest }

// StreamsOf lists those of a service, by port.
func (x *Index) StreamsOf(service string) []Stream {
	from, _ := slices.BinarySearchFunc(x.streams, service, func(s Stream, name string) int { return cmp.Compare(s.Service, name) })
	to := from
	for to < len(x.streams) && x.streams[to].Service == service {
		to++
	}
	return x.streams[from:to]
}

// Stream finds a port.
func (x *Index) Stream(service string, port uint16) (Stream, bool) {
	for _, s := range x.StreamsOf(service) {
		if s.Port == port {
			return s, true
		}
	}
	return Stream{}, false
}

// addStreams finds the ports and where what comes for them goes, and names every
// service that routes of connections do.
func (x *Index) addStreams(name func(service string)) {
	for _, kind := range []string{mesh.KindTLSRoute, mesh.KindTCPRoute} {
		for _, o := range x.Model.Objects[kind] {
			if r, ok := o.(mesh.Route); ok {
				for _, p := range r.Parents() {
					name(p.Name)
				}
			}
		}
	}
	for service, s := range x.Model.Services {
		for i := range s.Spec.Ports {
			if p := &s.Spec.Ports[i]; p.Streams() {
				x.streams = append(x.streams, x.stream(service, p))
			}
		}
	}
	slices.SortFunc(x.streams, func(a, b Stream) int { return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port, b.Port)) })
	for i := range x.streams {
		for _, d := range x.streams[i].destinations() {
			for _, b := range d.Backends {
				name(b.Service)
			}
		}
	}
	if len(x.streams) > 0 {
		text, err := json.Marshal(x.streams)
		if err != nil {
			return // plain values always marshal
		}
		x.digest = string(text)
	}
}

func (s *Stream) destinations() []Destination {
	out := []Destination{s.Other}
	for _, n := range s.Named {
		out = append(out, n.Destination)
	}
	return out
}

func (x *Index) stream(service string, p *mesh.Port) Stream {
	s := Stream{Service: service, Port: p.Port, Protocol: p.Protocol, Other: Destination{Backends: []Backend{{service, 1}}}}
	if t := x.policies[service]; t != nil && t.Spec.Timeouts != nil && t.Spec.Timeouts.Idle != nil {
		s.Idle = t.Spec.Timeouts.Idle.Std()
	}
	taken := map[string]bool{}
	for _, r := range x.Model.RoutesAt(service, p.Port, p.Protocol) {
		switch r := r.(type) {
		case *mesh.TCPRoute: // nothing tells connections apart: the oldest has them all
			s.Other = destination(r, r.Spec.Rules)
			return s
		case *mesh.TLSRoute:
			n := NamedStream{Destination: destination(r, r.Spec.Rules)}
			for _, h := range r.Spec.Hostnames {
				if h = strings.ToLower(h); !taken[h] {
					taken[h] = true
					n.ServerNames = append(n.ServerNames, h)
				}
			}
			if len(n.ServerNames) > 0 {
				s.Named = append(s.Named, n)
			}
		}
	}
	return s
}

func destination(r mesh.Object, rules []mesh.StreamRule) Destination {
	d := Destination{Route: r.Key().String()}
	for i := range rules[0].BackendRefs {
		if b := &rules[0].BackendRefs[i]; b.Share() > 0 {
			d.Backends = append(d.Backends, Backend{b.Name, b.Share()})
		}
	}
	return d
}

// names are those that clients know the service by.
func (s *Stream) names() []string { return []string{s.Service, s.Service + "." + MeshDomain} }

// tcpProxy is what hands connections to a destination.
func (s *Stream) tcpProxy(prefix string, d Destination) *tcpv3.TcpProxy {
	p := &tcpv3.TcpProxy{StatPrefix: prefix, MaxConnectAttempts: u32(connectAttempts)}
	if s.Idle > 0 {
		p.IdleTimeout = seconds(s.Idle)
	}
	if len(d.Backends) == 1 {
		p.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: OutboundCluster(d.Backends[0].Service)}
		return p
	}
	w := &tcpv3.TcpProxy_WeightedCluster{}
	for _, b := range d.Backends {
		w.Clusters = append(w.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: OutboundCluster(b.Service), Weight: b.Weight})
	}
	p.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: w}
	return p
}

// connectAttempts are made of a connection of an application before it is given up:
// nothing was sent, so that another endpoint is as good.
const connectAttempts = 3

// streamHosts are the virtual hosts of a service that has no port for requests. The
// first port is what the name alone means.
func (t *routeTable) streamHosts(service string, list []Stream) []*routev3.VirtualHost {
	delete(t.claimed, service)
	var out []*routev3.VirtualHost
	for i := range list {
		s := &list[i]
		at := ":" + strconv.Itoa(int(s.Port))
		name, domains := service+at, []string{service + at, service + "." + MeshDomain + at}
		if i == 0 {
			name, domains = service, append(domains, s.names()...)
		}
		out = append(out, t.streamHost(name, s, domains))
	}
	return out
}

// streamHost is the virtual host of a port that carries connections: a CONNECT
// request for it becomes one, others are not for it.
func (t *routeTable) streamHost(name string, s *Stream, domains []string) *routev3.VirtualHost {
	h := &routev3.VirtualHost{Name: name, Domains: t.claim(domains)}
	if t.flavor == GRPC {
		return h // has no CONNECT
	}
	a := &routev3.RouteAction{
		Timeout: seconds(0),
		UpgradeConfigs: []*routev3.RouteAction_UpgradeConfig{{
			UpgradeType: "CONNECT", ConnectConfig: &routev3.RouteAction_UpgradeConfig_ConnectConfig{},
		}},
	}
	var refs []mesh.HTTPBackendRef
	for _, b := range s.Other.Backends {
		refs = append(refs, mesh.HTTPBackendRef{Name: b.Service, Weight: &b.Weight})
	}
	split(a, refs)
	h.Routes = []*routev3.Route{{
		Name:   "connect",
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}},
		Action: &routev3.Route_Route{Route: a},
	}}
	return h
}
