// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// Kinds of groups.
const (
	// KindMesh is what sidecars and Envoys share, clusters and endpoints, and the routes and
	// secrets of sidecars.
	KindMesh = "mesh"
	// KindSecure is what sidecars with an identity share in place of the mesh's
	// clusters: those that speak mutual TLS.
	KindSecure = "secure"
	// KindSidecar is what one of our sidecars has of its own: listeners, and the
	// cluster of its application.
	KindSidecar = "sidecar"
	// KindEnvoy is the listener and the routes of an Envoy.
	KindEnvoy = "envoy"
	// KindGRPC is what proxyless gRPC clients have: listeners, routes, clusters.
	KindGRPC = "grpc"
)

// Group is the arguments of a build.
type Group struct {
	Kind     string
	Service  string // whose sidecar
	Inbound  string // address of the inbound listener; without one there is none
	Outbound string // likewise
	App      string // the application behind the inbound listener
	Policy   string // for unknown names: "registry-only"
	Identity string // "true": the sidecar has an identity, or waits for one
	// TCPOutbound are listeners for one port of a service each: "ADDRESS=SERVICE:PORT,…".
	TCPOutbound string
}

const (
	userAgentSidecar = "outrigger-sidecar"
	defaultOutbound  = "127.0.0.1:15001"
	maxField         = 512 // bytes; no name or address is longer
)

// String is the group's key: different groups have different keys.
func (g Group) String() string {
	v := url.Values{}
	for _, f := range g.fields() {
		if *f.value != "" {
			v.Set(f.name, *f.value)
		}
	}
	if len(v) == 0 {
		return g.Kind
	}
	return g.Kind + "?" + v.Encode()
}

// ParseGroup reads a key back.
func ParseGroup(key string) (Group, error) {
	kind, query, _ := strings.Cut(key, "?")
	v, err := url.ParseQuery(query)
	if err != nil {
		return Group{}, fmt.Errorf("group %q: %w", key, err)
	}
	g := Group{Kind: kind}
	for _, f := range g.fields() {
		*f.value = v.Get(f.name)
	}
	return g, nil
}

type groupField struct {
	name  string
	value *string
}

func (g *Group) fields() []groupField {
	return []groupField{
		{"service", &g.Service}, {"inbound", &g.Inbound}, {"outbound", &g.Outbound}, {"app", &g.App}, {"policy", &g.Policy},
		{"identity", &g.Identity},
		{"tcp", &g.TCPOutbound},
	}
}

// groupOf is a node's own group.
func groupOf(n server.Node) Group {
	isGRPC := strings.Contains(strings.ToLower(n.UserAgent), "grpc") // "gRPC Go", "grpc-node-js", …
	switch {
	case n.UserAgent == userAgentSidecar || n.Text("service") != "" && !isGRPC && n.UserAgent != "envoy":
		service := field(n, "service")
		if service == "" {
			service = clip(n.Cluster)
		}
		own := Group{
			Kind: KindSidecar, Service: service,
			Inbound: field(n, "inbound"), Outbound: field(n, "outbound"), App: field(n, "app"), Policy: field(n, "outboundPolicy"),
			TCPOutbound: field(n, "tcpOutbound"),
		}
		if n.Text("mutualTLS") == "true" {
			own.Identity = "true"
		}
		return own
	case isGRPC:
		return Group{Kind: KindGRPC}
	}
	outbound := field(n, "outbound")
	if outbound == "" {
		outbound = defaultOutbound
	}
	return Group{Kind: KindEnvoy, Outbound: outbound}
}

// field is what a node says of itself, bounded: it becomes part of a key.
func field(n server.Node, name string) string { return clip(n.Text(name)) }

func clip(s string) string { return s[:min(len(s), maxField)] }

// groupsOf names the sets that a node is given of a type.
func groupsOf(n server.Node, typeURL string) []string {
	own := groupOf(n)
	switch typeURL {
	case server.TypeListener:
		return []string{own.String()}
	case server.TypeCluster:
		switch own.Kind {
		case KindSidecar:
			if own.Identity != "" {
				return []string{KindSecure, own.String()}
			}
			return []string{KindMesh, own.String()}
		case KindGRPC:
			return []string{own.String()}
		}
		return []string{KindMesh}
	case server.TypeRoute:
		if own.Kind == KindGRPC || own.Kind == KindEnvoy { // which have no sessions
			return []string{own.String()}
		}
		return []string{KindMesh}
	case server.TypeEndpoint:
		return []string{KindMesh}
	case server.TypeSecret:
		if own.Kind == KindSidecar {
			return []string{KindMesh}
		}
	}
	return nil // nothing of that type is published; it is answered as empty
}

// ServiceOf is the service that a node says it is of; empty when it says none.
func ServiceOf(n server.Node) string {
	if service := field(n, "service"); service != "" {
		return service
	}
	return clip(n.Cluster)
}
