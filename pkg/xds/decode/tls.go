// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"crypto/tls"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	tlsPackage       = "envoy.extensions.transport_sockets.tls.v3."
	downstreamURL    = typeURLPrefix + tlsPackage + "DownstreamTlsContext"
	upstreamURL      = typeURLPrefix + tlsPackage + "UpstreamTlsContext"
	defaultHandshake = 10 * time.Second // of transport_socket_connect_timeout: Envoy has none, and silent clients stay
	maxServerName    = 255
)

// downstreamSocket reads a filter chain's transport socket; nil is plaintext.
func (j *job) downstreamSocket(t *corev3.TransportSocket, timeout *durationpb.Duration, p *place) *resource.DownstreamTLS {
	limit := j.duration(timeout, defaultHandshake, p.field("transport_socket_connect_timeout"))
	p = p.field("transport_socket")
	if t.GetTypedConfig().GetTypeUrl() != downstreamURL {
		j.rawBuffer(t, p)
		return nil
	}
	p = p.field("typed_config")
	var m tlsv3.DownstreamTlsContext
	if !j.unpack(t.GetTypedConfig(), &m, p) {
		return nil
	}
	d := &resource.DownstreamTLS{
		CommonTLS:                j.commonTLS(m.GetCommonTlsContext(), p.field("common_tls_context")),
		RequireClientCertificate: m.GetRequireClientCertificate().GetValue(),
		RequireSNI:               m.GetRequireSni().GetValue(),
		FullScan:                 m.GetFullScanCertsOnSniMismatch().GetValue(),
		Handshake:                limit,
	}
	j.only(len(d.Certificates)+len(d.CertificateSecrets) == 0, p.field("common_tls_context"), "has no certificate: set tls_certificates or tls_certificate_sds_secret_configs")
	j.only(d.RequireClientCertificate && d.Validation == nil && d.ValidationSecret == "", p.field("require_client_certificate"), "needs a validation context")
	switch v := m.GetSessionTicketKeysType().(type) {
	case *tlsv3.DownstreamTlsContext_SessionTicketKeys:
		d.Tickets = j.ticketKeys(v.SessionTicketKeys, p.field("session_ticket_keys"))
	case *tlsv3.DownstreamTlsContext_SessionTicketKeysSdsSecretConfig:
		d.TicketsSecret = j.secretRef(v.SessionTicketKeysSdsSecretConfig, p.field("session_ticket_keys_sds_secret_config"))
	case *tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption:
		d.DisableTickets = v.DisableStatelessSessionResumption
	}
	j.only(m.GetOcspStaplePolicy() != tlsv3.DownstreamTlsContext_LENIENT_STAPLING, p.field("ocsp_staple_policy"), "only LENIENT_STAPLING is supported")
	return d
}

// upstreamTLS reads a cluster's transport socket; nil is plaintext.
func (j *job) upstreamTLS(t *corev3.TransportSocket, p *place) *resource.UpstreamTLS {
	if t.GetTypedConfig().GetTypeUrl() != upstreamURL {
		j.rawBuffer(t, p)
		return nil
	}
	p = p.field("typed_config")
	var m tlsv3.UpstreamTlsContext
	if !j.unpack(t.GetTypedConfig(), &m, p) {
		return nil
	}
	u := &resource.UpstreamTLS{
		CommonTLS: j.commonTLS(m.GetCommonTlsContext(), p.field("common_tls_context")),
		SNI:       m.GetSni(), AutoHostSNI: m.GetAutoHostSni(), AutoSANs: m.GetAutoSniSanValidation(),
		MaxSessionKeys: int(min(uint32Or(m.GetMaxSessionKeys(), 1), 1)),
	}
	j.only(len(u.SNI) > maxServerName || strings.ContainsAny(u.SNI, "\x00 /:"), p.field("sni"), "is no host name")
	j.only(m.GetAllowRenegotiation(), p.field("allow_renegotiation"), "not supported: a peer that renegotiates may be another one")
	j.only(u.AutoSANs && u.Validation == nil && u.ValidationSecret == "", p.field("auto_sni_san_validation"), "needs a validation context with trusted_ca")
	return u
}

