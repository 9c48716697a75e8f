// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Credentials are what a sidecar shows and what it checks peers with. They do not
// change; a new certificate or bundle comes as new Credentials. All blocks are PEM.
type Credentials struct {
	CertificateChain []byte // the sidecar's own first, the root left out
	PrivateKey       []byte // PKCS #8; never to be written, logged or shown
	TrustBundle      []byte
	NotBefore        time.Time
	NotAfter         time.Time
	Identity         ID
}

// String leaves the key out, as every way of printing does.
func (c Credentials) String() string {
	return fmt.Sprintf("credentials of %s until %s", c.Identity, c.NotAfter.UTC().Format(time.RFC3339))
}

// GoString implements fmt.GoStringer.
func (c Credentials) GoString() string { return c.String() }

// LogValue implements slog.LogValuer.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON keeps the key out of dumps.
func (c Credentials) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", c.String()), nil }

// Source gives the current credentials and tells of the next.
type Source interface {
	// Credentials is nil until there are any.
	Credentials() *Credentials
	// Changes receives after each change; it holds one, so that a slow reader misses
	// none that matters. stop ends it.
	Changes() (changed <-chan struct{}, stop func())
}

const (
	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "PRIVATE KEY"
)

// EncodeCertificates writes certificates (DER) as PEM.
func EncodeCertificates(certificates ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range certificates {
		_ = pem.Encode(&b, &pem.Block{Type: pemCertificate, Bytes: der}) // a buffer takes all
	}
	return b.Bytes()
}

// EncodeKey writes a private key as PEM.
func EncodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// maxCertificates bounds a chain or a bundle.
const maxCertificates = 64

// DecodeCertificates reads a PEM file of certificates and nothing else.
func DecodeCertificates(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 && len(out) == 0 {
				return nil, errors.New("is no PEM file of certificates")
			}
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, fmt.Errorf("no PEM after certificate %d", len(out))
			}
			break
		}
		if block.Type != pemCertificate {
			return nil, fmt.Errorf("PEM block %q: want only %s", block.Type, pemCertificate)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		if out = append(out, c); len(out) > maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate")
	}
	return out, nil
}

// Pool makes a pool of a PEM bundle.
func Pool(bundle []byte) (*x509.CertPool, error) {
	list, err := DecodeCertificates(bundle)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range list {
		pool.AddCert(c)
	}
	return pool, nil
}
