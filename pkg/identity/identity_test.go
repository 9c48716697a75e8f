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
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)

const domain = "mesh.example"

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// memory is an authority whose state is kept in memory.
type memory struct {
	*Authority
	saved *State
	fail  error
}

func (m *memory) save(s State) error {
	if m.fail != nil {
		return m.fail
	}
	m.saved = &s
	return nil
}

func (m *memory) config(given *Issuer) Config {
	return Config{TrustDomain: domain, LeafLife: 24 * time.Hour, Given: given, Save: m.save}
}

// reopen is what a restart does: only what was saved is left.
func (m *memory) reopen(t *testing.T, now time.Time, given *Issuer) {
	t.Helper()
	saved := m.saved
	if saved != nil {
		data, err := EncodeState(*saved)
		if err != nil {
			t.Fatal(err)
		}
		if saved, err = DecodeState(data); err != nil {
			t.Fatal(err)
		}
	}
	a, err := Open(now, saved, m.config(given))
	if err != nil {
		t.Fatal(err)
	}
	m.Authority = a
}

func newMemory(t *testing.T, given *Issuer) *memory {
	t.Helper()
	m := &memory{}
	m.reopen(t, start, given)
	return m
}

// leaf issues a certificate and parses its chain.
func (m *memory) leaf(t *testing.T, now time.Time, service string) []*x509.Certificate {
	t.Helper()
	issued, err := m.Issue(now, &newKey(t).PublicKey, ServiceID(domain, service))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]*x509.Certificate, len(issued.Chain))
	for i, der := range issued.Chain {
		if out[i], err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// phases are the roots' phases in the order of the bundle.
func (m *memory) phases() string {
	var out []string
	for _, r := range m.Status().Roots {
		out = append(out, string(r.Phase))
	}
	return strings.Join(out, " ")
}

func TestAnIDIsReadByteByByte(t *testing.T) {
	good := ServiceID(domain, "orders").String()
	if good != "spiffe://mesh.example/ns/default/sa/orders" {
		t.Fatalf("got %s", good)
	}
	id, err := ParseID(good)
	if err != nil || id.String() != good {
		t.Fatalf("got %v, %v", id, err)
	}
	if s, ok := id.Service(); !ok || s != "orders" {
		t.Errorf("got service %q", s)
	}
	if s, ok := ControlPlaneID(domain).Service(); ok {
		t.Errorf("the control plane is service %q", s)
	}
	for _, bad := range []string{
		"", "spiffe://", "spiffe://mesh.example", "spiffe:///x", "https://mesh.example/x", "SPIFFE://mesh.example/x",
		"spiffe://Mesh.example/x", "spiffe://mesh.example:80/x", "spiffe://u@mesh.example/x", "spiffe://mesh.example/",
		"spiffe://mesh.example//x", "spiffe://mesh.example/x/", "spiffe://mesh.example/x/../y", "spiffe://mesh.example/./y",
		"spiffe://mesh.example/x%2fy", "spiffe://mesh.example/x\x00", "spiffe://mesh.example/x?y", "spiffe://mesh.example/x#y",
		"spiffe://mesh.example/ü", "spiffe://*/x", "spiffe://mesh.example/" + strings.Repeat("x", maxIDBytes),
	} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("%q: accepted as %v", bad, id)
		}
	}
}

