// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/certchain"
)

// Why a peer's certificate is refused.
const (
	ReasonMissing     Reason = "missing"
	ReasonExpired     Reason = "expired"
	ReasonNotYetValid Reason = "not_yet_valid"
	ReasonAuthorityCA Reason = "unknown_authority"
	ReasonIdentity    Reason = "wrong_identity"
	ReasonUsage       Reason = "wrong_usage"
	ReasonToken       Reason = "token"
)

// VerifyPeer checks the certificates that a peer shows, its own first, by the rules
// of an X.509-SVID: valid now, issued below one of the roots, no authority itself,
// for clients and servers, with exactly one URI name, which is a SPIFFE ID of the
// trust domain; in a chain of at most certchain.MaxLength. The error is a *Refusal.
func VerifyPeer(now time.Time, chain []*x509.Certificate, roots *x509.CertPool, trustDomain string) (ID, error) {
	if len(chain) == 0 {
		return ID{}, refuse(ReasonMissing, "no certificate")
	}
	leaf := chain[0]
	id, refusal := leafID(leaf, trustDomain)
	switch {
	case now.After(leaf.NotAfter):
		return ID{}, refuse(ReasonExpired, "certificate of %q: expired at %s", id, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return ID{}, refuse(ReasonNotYetValid, "certificate of %q: not valid before %s", id, leaf.NotBefore.UTC().Format(time.RFC3339))
	case leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return ID{}, refuse(ReasonUsage, "certificate of %q: is that of an authority", id)
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if !slices.Contains(leaf.ExtKeyUsage, use) {
			return ID{}, refuse(ReasonUsage, "certificate of %q: is not for both client and server authentication", id)
		}
	}
	if refusal != nil { // before signatures, which cost
		return ID{}, refusal
	}
	_, err := certchain.Verify(chain, x509.VerifyOptions{
		Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, certchain.MaxLength)
	if err != nil {
		return ID{}, refuse(ReasonAuthorityCA, "certificate of %q: %v", id, err)
	}
	return id, nil
}

// CertificateID is the identity of a certificate that VerifyPeer accepted earlier,
// for a connection that lives on: it checks what time changes. The error is a
// *Refusal.
func CertificateID(now time.Time, leaf *x509.Certificate, trustDomain string) (ID, error) {
	id, refusal := leafID(leaf, trustDomain)
	if refusal != nil {
		return ID{}, refusal
	}
	if now.After(leaf.NotAfter) {
		return ID{}, refuse(ReasonExpired, "certificate of %q: expired at %s", id, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return id, nil
}

// leafID reads the one identity that a certificate is for.
func leafID(leaf *x509.Certificate, trustDomain string) (ID, *Refusal) {
	names, err := readNames(leaf.Extensions)
	if err != nil {
		return ID{}, refuse(ReasonIdentity, "certificate: %v", err)
	}
	if len(names.uris) != 1 {
		return ID{}, refuse(ReasonIdentity, "certificate: %d URI names, want exactly one", len(names.uris))
	}
	id, err := ParseID(names.uris[0])
	if err != nil {
		return ID{}, refuse(ReasonIdentity, "certificate: %v", err)
	}
	if id.TrustDomain != trustDomain {
		return id, refuse(ReasonIdentity, "certificate of %s: is of another trust domain than %s", id, trustDomain)
	}
	return id, nil
}
