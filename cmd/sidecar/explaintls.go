// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// addTransports says of each endpoint of an explanation what the connection to it is
// made with: a request that is refused there is most often refused for that. Where one
// side demands mutual TLS and the other does not speak it, a hint says what to do.
func addTransports(x *proxy.Explanation, s *resource.Snapshot) {
	if s == nil {
		return
	}
	var clusters []*resource.Cluster
	for _, step := range x.Steps {
		if c := s.Clusters[step.Name]; step.Stage == "cluster" && c != nil {
			clusters = append(clusters, c)
		}
	}
	for i := range x.Endpoints {
		e := &x.Endpoints[i]
		if e.Name == "" {
			continue // no endpoint
		}
		if how := transports(clusters, s, e.Name); len(how) > 0 {
			e.Reason += ", " + strings.Join(how, " or ")
		}
	}
	for _, c := range clusters {
		x.Hints = append(x.Hints, handshakeHints(c, s.Assignments[c.Name])...)
	}
}

// mutualTLSKey is what an endpoint's metadata of MatchNamespace has, "true", where the
// control plane knows that it takes mutual TLS.
const mutualTLSKey = "mutualTLS"

// handshakeHints say which endpoints of a cluster expect another transport than they get.
func handshakeHints(c *resource.Cluster, a *resource.Assignment) (hints []string) {
	if a == nil {
		return nil
	}
	var refusing, nameless []string // those that take mutual TLS and get plaintext; those that have no identity and should
	for i := range a.Localities {
		for j := range a.Localities[i].Endpoints {
			e := &a.Localities[i].Endpoints[j]
			t, takes := socketFor(c, e), e.Metadata[resource.MatchNamespace][mutualTLSKey] == "true"
			address := strings.TrimPrefix(addressText(e.Address), "unix:")
			switch {
			case takes && t == nil:
				refusing = append(refusing, address)
			case !takes && t != nil && slices.Contains(t.CertificateSecrets, resource.IdentitySecret):
				nameless = append(nameless, address)
			}
		}
	}
	if len(refusing) > 0 {
		hints = append(hints, fmt.Sprintf("%s of %s: mutual TLS is taken there, and this sidecar, which has no identity, speaks plaintext: that is refused unless the service's TrafficPolicy says tls.mode permissive; start this sidecar with --trust-bundle",
			someOf(refusing), c.Name))
	}
	if len(nameless) > 0 {
		hints = append(hints, fmt.Sprintf("%s of %s: registered without an identity of the mesh, and mutual TLS is demanded of it: handshakes there fail; start the sidecar there, or put one there, with --trust-bundle, or let the service's TrafficPolicy say tls.mode permissive for a while",
			someOf(nameless), c.Name))
	}
	return hints
}

// someOf names the first of a list.
func someOf(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return fmt.Sprintf("%s and %d more", list[0], len(list)-1)
}

// transports are those to an address, of which there are several where clusters
// differ that have it.
func transports(clusters []*resource.Cluster, s *resource.Snapshot, address string) []string {
	var out []string
	for _, c := range clusters {
		how := ""
		if e := endpointAt(s.Assignments[c.Name], address); e != nil {
			how = transport(socketFor(c, e))
		} else if len(clusters) == 1 && len(c.SocketMatches) == 0 {
			how = transport(c.TLS) // an address that a name was resolved to
		}
		if how != "" && !slices.Contains(out, how) {
			out = append(out, how)
		}
	}
	return out
}

func endpointAt(a *resource.Assignment, address string) *resource.Endpoint {
	if a == nil {
		return nil
	}
	for i := range a.Localities {
		for j := range a.Localities[i].Endpoints {
			e := &a.Localities[i].Endpoints[j]
			if strings.TrimPrefix(addressText(e.Address), "unix:") == address {
				return e
			}
		}
	}
	return nil
}

// socketFor is what a cluster's connections to the endpoint are secured with; nil:
// nothing.
func socketFor(c *resource.Cluster, e *resource.Endpoint) *resource.UpstreamTLS {
	has := e.Metadata[resource.MatchNamespace]
next:
	for _, m := range c.SocketMatches {
		for k, v := range m.Match {
			if got, ok := has[k]; !ok || got != v {
				continue next
			}
		}
		return m.TLS
	}
	return c.TLS
}

func transport(t *resource.UpstreamTLS) string {
	switch {
	case t == nil:
		return "plaintext"
	case len(t.Certificates)+len(t.CertificateSecrets) > 0:
		return "mutual TLS"
	}
	return "TLS"
}
