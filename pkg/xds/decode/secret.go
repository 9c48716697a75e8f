// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	spiffeURL      = typeURLPrefix + tlsPackage + "SPIFFECertValidatorConfig"
	ticketKeyBytes = 80
	maxVerifyDepth = 100
	// maxGenericSecret is far above what a filter takes of keys.
	maxGenericSecret = 64 << 10
)

// secret reads a resource of SDS. Errors never hold what is in it.
func (j *job) secret(m *tlsv3.Secret, p *place) *resource.Secret {
	s := &resource.Secret{Name: j.intern(m.GetName())}
	switch v := m.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		s.Certificate = j.tlsCertificate(v.TlsCertificate, p.field("tls_certificate"))
	case *tlsv3.Secret_ValidationContext:
		s.Validation = j.validationContext(v.ValidationContext, p.field("validation_context"))
	case *tlsv3.Secret_SessionTicketKeys:
		s.Tickets = j.ticketKeys(v.SessionTicketKeys, p.field("session_ticket_keys"))
	case *tlsv3.Secret_GenericSecret:
		s.Generic = j.genericSecret(v.GenericSecret, p.field("generic_secret").field("secret"))
	default:
		j.fail(p, "has none of tls_certificate, validation_context, session_ticket_keys and generic_secret")
	}
	return s
}

// genericSecret reads bytes that a filter knows the meaning of.
func (j *job) genericSecret(m *tlsv3.GenericSecret, p *place) []byte {
	d := j.dataSource(m.GetSecret(), p)
	switch {
	case d.File != "":
		j.fail(p.field("filename"), "not supported: give it inline")
	case len(d.Inline) == 0:
		j.fail(p, "is empty")
	case len(d.Inline) > maxGenericSecret:
		j.fail(p, "has %d bytes, the limit is %d", len(d.Inline), maxGenericSecret)
	}
	return d.Inline
}

// secretRef reads a reference to a secret and notes that it is needed. One without
// a source is among the bootstrap's.
func (j *job) secretRef(m *tlsv3.SdsSecretConfig, p *place) string {
	if m.GetName() == "" {
		j.fail(p.field("name"), "is empty")
		return ""
	}
	var src Source
	if m.GetSdsConfig() != nil {
		j.only(resource.OwnSecret(m.GetName()), p.field("sds_config"), "must not be set: the sidecar makes its own secrets, which no server has")
		src = j.source(m.GetSdsConfig(), p.field("sds_config"))
	}
	j.need(Secret, m.GetName(), src)
	return j.intern(m.GetName())
}

// dataSource reads a DataSource whose file is read later.
func (j *job) dataSource(d *corev3.DataSource, p *place) resource.DataSource {
	switch v := d.GetSpecifier().(type) {
	case *corev3.DataSource_Filename:
		j.only(v.Filename == "", p.field("filename"), "is empty")
		return resource.DataSource{File: v.Filename}
	case *corev3.DataSource_InlineString:
		return resource.DataSource{Inline: []byte(v.InlineString)}
	case *corev3.DataSource_InlineBytes:
		return resource.DataSource{Inline: v.InlineBytes}
	case *corev3.DataSource_EnvironmentVariable:
		j.fail(p.field("environment_variable"), notSupported)
	}
	return resource.DataSource{}
}

func (j *job) tlsCertificate(m *tlsv3.TlsCertificate, p *place) *resource.TLSCertificate {
	c := &resource.TLSCertificate{
		Chain:      j.dataSource(m.GetCertificateChain(), p.field("certificate_chain")),
		Key:        j.dataSource(m.GetPrivateKey(), p.field("private_key")),
		OCSP:       j.dataSource(m.GetOcspStaple(), p.field("ocsp_staple")),
		WatchedDir: m.GetWatchedDirectory().GetPath(),
	}
	j.only(c.Chain.Empty(), p.field("certificate_chain"), "is missing")
	j.only(c.Key.Empty(), p.field("private_key"), "is missing")
	return c
}

func (j *job) ticketKeys(m *tlsv3.TlsSessionTicketKeys, p *place) *resource.TicketKeys {
	t := &resource.TicketKeys{}
	for i, k := range m.GetKeys() {
		d := j.dataSource(k, p.item("keys", i))
		if d.File == "" && len(d.Inline) != ticketKeyBytes {
			j.fail(p.item("keys", i), "has %d bytes, want %d", len(d.Inline), ticketKeyBytes)
		}
		t.Keys = append(t.Keys, d)
	}
	j.only(len(t.Keys) == 0, p.field("keys"), "is empty")
	return t
}

