// SPDX-License-Identifier: Apache-2.0

package certchain

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// make issues a certificate; a nil issuer signs its own.
func (i *issuer) make(t testing.TB, curve elliptic.Curve, name string, authority bool, edit func(*x509.Certificate)) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: authority, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if authority {
		c.KeyUsage = x509.KeyUsageCertSign
	}
	if edit != nil {
		edit(c)
	}
	parent, by := c, key
	if i != nil {
		parent, by = i.cert, i.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &issuer{c, key}
}

// below has n authorities below i and a leaf below them, leaf first.
func (i *issuer) below(t testing.TB, n int) []*x509.Certificate {
	t.Helper()
	var chain []*x509.Certificate
	for k := range n {
		i = i.make(t, elliptic.P256(), fmt.Sprintf("authority %d", k), true, nil)
		chain = append(chain, i.cert)
	}
	chain = append(chain, i.make(t, elliptic.P256(), "leaf", false, nil).cert)
	slices.Reverse(chain)
	return chain
}

func optionsOf(root *issuer) x509.VerifyOptions {
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	return x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
}

func TestChainsVerifyInAnyOrderUpToTheirLength(t *testing.T) {
	root := (*issuer)(nil).make(t, elliptic.P256(), "root", true, nil)
	options := optionsOf(root)
	for n := range 6 {
		chain := root.below(t, n)
		_, err := Verify(chain, options, MaxLength)
		if long := n+1 > MaxLength; long != errors.Is(err, ErrTooLong) || !long && err != nil {
			t.Errorf("%d authorities between: %v", n, err)
		}
		for range 2 {
			if found, err := Verify(chain, options, 7); err != nil || len(found) != 1 || len(found[0]) != n+2 {
				t.Errorf("%d authorities between, where that many may be: %v, %v", n, found, err)
			}
			slices.Reverse(chain[1:]) // TLS 1.3 allows any order
		}
		if n > 0 {
			with := append(slices.Clone(chain), root.cert) // many send it
			if _, err := Verify(with, options, 7); err != nil {
				t.Errorf("%d authorities between and the root: %v", n, err)
			}
		}
		if n > 1 {
			if _, err := Verify(slices.Delete(chain, 1, 2), options, 7); err == nil {
				t.Errorf("%d authorities between, one of them not shown: verified", n)
			}
		}
	}
}

// A stranger's authorities never come so far that their keys are used.
func TestNoKeyOfAStrangerIsUsed(t *testing.T) {
	root := (*issuer)(nil).make(t, elliptic.P256(), "root", true, nil)
	stranger := (*issuer)(nil).make(t, elliptic.P521(), "root", true, nil) // of the same name
	options := optionsOf(root)
	for name, list := range map[string][]*x509.Certificate{
		"a root of its own":     {stranger.cert},
		"authorities below it":  stranger.below(t, 3)[1:],
		"a leaf as authority":   {root.make(t, elliptic.P256(), "leaf", false, nil).make(t, elliptic.P521(), "x", true, nil).cert},
		"ones that sign others": append(stranger.below(t, 2)[1:], stranger.cert),
	} {
		if found, _ := vouched(list, options); !found.Equal(x509.NewCertPool()) {
			t.Errorf("%s: found", name)
		}
	}
	known := root.make(t, elliptic.P256(), "authority", true, nil)
	only := x509.NewCertPool()
	only.AddCert(known.cert)
	if found, _ := vouched([]*x509.Certificate{stranger.cert, known.cert}, options); !found.Equal(only) {
		t.Error("the authority of a root beside a stranger's: not the one that was found")
	}
	var unknown x509.UnknownAuthorityError
	if _, err := Verify(stranger.below(t, 1), options, MaxLength); !errors.As(err, &unknown) {
		t.Errorf("a stranger's chain: %v", err)
	}
	// x509 says which authority it has tried: one of the name that the leaf's has.
	other := (*issuer)(nil).make(t, elliptic.P521(), "stranger", true, nil)
	leaf := (*issuer)(nil).make(t, elliptic.P521(), "stranger", true, nil).make(t, elliptic.P256(), "leaf", false, nil)
	if _, err := Verify([]*x509.Certificate{leaf.cert, other.cert}, options, MaxLength); !errors.As(err, &unknown) || strings.Contains(err.Error(), "candidate") {
		t.Errorf("a stranger's leaf beside its authority: %v", err)
	}
}

func TestAnExpiredAuthorityIsTheReason(t *testing.T) {
	root := (*issuer)(nil).make(t, elliptic.P256(), "root", true, nil)
	old := root.make(t, elliptic.P256(), "old", true, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	chain := []*x509.Certificate{old.make(t, elliptic.P256(), "leaf", false, nil).cert, old.cert}
	var invalid x509.CertificateInvalidError
	if _, err := Verify(chain, optionsOf(root), MaxLength); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("got %v", err)
	}
}

// What a stranger's handshake costs at most, beside crypto/x509 alone with as much as
// a Certificate message takes, and what a peer's with one authority between does.
func BenchmarkVerify(b *testing.B) {
	root := (*issuer)(nil).make(b, elliptic.P256(), "root", true, nil)
	options := optionsOf(root)
	hostile := func(n int) []*x509.Certificate {
		// All have the name that the others are issued by, so that each is tried.
		other := (*issuer)(nil).make(b, elliptic.P521(), "root", true, nil)
		chain := []*x509.Certificate{other.make(b, elliptic.P521(), "leaf", false, nil).cert}
		for range n {
			chain = append(chain, other.make(b, elliptic.P521(), "root", true, func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(time.Minute) }).cert)
		}
		return chain
	}
	plain := func(chain []*x509.Certificate) {
		o := options
		o.Intermediates = x509.NewCertPool()
		for _, c := range chain[1:] {
			o.Intermediates.AddCert(c)
		}
		_, _ = chain[0].Verify(o)
	}
	long, short, usual := hostile(100), hostile(MaxLength-1), root.below(b, 1)
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"x509 alone, 100 of a stranger", func() { plain(long) }},
		{"x509 alone, 3 of a stranger", func() { plain(short) }},
		{"100 of a stranger", func() { _, _ = Verify(long, options, MaxLength) }},
		{"3 of a stranger", func() { _, _ = Verify(short, options, MaxLength) }},
		{"x509 alone, a peer", func() { plain(usual) }},
		{"a peer", func() { _, _ = Verify(usual, options, MaxLength) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				c.do()
			}
		})
	}
}
