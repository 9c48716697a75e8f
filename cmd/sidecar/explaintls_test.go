// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
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

func TestExplainHintsWhereOneSideSpeaksNoMutualTLS(t *testing.T) {
	mutual := &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{CertificateSecrets: []string{resource.IdentitySecret}}}
	own := &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{CertificateSecrets: []string{"mine"}}}
	matches := []resource.SocketMatch{{Match: map[string]string{"mutualTLS": "true"}, TLS: mutual}}
	secure := resource.Metadata{resource.MatchNamespace: {"mutualTLS": "true"}}
	const (
		refuses = "10.0.0.1:80 of c: mutual TLS is taken there, and this sidecar, which has no identity, speaks plaintext: "
		strange = "10.0.0.1:80 of c: registered without an identity of the mesh, and mutual TLS is demanded of it: "
	)
	for _, c := range []struct {
		name      string
		cluster   resource.Cluster
		endpoints []resource.Metadata
		want      string // the beginning of the only hint; "" for none
	}{
		{"both in the clear", resource.Cluster{}, []resource.Metadata{nil}, ""},
		{"both with mutual TLS", resource.Cluster{TLS: mutual}, []resource.Metadata{secure}, ""},
		{"each as it can", resource.Cluster{SocketMatches: matches}, []resource.Metadata{nil, secure}, ""},
		{"this one has no identity", resource.Cluster{}, []resource.Metadata{secure}, refuses},
		{"that one has no identity", resource.Cluster{TLS: mutual}, []resource.Metadata{nil}, strange},
		{"none of them has", resource.Cluster{TLS: mutual}, []resource.Metadata{nil, nil}, "10.0.0.1:80 and 1 more of c: registered without"},
		{"TLS that is not the mesh's", resource.Cluster{TLS: own}, []resource.Metadata{nil}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cluster.Name = "c"
			var list []resource.Endpoint
			for i, m := range c.endpoints {
				list = append(list, resource.Endpoint{Address: resource.Address{Host: "10.0.0." + string(rune('1'+i)), Port: 80}, Metadata: m})
			}
			s := &resource.Snapshot{
				Clusters:    map[string]*resource.Cluster{"c": &c.cluster},
				Assignments: map[string]*resource.Assignment{"c": {Localities: []resource.Locality{{Endpoints: list}}}},
			}
			x := proxy.Explanation{Steps: []proxy.ExplainStep{{Stage: "cluster", Name: "c"}}}
			addTransports(&x, s)
			if hints := strings.Join(x.Hints, "\n"); (c.want == "") != (hints == "") || !strings.HasPrefix(hints, c.want) || len(x.Hints) > 1 {
				t.Errorf("hints at %q, want %q", hints, c.want)
			}
		})
	}
}