//nolint:staticcheck // deprecated fields are still in use
func (j *job) validationContext(m *tlsv3.CertificateValidationContext, p *place) *resource.ValidationContext {
	v := &resource.ValidationContext{
		TrustedCA:       j.dataSource(m.GetTrustedCa(), p.field("trusted_ca")),
		SystemRoots:     m.GetSystemRootCerts() != nil,
		AllowExpired:    m.GetAllowExpiredCertificate(),
		AcceptUntrusted: m.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
		SuppressCAList:  m.GetSuppressClientCaList(),
		WatchedDir:      m.GetWatchedDirectory().GetPath(),
		MaxDepth:        -1,
	}
	j.only(v.SystemRoots && !v.TrustedCA.Empty(), p.field("system_root_certs"), "must not be set together with trusted_ca")
	if d := m.GetMaxVerifyDepth(); d != nil {
		v.MaxDepth = j.within(d.GetValue(), 0, maxVerifyDepth, p.field("max_verify_depth"))
	}
	for i, s := range m.GetVerifyCertificateSpki() {
		b, err := base64.StdEncoding.DecodeString(s)
		j.only(err != nil || len(b) != sha256.Size, p.item("verify_certificate_spki", i), "is no SHA-256 in base64")
		v.SPKI = append(v.SPKI, b)
	}
	for i, s := range m.GetVerifyCertificateHash() {
		b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
		j.only(err != nil || len(b) != sha256.Size, p.item("verify_certificate_hash", i), "is no SHA-256 in hex")
		v.Hashes = append(v.Hashes, b)
	}
	for i, s := range m.GetMatchTypedSubjectAltNames() {
		v.SANs = append(v.SANs, j.sanMatcher(s, p.item("match_typed_subject_alt_names", i)))
	}
	for i, s := range m.GetMatchSubjectAltNames() {
		v.SANs = append(v.SANs, j.anySAN(s, p.item("match_subject_alt_names", i))...)
	}
	if c := m.GetCustomValidatorConfig(); c != nil {
		j.spiffe(c, v, p.field("custom_validator_config"))
	}
	return v
}

var sanKinds = map[tlsv3.SubjectAltNameMatcher_SanType]resource.SANKind{
	tlsv3.SubjectAltNameMatcher_EMAIL: resource.SANEmail, tlsv3.SubjectAltNameMatcher_DNS: resource.SANDNS,
	tlsv3.SubjectAltNameMatcher_URI: resource.SANURI, tlsv3.SubjectAltNameMatcher_IP_ADDRESS: resource.SANIP,
}

func (j *job) sanMatcher(m *tlsv3.SubjectAltNameMatcher, p *place) resource.SANMatcher {
	kind, ok := sanKinds[m.GetSanType()]
	if !ok {
		j.fail(p.field("san_type"), "unsupported %s", m.GetSanType())
	}
	return resource.SANMatcher{Kind: kind, Match: j.stringMatch(m.GetMatcher(), p.field("matcher"))}
}

// anySAN is the deprecated matcher that has no kind.
func (j *job) anySAN(m *matcherv3.StringMatcher, p *place) []resource.SANMatcher {
	match := j.stringMatch(m, p)
	var out []resource.SANMatcher
	for _, k := range []resource.SANKind{resource.SANURI, resource.SANDNS, resource.SANEmail, resource.SANIP} {
		out = append(out, resource.SANMatcher{Kind: k, Match: match})
	}
	return out
}

// spiffe reads the trust domains of a SPIFFE validator.
func (j *job) spiffe(c *corev3.TypedExtensionConfig, v *resource.ValidationContext, p *place) {
	if u := c.GetTypedConfig().GetTypeUrl(); u != spiffeURL {
		j.fail(p, "unsupported validator %q", clip(u, 200))
		return
	}
	p = p.field("typed_config")
	var m tlsv3.SPIFFECertValidatorConfig
	if !j.unpack(c.GetTypedConfig(), &m, p) {
		return
	}
	seen := map[string]bool{}
	for i, d := range m.GetTrustDomains() {
		at := p.item("trust_domains", i)
		t := resource.TrustDomain{Name: d.GetName(), Bundle: j.dataSource(d.GetTrustBundle(), at.field("trust_bundle"))}
		j.only(!validTrustDomain(t.Name), at.field("name"), "is no trust domain: lower case letters, digits, dots, dashes and underscores")
		j.only(seen[t.Name], at.field("name"), "is used twice")
		j.only(t.Bundle.Empty(), at.field("trust_bundle"), "is missing")
		seen[t.Name] = true
		v.TrustDomains = append(v.TrustDomains, t)
	}
	j.only(len(v.TrustDomains) == 0, p.field("trust_domains"), "is empty")
}

func validTrustDomain(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 255
}
