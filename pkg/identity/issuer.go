// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// Lives of the authority's own certificates.
const (
	rootLife         = 10 * 365 * 24 * time.Hour
	intermediateLife = 90 * 24 * time.Hour
	// issuerBackdate is for clocks that are behind this one.
	issuerBackdate = time.Hour
	// leafBackdate is the same for certificates of sidecars.
	leafBackdate = 5 * time.Minute
)

// Issuer signs certificates of sidecars. It holds a private key.
type Issuer struct {
	certificate *x509.Certificate
	key         crypto.Signer
	chain       [][]byte // DER, from certificate up, the root left out
	root        []byte   // DER
}

// String keeps the key out of messages.
func (i *Issuer) String() string   { return "issuer " + i.certificate.Subject.String() }
func (i *Issuer) GoString() string { return i.String() }

// ReadIssuer reads an outside authority's files as cert-manager writes them: the
// issuer's certificate, followed by those above it; its key; and the root, which
// may be left out where it is the last of the chain. Errors name the part.
func ReadIssuer(now time.Time, chainPEM, keyPEM, rootPEM []byte) (*Issuer, error) {
	chain, err := DecodeCertificates(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	c := chain[0]
	i := &Issuer{certificate: c}
	if i.key, err = matching(c, key); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if err := checkIssuer(now, c); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	root := chain[len(chain)-1]
	if len(rootPEM) > 0 {
		roots, err := DecodeCertificates(rootPEM)
		if err != nil {
			return nil, fmt.Errorf("root: %w", err)
		}
		if len(roots) != 1 {
			return nil, fmt.Errorf("root: %d certificates, want the one that the issuer is below", len(roots))
		}
		root = roots[0]
	}
	if root.CheckSignatureFrom(root) != nil {
		return nil, fmt.Errorf("root: %s is not self-signed: give the root's certificate, in a file of its own or at the end of the chain", root.Subject)
	}
	between, pool := x509.NewCertPool(), x509.NewCertPool()
	pool.AddCert(root)
	for _, c := range chain {
		if !c.Equal(root) {
			i.chain = append(i.chain, c.Raw)
			between.AddCert(c)
		}
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fmt.Errorf("certificate: does not lead to the root: %w", err)
	}
	i.root = root.Raw
	return i, nil
}

func checkIssuer(now time.Time, c *x509.Certificate) error {
	switch {
	case !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%s may not sign certificates: it is not that of an authority", c.Subject)
	case now.After(c.NotAfter):
		return fmt.Errorf("%s expired at %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s is not valid before %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
	}
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return fmt.Errorf("ECDSA key of %d bits: want at least 256", k.Curve.Params().BitSize)
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Errorf("RSA key of %d bits: want at least 2048", k.N.BitLen())
		}
	}
	return nil
}

// decodeKey reads a private key in any of the three usual forms.
func decodeKey(data []byte) (any, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	switch block.Type {
	case pemPrivateKey:
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("is no PKCS #8 private key")
		}
		return key, nil
	case "EC PRIVATE KEY":
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("is no EC private key")
		}
		return key, nil
	case "RSA PRIVATE KEY":
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("is no RSA private key")
		}
		return key, nil
	}
	return nil, fmt.Errorf("PEM block %q: want a private key that is not encrypted", block.Type)
}

// newRoot makes a self-signed root.
func newRoot(now time.Time, trustDomain string) (keyPair, error) {
	serial, key, err := fresh()
	if err != nil {
		return keyPair{}, err
	}
	template := authorityTemplate(serial, "root", trustDomain, now, now.Add(rootLife), 1)
	return sign(template, template, key, key)
}

// newIntermediate makes one below a root, living no longer than it.
func newIntermediate(now time.Time, trustDomain string, root *x509.Certificate, rootKey crypto.Signer) (keyPair, error) {
	serial, key, err := fresh()
	if err != nil {
		return keyPair{}, err
	}
	until := earlier(now.Add(intermediateLife), root.NotAfter)
	return sign(authorityTemplate(serial, "intermediate", trustDomain, now, until, 0), root, key, rootKey)
}

func fresh() (*big.Int, *ecdsa.PrivateKey, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return serial, key, err
}

// newSerial is 127 random bits, above zero (RFC 5280, section 4.1.2.2).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

func authorityTemplate(serial *big.Int, what, trustDomain string, now, until time.Time, below int) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			Organization: []string{trustDomain}, CommonName: fmt.Sprintf("Outrigger %s %x", what, serial.Bytes()[:min(4, len(serial.Bytes()))]),
		},
		NotBefore: now.Add(-issuerBackdate), NotAfter: until,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
		MaxPathLen: below, MaxPathLenZero: below == 0,
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
}

func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, by crypto.Signer) (keyPair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		return keyPair{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	return keyPair{der, pkcs8}, err
}

// own makes the issuer of a state whose signing root is the authority's own.
func (s *State) own() (*Issuer, error) {
	c, err := x509.ParseCertificate(s.Intermediate.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := signer(c, s.Intermediate.Key)
	if err != nil {
		return nil, err
	}
	return &Issuer{certificate: c, key: key, chain: [][]byte{c.Raw}, root: s.root(Signing).Certificate}, nil
}

// renewIntermediate gives a state whose signing root is its own a new intermediate.
func (s *State) renewIntermediate(now time.Time) error {
	r := s.root(Signing)
	c, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return err
	}
	key, err := signer(c, r.Key)
	if err != nil {
		return err
	}
	pair, err := newIntermediate(now, s.TrustDomain, c, key)
	if err != nil {
		return err
	}
	s.Intermediate = &pair
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
