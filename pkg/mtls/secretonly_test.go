// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// below makes an intermediate authority.
func (a *authority) below(name string) *authority {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	must(a.t, err)
	cert, err := x509.ParseCertificate(der)
	must(a.t, err)
	return &authority{t: a.t, cert: cert, key: key}
}

// A context whose validation is a secret and nothing else checks by the secret alone,
// chains with an intermediate authority among them.
func TestValidationMayBeASecretOnly(t *testing.T) {
	ca := newAuthority(t, "ca")
	issuer := ca.below("intermediate")
	r := newRig(t, mtls.Limits{})
	secrets := map[string]*resource.Secret{
		"own":   {Name: "own", Certificate: ca.issue([]string{"a.example"}, nil).res()},
		"roots": {Name: "roots", Validation: &resource.ValidationContext{TrustDomains: []resource.TrustDomain{{Name: "mesh.example", Bundle: resource.DataSource{Inline: ca.pem}}}, MaxDepth: -1}},
	}
	var shared mtls.Shared
	for range 2 { // parsed, and shared
		s, err := mtls.NewServerContext(&resource.DownstreamTLS{
			CommonTLS: resource.CommonTLS{CertificateSecrets: []string{"own"}, ValidationSecret: "roots"}, RequireClientCertificate: true,
		}, mtls.Options{Secrets: func(name string) *resource.Secret { return secrets[name] }, Shared: &shared})
		must(t, err)
		if n := len(s.Certificates()); n != 2 {
			t.Errorf("%d certificates are listed, want one and its authority", n)
		}
		mine := issuer.issue([]string{orders}, nil).tls(t)
		mine.Certificate = append(mine.Certificate, issuer.cert.Raw)
		c, err := dial(t, r.listen(func() *mtls.ServerContext { return s }, 0), &tls.Config{
			RootCAs: ca.pool(), ServerName: "a.example",
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mine, nil },
		})
		must(t, err)
		info := receive(t, "handshake", r.infos)
		if info.Peer == nil || info.Peer.URI != orders {
			t.Errorf("the peer is %+v", info.Peer)
		}
		must(t, c.Close())
	}
}
