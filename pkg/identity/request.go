// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// MaxRequestBytes bounds a signing request: one for a P-256 key has about 300.
const MaxRequestBytes = 4 << 10

// Reason says in a word why something was refused, for counters and audit lines.
type Reason string

// Why a signing request is refused.
const (
	ReasonTooLarge        Reason = "too_large"
	ReasonMalformed       Reason = "malformed"
	ReasonSignature       Reason = "signature"
	ReasonKey             Reason = "key"
	ReasonNames           Reason = "names"
	ReasonUnauthenticated Reason = "unauthenticated"
	ReasonNotAllowed      Reason = "not_allowed"
	ReasonRate            Reason = "rate"
	ReasonAuthority       Reason = "authority"
)

// Refusal is an error with its reason.
type Refusal struct {
	Reason Reason
	Err    error
}

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{reason, fmt.Errorf(format, args...)}
}

// ReasonOf is the reason of a refusal, or empty.
func ReasonOf(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

// CheckRequest reads a PKCS #10 signing request (RFC 2986, DER) for the given
// identity and returns its key. A name in the request grants nothing: the identity
// is the authenticated one, and what the request says besides must be nothing or
// the same. The error is a *Refusal.
func CheckRequest(der []byte, id ID) (*ecdsa.PublicKey, error) {
	if len(der) > MaxRequestBytes {
		return nil, refuse(ReasonTooLarge, "signing request: %d bytes, the limit is %d", len(der), MaxRequestBytes)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refuse(ReasonMalformed, "signing request: %v", err)
	}
	// The key comes first: a signature with an odd key is not worth its check.
	key, refusal := checkKey(r.PublicKey)
	if refusal != nil {
		return nil, refusal
	}
	if err := r.CheckSignature(); err != nil {
		return nil, refuse(ReasonSignature, "signing request: its signature is not made with its key: %v", err)
	}
	if refusal := checkRequestNames(r, id); refusal != nil {
		return nil, refusal
	}
	return key, nil
}

func checkKey(public any) (*ecdsa.PublicKey, *Refusal) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, refuse(ReasonKey, "signing request: ECDSA key on %s: want P-256", k.Curve.Params().Name)
		}
		return k, nil
	case *rsa.PublicKey:
		return nil, refuse(ReasonKey, "signing request: RSA key of %d bits: want ECDSA P-256", k.N.BitLen())
	case ed25519.PublicKey:
		return nil, refuse(ReasonKey, "signing request: Ed25519 key: want ECDSA P-256")
	default:
		return nil, refuse(ReasonKey, "signing request: key of an unknown kind: want ECDSA P-256")
	}
}

func checkRequestNames(r *x509.CertificateRequest, id ID) *Refusal {
	if len(r.Subject.Names) > 0 {
		return refuse(ReasonNames, "signing request: subject: must be empty, the identity is a URI")
	}
	for _, e := range r.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			return refuse(ReasonNames, "signing request: extension %s: only subject alternative names may be asked for", e.Id)
		}
	}
	names, err := readNames(r.Extensions)
	switch {
	case err != nil:
		return refuse(ReasonMalformed, "signing request: %v", err)
	case len(names.other) > 0:
		return refuse(ReasonNames, "signing request: %s name: only the URI of the identity may be asked for", names.other[0])
	case len(names.uris) > 1:
		return refuse(ReasonNames, "signing request: %d URI names: want one at most", len(names.uris))
	case len(names.uris) == 0:
		return nil
	case strings.IndexByte(names.uris[0], 0) >= 0:
		return refuse(ReasonNames, "signing request: NUL in the URI name %q", names.uris[0])
	case names.uris[0] != id.String():
		return refuse(ReasonNames, "signing request: URI name %q: the caller is %s", names.uris[0], id)
	}
	return nil
}

// NewKey makes a key of the kind that certificates are given for.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// NewRequest makes a signing request (DER). With the zero ID it names nobody.
func NewRequest(key crypto.Signer, id ID) ([]byte, error) {
	template := &x509.CertificateRequest{}
	if id != (ID{}) {
		template.URIs = []*url.URL{id.url()}
	}
	return x509.CreateCertificateRequest(rand.Reader, template, key)
}

func (id ID) url() *url.URL { return &url.URL{Scheme: "spiffe", Host: id.TrustDomain, Path: id.Path} }
