// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// maxFile bounds a file of certificates or keys.
const maxFile = 1 << 20

// ErrNoSecret: a secret that a context needs has not come yet.
var ErrNoSecret = errors.New("is not there yet")

// Secrets finds a secret of SDS, nil while it is not there.
type Secrets func(name string) *resource.Secret

// loader reads what contexts are compiled from. All of it is done off the loops.
type loader struct {
	secrets Secrets
	shared  *Shared  // nil: nothing is shared
	files   []string // read, for those who watch them
	certs   []CertificateInfo
}

// CertificateInfo describes a certificate in use, for /certs and metrics.
type CertificateInfo struct {
	CA       bool   // of a trusted authority
	Source   string // file, "secret NAME" or "inline"
	Name     string // in stats: of the secret, else the file, else by its content
	Identity        // of the certificate
	X509     *x509.Certificate
}

func (l *loader) secret(name string) (*resource.Secret, error) {
	if l.secrets != nil {
		if s := l.secrets(name); s != nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("secret %q %w", name, ErrNoSecret)
}

// read returns the bytes of a source.
func (l *loader) read(d *resource.DataSource) ([]byte, error) {
	if d.File == "" {
		return d.Inline, nil
	}
	l.files = append(l.files, d.File)
	f, err := os.Open(d.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", d.File, maxFile)
	}
	return b, err
}

func sourceOf(d *resource.DataSource, secret string) string {
	switch {
	case d.File != "":
		return d.File
	case secret != "":
		return "secret " + secret
	}
	return "inline"
}

// nameOf is what Envoy calls a certificate in stats. It has one name for all files, by
// which they could not be told apart: they are called by their paths here.
func nameOf(d *resource.DataSource, secret, unnamed string) string {
	switch {
	case secret != "":
		return secret
	case d.File != "":
		return d.File
	}
	sum := sha256.Sum256(d.Inline)
	return fmt.Sprintf("%s_%x", unnamed, sum[:4])
}

// certificates loads all of a context, in order: its own, then those of SDS.
func (l *loader) certificates(c *resource.CommonTLS) ([]*tls.Certificate, error) {
	var out []*tls.Certificate
	for i, r := range c.Certificates {
		t, err := l.pair(r, "")
		if err != nil {
			return nil, fmt.Errorf("tls_certificates[%d]: %w", i, err)
		}
		out = append(out, t)
	}
	for _, name := range c.CertificateSecrets {
		s, err := l.secret(name)
		if err != nil {
			return nil, err
		}
		if s.Certificate == nil {
			return nil, fmt.Errorf("secret %q is no tls_certificate", name)
		}
		t, err := l.pair(s.Certificate, name)
		if err != nil {
			return nil, fmt.Errorf("secret %q: %w", name, err)
		}
		out = append(out, t)
	}
	return out, nil
}

func (l *loader) certificate(r *resource.TLSCertificate, secret string) (*tls.Certificate, error) {
	chain, err := l.read(&r.Chain)
	if err != nil {
		return nil, fmt.Errorf("certificate_chain: %w", err)
	}
	key, err := l.read(&r.Key)
	if err != nil {
		return nil, fmt.Errorf("private_key: %w", err)
	}
	t, err := KeyPair(chain, key)
	if err != nil {
		return nil, err
	}
	if t.OCSPStaple, err = l.read(&r.OCSP); err != nil {
		return nil, fmt.Errorf("ocsp_staple: %w", err)
	}
	id, err := identify(t.Leaf)
	if err != nil {
		return nil, err
	}
	l.certs = append(l.certs, CertificateInfo{
		Source: sourceOf(&r.Chain, secret), Name: nameOf(&r.Chain, secret, "unnamed_cert"), Identity: *id, X509: t.Leaf,
	})
	return t, nil
}

// KeyPair checks that a chain and a key, in PEM, can be used and belong together.
// Its errors hold nothing of the key.
func KeyPair(chain, key []byte) (*tls.Certificate, error) {
	t, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, err
	}
	return &t, nil
}

// Authorities reads certificates of authorities in PEM. At least one is needed.
func Authorities(bundle []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := bundle; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %q, want only certificates", b.Type)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	return out, nil
}

// authorities loads a bundle and lists what is in it.
func (l *loader) authorities(d *resource.DataSource, secret string) ([]*x509.Certificate, error) {
	b, err := l.read(d)
	if err != nil {
		return nil, err
	}
	list, err := Authorities(b)
	if err != nil {
		return nil, err
	}
	name := nameOf(d, secret, "unnamed_ca_cert")
	for _, c := range list {
		sum := sha256.Sum256(c.Raw)
		l.certs = append(l.certs, CertificateInfo{CA: true, Source: sourceOf(d, secret), Name: name, X509: c, Identity: Identity{
			Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16),
			Fingerprint: fmt.Sprintf("%x", sum), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		}})
	}
	return list, nil
}

func pool(list []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range list {
		p.AddCert(c)
	}
	return p
}