func TestACertificateIsAnX509SVIDForBothSides(t *testing.T) {
	m := newMemory(t, nil)
	chain := m.leaf(t, start, "orders")
	leaf := chain[0]
	if len(chain) != 2 || chain[1].IsCA == false {
		t.Fatalf("chain of %d", len(chain))
	}
	if len(leaf.Subject.Names) != 0 || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 {
		t.Errorf("names beside the URI: %+v", leaf.Subject)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://mesh.example/ns/default/sa/orders" {
		t.Errorf("URIs %v", leaf.URIs)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 2 {
		t.Errorf("usage %v %v", leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	if k, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		t.Errorf("key %T", leaf.PublicKey)
	}
	if !leaf.NotBefore.Equal(start.Add(-leafBackdate)) || !leaf.NotAfter.Equal(start.Add(24*time.Hour)) {
		t.Errorf("valid %v to %v", leaf.NotBefore, leaf.NotAfter)
	}
	if leaf.SerialNumber.Sign() <= 0 || leaf.SerialNumber.BitLen() < 64 {
		t.Errorf("serial %v", leaf.SerialNumber)
	}
	if other := m.leaf(t, start, "orders")[0]; other.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
		t.Error("two certificates with one serial")
	}
	for _, e := range leaf.Extensions {
		if e.Id.Equal(oidSubjectAltName) && !e.Critical {
			t.Error("without a subject, the names must be critical (RFC 5280, 4.1.2.6)")
		}
	}
	id, err := VerifyPeer(start, chain, m.Bundle().Pool, domain)
	if err != nil || id != ServiceID(domain, "orders") {
		t.Errorf("got %v, %v", id, err)
	}
}

func TestACertificateLivesNoLongerThanItsIssuer(t *testing.T) {
	given := newGiven(t, start, "short", 3*time.Hour)
	m := newMemory(t, given)
	if got, want := m.leaf(t, start, "orders")[0].NotAfter, start.Add(3*time.Hour); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := m.Issue(start.Add(4*time.Hour), &newKey(t).PublicKey, ServiceID(domain, "orders")); ReasonOf(err) != ReasonAuthority {
		t.Errorf("an expired issuer signs: %v", err)
	}
}

func TestOnlyIdentitiesOfTheTrustDomainAreIssued(t *testing.T) {
	m := newMemory(t, nil)
	for _, id := range []ID{ServiceID("other.example", "orders"), ServiceID(domain, ""), ServiceID(domain, "a/../b"), {}} {
		if _, err := m.Issue(start, &newKey(t).PublicKey, id); err == nil {
			t.Errorf("%v: issued", id)
		}
	}
}

// request makes a signing request that may be wrong in any way.
func request(t *testing.T, key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	r := &x509.CertificateRequest{}
	if change != nil {
		change(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func sanExtension(t *testing.T, names ...asn1.RawValue) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidSubjectAltName, Value: value}
}

func name(tag int, text string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(text)}
}

func TestHostileSigningRequestsAreRefusedByName(t *testing.T) {
	id := ServiceID(domain, "orders")
	key := newKey(t)
	tiny, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(names ...asn1.RawValue) func(*x509.CertificateRequest) {
		return func(r *x509.CertificateRequest) { r.ExtraExtensions = []pkix.Extension{sanExtension(t, names...)} }
	}
	forged := request(t, key, nil)
	forged[len(forged)-4] ^= 1
	for _, c := range []struct {
		name   string
		der    []byte
		reason Reason
		says   string
	}{
		{"huge", append(request(t, key, nil), make([]byte, MaxRequestBytes)...), ReasonTooLarge, "the limit is 4096"},
		{"empty", nil, ReasonMalformed, "signing request"},
		{"trailing bytes", append(request(t, key, nil), 0), ReasonMalformed, "trailing"},
		{"wrong signature", forged, ReasonSignature, "not made with its key"},
		{"RSA of 512 bits", rsa512, ReasonKey, "RSA key of 512 bits"},
		{"RSA of 1024 bits", request(t, tiny, nil), ReasonKey, "RSA key of 1024 bits"},
		{"P-384", request(t, p384, nil), ReasonKey, "P-384"},
		{"Ed25519", request(t, ed, nil), ReasonKey, "Ed25519"},
		{"a subject", request(t, key, func(r *x509.CertificateRequest) { r.Subject.CommonName = "admin" }), ReasonNames, "subject"},
		{"a NUL in the subject", request(t, key, func(r *x509.CertificateRequest) { r.Subject.CommonName = "orders\x00.x" }), ReasonNames, "subject"},
		{"two URIs", request(t, key, raw(name(6, id.String()), name(6, id.String()))), ReasonNames, "2 URI names"},
		{"another identity", request(t, key, raw(name(6, ServiceID(domain, "payments").String()))), ReasonNames, "payments"},
		{"a NUL in the URI", request(t, key, raw(name(6, id.String()+"\x00.evil"))), "", ""},
		{"percent tricks", request(t, key, raw(name(6, "spiffe://mesh.example/ns/default/sa/%6frders"))), ReasonNames, "%6frders"},
		{"an upper-case scheme", request(t, key, raw(name(6, strings.Replace(id.String(), "spiffe", "SPIFFE", 1)))), ReasonNames, "SPIFFE"},
		{"a DNS name", request(t, key, func(r *x509.CertificateRequest) { r.DNSNames = []string{"orders"} }), ReasonNames, "DNS name"},
		{"an IP address", request(t, key, func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }), ReasonNames, "IP name"},
		{"an e-mail address", request(t, key, func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }), ReasonNames, "email name"},
		{"a name of another kind", request(t, key, raw(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte{6, 1, 42}})), ReasonNames, "other name"},
		{"to be an authority", request(t, key, func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: oidBasicConstraints, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		}), ReasonNames, "extension 2.5.29.19"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := CheckRequest(c.der, id)
			if err == nil {
				t.Fatal("accepted")
			}
			if c.reason != "" && ReasonOf(err) != c.reason {
				t.Errorf("reason %q, want %q: %v", ReasonOf(err), c.reason, err)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
		})
	}
}

