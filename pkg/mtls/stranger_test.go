// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A certificate that nobody vouches for may have 256 KiB of names: a thousand of them
// must leave nothing behind.
func TestNothingIsKeptOfCertificatesThatNobodyVouchesFor(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := &url.URL{Scheme: "spiffe", Host: "mesh.example", Path: "/a"}
	own := func(serial int64) *x509.Certificate {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{id},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		return c
	}
	known := own(1)
	for name, v := range map[string]*verifier{
		"authorities":         {roots: pool([]*x509.Certificate{known})},
		"trust domains":       {domains: map[string]*x509.CertPool{"mesh.example": pool([]*x509.Certificate{known})}},
		"anybody is accepted": {res: resource.ValidationContext{AcceptUntrusted: true}},
		"nobody to vouch":     {},
	} {
		v.usage, v.res.MaxDepth = x509.ExtKeyUsageClientAuth, -1
		for serial := range int64(20) {
			chain := []*x509.Certificate{own(100 + serial)}
			_, _ = v.verify(chain, false, time.Now(), "")
			if v.roots != nil || v.domains != nil {
				continue // the handshake has failed
			}
			if v.identity(chain) != nil {
				t.Errorf("%s: a stranger has an identity", name)
			}
		}
		if len(v.known.m) != 0 {
			t.Errorf("%s: %d strangers are kept", name, len(v.known.m))
		}
		if v.roots == nil {
			continue
		}
		chain := []*x509.Certificate{known}
		if _, err := v.verify(chain, false, time.Now(), ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if first, again := v.identity(chain), v.identity(chain); first == nil || first != again {
			t.Errorf("%s: the identity of a peer is not shared", name)
		}
	}
}
