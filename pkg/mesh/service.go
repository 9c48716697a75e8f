// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Service is a name that clients call. Instances come from the registry;
// Endpoints lists addresses that no registry knows.
type Service struct {
	Header
	Spec ServiceSpec `json:"spec,omitzero" doc:"What the service offers."`
	// Implicit is set for a service that only its registered instances declare.
	Implicit bool `json:"-"`
}

// ServiceSpec is what a user says of a service.
type ServiceSpec struct {
	Ports     []Port           `json:"ports,omitzero" rule:"maxitems=64" doc:"Ports that clients use. Without any, each instance's own port is used and every port of the name routes."`
	Endpoints []StaticEndpoint `json:"endpoints,omitzero" rule:"maxitems=4096" doc:"Fixed addresses, beside the instances that register."`
	DNS       *Unsupported     `json:"dns,omitempty"`
}

// Port is one port of a service.
type Port struct {
	Name     string `json:"name,omitempty" rule:"maxlen=63" doc:"Name of the port."`
	Port     uint16 `json:"port" rule:"required,min=1" doc:"Port that clients write."`
	Protocol string `json:"protocol,omitempty" rule:"enum=http|http2|grpc|tcp|tls" doc:"Protocol on the port; http when empty. To http, requests of HTTP/2 that are no calls of gRPC go by HTTP/1.1; to http2 and grpc they go by HTTP/2. grpc lets clients of gRPC-Web call it, too; tcp is passed on as it is, tls too and told apart by server name."`
}

// StaticEndpoint is an address that a user lists.
type StaticEndpoint struct {
	Address string `json:"address" rule:"required,maxlen=64" doc:"IP address."`
	Port    uint16 `json:"port" rule:"required,min=1" doc:"Port."`
	Zone    string `json:"zone,omitempty" rule:"maxlen=63" doc:"Zone of the endpoint."`
	Weight  uint32 `json:"weight,omitempty" rule:"max=65535" doc:"Share of the traffic relative to the others; 1 when empty."`
	Version string `json:"version,omitempty" rule:"maxlen=63" doc:"Version that runs there."`
}

// staticPrefix begins the ids of listed addresses; registrations cannot take it.
const staticPrefix = "static-"

// Protocols of ports and instances. HTTP stands for gRPC, too: both are told apart
// request by request. HTTP2 and GRPC say that any request may come by HTTP/2.
const (
	ProtocolHTTP  = "http"
	ProtocolHTTP2 = "http2"
	ProtocolGRPC  = "grpc"
	ProtocolTCP   = "tcp"
	ProtocolTLS   = "tls"
)

// SpeaksHTTP2 says that whatever declares the protocol takes any request by HTTP/2.
func SpeaksHTTP2(protocol string) bool { return protocol == ProtocolHTTP2 || protocol == ProtocolGRPC }

// SpeaksHTTP2 says that a port of the service, and so each of its instances, which have
// one address for all ports, takes any request by HTTP/2. It is false for nil.
func (s *Service) SpeaksHTTP2() bool {
	return s != nil && slices.ContainsFunc(s.Spec.Ports, func(p Port) bool { return SpeaksHTTP2(p.Protocol) })
}

// Streams says that the port carries connections and no requests.
func (p *Port) Streams() bool { return p.Protocol == ProtocolTCP || p.Protocol == ProtocolTLS }

func implicitService(name string) *Service {
	return &Service{
		Header:   Header{APIVersion: groupOutrigger, Kind: KindService, Metadata: Metadata{Name: name}},
		Implicit: true,
	}
}

func (s *Service) check(f *faults) {
	checkServiceName(f, "metadata.name", s.Metadata.Name)
	if s.Metadata.Name != "" && ownHost(s.Metadata.Name) {
		f.add("metadata.name", "localhost and addresses cannot name a service, got %q", clip(s.Metadata.Name))
	}
	ports, names := map[uint16]bool{}, map[string]bool{}
	for i, p := range s.Spec.Ports {
		path := index("spec.ports", i)
		if ports[p.Port] {
			f.add(path+".port", "port %d is listed twice", p.Port)
		}
		if p.Name != "" && names[p.Name] {
			f.add(path+".name", "name %q is listed twice", p.Name)
		}
		if p.Streams() != s.Spec.Ports[0].Streams() {
			f.add(path+".protocol", "tcp and tls are not mixed with http and grpc: an instance has one address for all ports")
		}
		ports[p.Port], names[p.Name] = true, true
	}
	seen := map[netip.AddrPort]bool{}
	for i, e := range s.Spec.Endpoints {
		path := index("spec.endpoints", i)
		addr, err := netip.ParseAddr(e.Address)
		switch {
		case err != nil:
			f.add(path+".address", "want an IP address, got %q", clip(e.Address))
			continue
		case !UsableAddress(addr):
			f.add(path+".address", "%s cannot be an endpoint: unspecified, multicast and link-local addresses are refused", addr)
		}
		at := netip.AddrPortFrom(addr, e.Port)
		if seen[at] {
			f.add(path, "endpoint %s is listed twice", at)
		}
		seen[at] = true
	}
}

func (s *Service) staticInstances() []*Instance {
	out := make([]*Instance, 0, len(s.Spec.Endpoints))
	for _, e := range s.Spec.Endpoints {
		out = append(out, &Instance{
			Service: s.Metadata.Name, ID: staticPrefix + netJoin(e.Address, e.Port), Address: e.Address, Port: e.Port,
			Protocol: s.protocol(), Zone: e.Zone, Weight: e.Weight, Version: e.Version, Health: HealthHealthy, Static: true,
		})
	}
	return out
}

// protocol is what instances speak, going by the first port.
func (s *Service) protocol() string {
	if len(s.Spec.Ports) == 0 || s.Spec.Ports[0].Protocol == "" {
		return ProtocolHTTP
	}
	return s.Spec.Ports[0].Protocol
}

// UsableAddress says whether traffic may be sent to an address that somebody
// else named: link-local addresses hold metadata services.
func UsableAddress(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && a.Zone() == "" &&
		a != broadcast && !slices.Contains(metadataAddresses[:], a)
}

// metadataAddresses are those of cloud metadata services that are not link-local.
var metadataAddresses = [...]netip.Addr{
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func netJoin(host string, port uint16) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(a, port).String()
	}
	return host + ":" + strconv.Itoa(int(port))
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