func TestARequestMayNameItsIdentityOrNothing(t *testing.T) {
	id := ServiceID(domain, "orders")
	key := newKey(t)
	for _, named := range []ID{{}, id} {
		der, err := NewRequest(key, named)
		if err != nil {
			t.Fatal(err)
		}
		got, err := CheckRequest(der, id)
		if err != nil || !got.Equal(key.Public()) {
			t.Errorf("%q: got %v, %v", named, got, err)
		}
	}
}

// newGiven makes an outside authority: a root and an issuer below it.
func newGiven(t *testing.T, now time.Time, name string, life time.Duration) *Issuer {
	t.Helper()
	chain, key, root := newGivenPEM(t, now, name, life)
	i, err := ReadIssuer(now, chain, key, root)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newGivenPEM(t *testing.T, now time.Time, name string, life time.Duration) (chain, key, root []byte) {
	t.Helper()
	top, err := newRoot(now, name+".example")
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(top.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	topKey, err := signer(c, top.Key)
	if err != nil {
		t.Fatal(err)
	}
	own := newKey(t)
	serial, err := newSerial()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := sign(authorityTemplate(serial, name, domain, now, now.Add(life), 0), c, own, topKey)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = EncodeKey(own); err != nil {
		t.Fatal(err)
	}
	return EncodeCertificates(pair.Certificate), key, EncodeCertificates(top.Certificate)
}

func TestPeersAreRefusedWithAReason(t *testing.T) {
	m, stranger := newMemory(t, nil), newMemory(t, nil)
	issuer := m.issuer
	forge := func(change func(*x509.Certificate)) []*x509.Certificate {
		serial, err := newSerial()
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: serial, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
			URIs:        []*url.URL{ServiceID(domain, "orders").url()},
		}
		change(c)
		der, err := x509.CreateCertificate(rand.Reader, c, issuer.certificate, newKey(t).Public(), issuer.key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{leaf, issuer.certificate}
	}
	for _, c := range []struct {
		name   string
		chain  []*x509.Certificate
		reason Reason
	}{
		{"none", nil, ReasonMissing},
		{"expired", forge(func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Second) }), ReasonExpired},
		{"of tomorrow", forge(func(c *x509.Certificate) { c.NotBefore = start.Add(time.Minute) }), ReasonNotYetValid},
		{"of another authority", stranger.leaf(t, start, "orders"), ReasonAuthorityCA},
		{"with more authorities than are looked at", append(m.leaf(t, start, "orders"), slices.Repeat([]*x509.Certificate{issuer.certificate}, 3)...), ReasonAuthorityCA},
		{"without its issuer", m.leaf(t, start, "orders")[:1], ReasonAuthorityCA},
		{"an authority", forge(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }), ReasonUsage},
		{"for servers only", forge(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), ReasonUsage},
		{"for any use", forge(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), ReasonUsage},
		{"without a URI", forge(func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"orders"} }), ReasonIdentity},
		{"two URIs", forge(func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }), ReasonIdentity},
		{"another trust domain", forge(func(c *x509.Certificate) { c.URIs = []*url.URL{ServiceID("evil.example", "orders").url()} }), ReasonIdentity},
		{"a wildcard trust domain", forge(func(c *x509.Certificate) {
			c.URIs = nil
			c.ExtraExtensions = []pkix.Extension{sanExtension(t, name(6, "spiffe://*/ns/default/sa/orders"))}
		}), ReasonIdentity},
		{"a path that climbs", forge(func(c *x509.Certificate) { c.URIs = []*url.URL{ServiceID(domain, "../sa/orders").url()} }), ReasonIdentity},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := VerifyPeer(start, c.chain, m.Bundle().Pool, domain)
			if err == nil {
				t.Fatalf("accepted as %v", id)
			}
			if ReasonOf(err) != c.reason {
				t.Errorf("reason %q, want %q: %v", ReasonOf(err), c.reason, err)
			}
		})
	}
}

// Signatures cost, and their keys are the stranger's: what refuses it without them
// comes first.
func TestTheNameIsJudgedBeforeSignatures(t *testing.T) {
	m, stranger := newMemory(t, nil), newMemory(t, nil)
	_, err := VerifyPeer(start, stranger.leaf(t, start, "orders"), m.Bundle().Pool, "other.example")
	if ReasonOf(err) != ReasonIdentity {
		t.Errorf("a certificate of another authority and trust domain: %v", err)
	}
}

// TestANULInAURINameDoesNotEndIt: crypto/x509 refuses the certificate before, and
// so does the reading of the names themselves.
func TestANULInAURINameDoesNotEndIt(t *testing.T) {
	want := ServiceID(domain, "orders").String() + "\x00.evil"
	names, err := readNames([]pkix.Extension{sanExtension(t, name(6, want))})
	if err != nil || len(names.uris) != 1 || names.uris[0] != want {
		t.Fatalf("got %q, %v", names.uris, err)
	}
	if _, err := ParseID(names.uris[0]); err == nil {
		t.Error("accepted")
	}
}