func (j *job) commonTLS(m *tlsv3.CommonTlsContext, p *place) resource.CommonTLS {
	c := resource.CommonTLS{ALPN: m.GetAlpnProtocols()}
	j.tlsParams(m.GetTlsParams(), &c, p.field("tls_params"))
	for i, s := range c.ALPN {
		j.only(len(s) == 0 || len(s) > 255, p.item("alpn_protocols", i), "must have 1 to 255 bytes")
	}
	for i, t := range m.GetTlsCertificates() {
		c.Certificates = append(c.Certificates, j.tlsCertificate(t, p.item("tls_certificates", i)))
	}
	for i, s := range m.GetTlsCertificateSdsSecretConfigs() {
		c.CertificateSecrets = append(c.CertificateSecrets, j.secretRef(s, p.item("tls_certificate_sds_secret_configs", i)))
	}
	switch v := m.GetValidationContextType().(type) {
	case *tlsv3.CommonTlsContext_ValidationContext:
		c.Validation = j.validationContext(v.ValidationContext, p.field("validation_context"))
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		c.ValidationSecret = j.secretRef(v.ValidationContextSdsSecretConfig, p.field("validation_context_sds_secret_config"))
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		at := p.field("combined_validation_context")
		c.Validation = j.validationContext(v.CombinedValidationContext.GetDefaultValidationContext(), at.field("default_validation_context"))
		if s := v.CombinedValidationContext.GetValidationContextSdsSecretConfig(); s != nil {
			c.ValidationSecret = j.secretRef(s, at.field("validation_context_sds_secret_config"))
		} else {
			j.fail(at.field("validation_context_sds_secret_config"), "is missing")
		}
	}
	return c
}

var tlsVersions = map[tlsv3.TlsParameters_TlsProtocol]uint16{tlsv3.TlsParameters_TLSv1_2: tls.VersionTLS12, tlsv3.TlsParameters_TLSv1_3: tls.VersionTLS13}

var tlsCurves = map[string]tls.CurveID{
	"X25519": tls.X25519, "P-256": tls.CurveP256, "P-384": tls.CurveP384, "P-521": tls.CurveP521, "X25519MLKEM768": tls.X25519MLKEM768,
}

// tlsSuites are those of TLS 1.2 by OpenSSL's names; the ones of TLS 1.3 are fixed.
var tlsSuites = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

func (j *job) tlsParams(m *tlsv3.TlsParameters, c *resource.CommonTLS, p *place) {
	c.MinVersion = j.tlsVersion(m.GetTlsMinimumProtocolVersion(), tls.VersionTLS12, p.field("tls_minimum_protocol_version"))
	c.MaxVersion = j.tlsVersion(m.GetTlsMaximumProtocolVersion(), tls.VersionTLS13, p.field("tls_maximum_protocol_version"))
	j.only(c.MinVersion > c.MaxVersion, p.field("tls_maximum_protocol_version"), "is below tls_minimum_protocol_version")
	for i, s := range m.GetCipherSuites() {
		// Suites in brackets are of equal preference: the order is the library's.
		for name := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), "|") {
			if id, ok := tlsSuites[name]; ok {
				c.CipherSuites = append(c.CipherSuites, id)
			} else {
				j.fail(p.item("cipher_suites", i), "unsupported %q", clip(name, 60))
			}
		}
	}
	for i, s := range m.GetEcdhCurves() {
		if id, ok := tlsCurves[s]; ok {
			c.Curves = append(c.Curves, uint16(id))
		} else {
			j.fail(p.item("ecdh_curves", i), "unsupported %q", clip(s, 60))
		}
	}
}

func (j *job) tlsVersion(v tlsv3.TlsParameters_TlsProtocol, auto uint16, p *place) uint16 {
	if v == tlsv3.TlsParameters_TLS_AUTO {
		return auto
	}
	if id, ok := tlsVersions[v]; ok {
		return id
	}
	j.fail(p, "unsupported %s: TLSv1_2 is the oldest", v)
	return auto
}
