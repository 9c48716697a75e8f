// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// addTransports says of each endpoint of an explanation what the connection to it is
// made with: a request that is refused there is most often refused for that.
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
