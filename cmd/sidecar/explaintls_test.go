// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestExplainNamesTheTransportOfEachEndpoint(t *testing.T) {
	mutual := &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{CertificateSecrets: []string{resource.IdentitySecret}}}
	matches := []resource.SocketMatch{{Match: map[string]string{"mutualTLS": "true"}, TLS: mutual}}
	secure := resource.Metadata{resource.MatchNamespace: {"mutualTLS": "true"}}
	for _, c := range []struct {
		name     string
		cluster  *resource.Cluster
		metadata resource.Metadata
		want     string
	}{
		{"no TLS", &resource.Cluster{}, nil, "healthy, plaintext"},
		{"no TLS, whatever the endpoint takes", &resource.Cluster{}, secure, "healthy, plaintext"},
		{"always mutual TLS", &resource.Cluster{TLS: mutual}, nil, "healthy, mutual TLS"},
		{"without a certificate", &resource.Cluster{TLS: &resource.UpstreamTLS{}}, nil, "healthy, TLS"},
		{"where the endpoint takes it", &resource.Cluster{SocketMatches: matches}, secure, "healthy, mutual TLS"},
		{"where it does not", &resource.Cluster{SocketMatches: matches}, nil, "healthy, plaintext"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cluster.Name = "outbound|hello"
			s := &resource.Snapshot{
				Clusters: map[string]*resource.Cluster{c.cluster.Name: c.cluster},
				Assignments: map[string]*resource.Assignment{c.cluster.Name: {Localities: []resource.Locality{{Endpoints: []resource.Endpoint{
					{Address: resource.Address{Host: "10.0.0.1", Port: 80}, Metadata: c.metadata},
				}}}}},
			}
			x := proxy.Explanation{
				Steps:     []proxy.ExplainStep{{Stage: "cluster", Name: c.cluster.Name}},
				Endpoints: []proxy.ExplainStep{{Stage: "endpoint", Name: "10.0.0.1:80", Reason: "healthy"}, {Stage: "endpoint", Reason: "no endpoints"}},
			}
			addTransports(&x, s)
			if x.Endpoints[0].Reason != c.want || x.Endpoints[1].Reason != "no endpoints" {
				t.Errorf("got %+v, want %q", x.Endpoints, c.want)
			}
		})
	}
}
