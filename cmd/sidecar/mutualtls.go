// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/identity"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// provideIdentity hands the sidecar's certificate and roots on to the configuration,
// which names them, until ctx ends. The key stays in this process.
func (d *plane) provideIdentity(ctx context.Context) error {
	changed, stop := d.env.Certificates.Changes()
	defer stop()
	for {
		if c := d.env.Certificates.Credentials(); c != nil {
			d.client.Provide(ownSecrets(c)...)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// ownSecrets are credentials as the configuration has them. Peers are checked as
// X.509-SVIDs of the trust domain.
func ownSecrets(c *identity.Credentials) []*resource.Secret {
	return []*resource.Secret{
		{Name: resource.IdentitySecret, Certificate: &resource.TLSCertificate{
			Chain: resource.DataSource{Inline: c.CertificateChain}, Key: resource.DataSource{Inline: c.PrivateKey},
		}},
		{Name: resource.RootsSecret, Validation: &resource.ValidationContext{
			TrustDomains: []resource.TrustDomain{{Name: c.Identity.TrustDomain, Bundle: resource.DataSource{Inline: c.TrustBundle}}}, MaxDepth: -1,
		}},
	}
}

// What an inbound listener takes.
const (
	takesPlaintext  = "plaintext"
	takesStrict     = "strict"     // mutual TLS only
	takesPermissive = "permissive" // mutual TLS, and plaintext beside it
)

// mutualTLSState is what /mutual-tls of the admin port shows.
type mutualTLSState struct {
	// Enabled: this sidecar has an identity, or waits for one.
	Enabled  bool   `json:"enabled"`
	Identity string `json:"identity,omitempty"`
	// Until is when the certificate expires.
	Until time.Time `json:"certificateUntil,omitzero"`
	// Error is why there is no certificate, or no new one.
	Error string `json:"error,omitempty"`
	// Inbound is what the inbound listeners take, by name.
	Inbound map[string]string `json:"inbound"`
}

func (d *plane) mutualTLS() any {
	s := mutualTLSState{Enabled: d.env.Options.Secure(), Inbound: map[string]string{}}
	if d.env.Certificates != nil {
		c := d.env.Certificates.Status()
		s.Identity, s.Until, s.Error = c.Identity, c.NotAfter, c.LastError
	}
	if snapshot := d.latest.Load(); snapshot != nil {
		for name, l := range snapshot.Listeners {
			if l.Direction == resource.Inbound {
				s.Inbound[name] = takes(l)
			}
		}
	}
	return s
}

// takes says what a listener takes.
func takes(l *resource.Listener) string {
	secure, plain := false, false
	for _, c := range append([]*resource.FilterChain{l.DefaultFilterChain}, l.FilterChains...) {
		switch {
		case c == nil:
		case c.TLS != nil && c.TLS.RequireClientCertificate:
			secure = true
		default:
			plain = true
		}
	}
	switch {
	case secure && plain:
		return takesPermissive
	case secure:
		return takesStrict
	}
	return takesPlaintext
}
