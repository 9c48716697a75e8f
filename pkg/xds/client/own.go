// SPDX-License-Identifier: Apache-2.0

package client

import (
	"reflect"
	"sort"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Provide puts secrets of this process's own into service, or newer ones in their
// place; what needs them has been held until then. They are like static ones: no
// server can replace them, and they are never on disk. They must not change any
// more. Provide may be called by any goroutine at any time, but not from Publish.
func (c *Client) Provide(secrets ...*resource.Secret) {
	c.mu.Lock()
	for _, s := range secrets {
		if old := c.store.latest[decode.Secret][s.Name]; old != nil && reflect.DeepEqual(old.res.Value, s) {
			continue
		}
		c.store.put(&entry{
			kind: decode.Secret, name: s.Name, updated: time.Now(), static: true,
			res: &decode.Resource{Kind: decode.Secret, Name: s.Name, Value: s},
		})
	}
	c.mu.Unlock()
	select {
	case c.given <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// secrets shows the secrets in hold: which there are, since when, and what everybody
// may see of them. Private keys and ticket keys are not taken over in the first place.
func (c *Client) secrets() proto.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &adminv3.SecretsConfigDump{}
	var names []string
	for name := range c.store.latest[decode.Secret] {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		e := c.store.latest[decode.Secret][name]
		shown := static(publicPart(e.res.Value.(*resource.Secret)))
		if e.static {
			out.StaticSecrets = append(out.StaticSecrets, &adminv3.SecretsConfigDump_StaticSecret{
				Name: name, LastUpdated: timestamppb.New(e.updated), Secret: shown,
			})
			continue
		}
		out.DynamicActiveSecrets = append(out.DynamicActiveSecrets, &adminv3.SecretsConfigDump_DynamicSecret{
			Name: name, VersionInfo: e.version, LastUpdated: timestamppb.New(e.updated), Secret: shown,
		})
	}
	return out
}

func publicPart(s *resource.Secret) *tlsv3.Secret {
	source := func(d *resource.DataSource) *corev3.DataSource {
		if d.File != "" {
			return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: d.File}}
		}
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: d.Inline}}
	}
	out := &tlsv3.Secret{Name: s.Name}
	switch {
	case s.Certificate != nil:
		out.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: source(&s.Certificate.Chain)}}
	case s.Validation != nil:
		v := &tlsv3.CertificateValidationContext{}
		if !s.Validation.TrustedCA.Empty() {
			v.TrustedCa = source(&s.Validation.TrustedCA)
		}
		for i := range s.Validation.TrustDomains {
			v.TrustedCa = source(&s.Validation.TrustDomains[i].Bundle)
		}
		out.Type = &tlsv3.Secret_ValidationContext{ValidationContext: v}
	}
	return out
}
