// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"crypto/tls"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const tlsType = `"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.`

func listenerTLS(context string) string {
	return `{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{
  filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}],
  transport_socket_connect_timeout: 3s,
  transport_socket: {name: tls, typed_config: {` + tlsType + `DownstreamTlsContext, ` + context + `}}}]}`
}

func TestDownstreamTLSIsRead(t *testing.T) {
	l := must[resource.Listener](t, decode.Listener, listenerTLS(`
    require_client_certificate: true, require_sni: true, session_ticket_keys_sds_secret_config: {name: keys, sds_config: {ads: {}}},
    common_tls_context: {
      alpn_protocols: [h2, http/1.1],
      tls_params: {tls_minimum_protocol_version: TLSv1_3, ecdh_curves: [X25519, P-256]},
      tls_certificates: [{certificate_chain: {filename: /c.pem}, private_key: {filename: /k.pem}, watched_directory: {path: /d}}],
      tls_certificate_sds_secret_configs: [{name: cert, sds_config: {ads: {}}}],
      combined_validation_context: {
        default_validation_context: {max_verify_depth: 2, match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://a/b"}}]},
        validation_context_sds_secret_config: {name: ca, sds_config: {ads: {}}}}}`))
	want := &resource.DownstreamTLS{
		CommonTLS: resource.CommonTLS{
			MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13, ALPN: []string{"h2", "http/1.1"},
			Curves: []uint16{uint16(tls.X25519), uint16(tls.CurveP256)},
			Certificates: []*resource.TLSCertificate{{
				Chain: resource.DataSource{File: "/c.pem"}, Key: resource.DataSource{File: "/k.pem"}, WatchedDir: "/d",
			}},
			CertificateSecrets: []string{"cert"},
			Validation: &resource.ValidationContext{MaxDepth: 2, SANs: []resource.SANMatcher{
				{Kind: resource.SANURI, Match: resource.StringMatch{Kind: resource.MatchExact, Value: "spiffe://a/b"}},
			}},
			ValidationSecret: "ca",
		},
		RequireClientCertificate: true, RequireSNI: true, TicketsSecret: "keys", Handshake: 3 * time.Second,
	}
	if got := l.FilterChains[0].TLS; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestSecretsOfAListenerAreNeeded(t *testing.T) {
	r, err := from(t, decode.Listener, listenerTLS(`common_tls_context: {tls_certificate_sds_secret_configs: [{name: cert, sds_config: {ads: {}}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range r.Refs {
		if ref.Kind == decode.Secret && ref.Name == "cert" && ref.Source.Kind == decode.SourceADS {
			return
		}
	}
	t.Errorf("refs %+v lack the secret", r.Refs)
}

func TestUpstreamTLSIsRead(t *testing.T) {
	c := must[resource.Cluster](t, decode.Cluster, `{name: a, `+eds+`, transport_socket: {name: tls, typed_config: {`+tlsType+`UpstreamTlsContext,
    sni: a.example, auto_sni_san_validation: true, max_session_keys: 0,
    common_tls_context: {tls_params: {cipher_suites: ["[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-RSA-AES128-GCM-SHA256]"]},
      validation_context: {trusted_ca: {inline_string: pem}, allow_expired_certificate: true, trust_chain_verification: ACCEPT_UNTRUSTED}}}}}`)
	want := &resource.UpstreamTLS{
		CommonTLS: resource.CommonTLS{
			MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
			Validation:   &resource.ValidationContext{TrustedCA: resource.DataSource{Inline: []byte("pem")}, AllowExpired: true, AcceptUntrusted: true, MaxDepth: -1},
		},
		SNI: "a.example", AutoSANs: true,
	}
	if !reflect.DeepEqual(c.TLS, want) {
		t.Errorf("got  %+v\nwant %+v", c.TLS, want)
	}
}

func TestSecretsAreRead(t *testing.T) {
	key := strings.Repeat("k", 80)
	for text, want := range map[string]*resource.Secret{
		`{name: a, tls_certificate: {certificate_chain: {inline_string: c}, private_key: {inline_string: k}}}`: {
			Name: "a", Certificate: &resource.TLSCertificate{Chain: resource.DataSource{Inline: []byte("c")}, Key: resource.DataSource{Inline: []byte("k")}},
		},
		`{name: a, session_ticket_keys: {keys: [{inline_string: ` + key + `}]}}`: {
			Name: "a", Tickets: &resource.TicketKeys{Keys: []resource.DataSource{{Inline: []byte(key)}}},
		},
		`{name: a, validation_context: {custom_validator_config: {name: s, typed_config: {` + tlsType + `SPIFFECertValidatorConfig, trust_domains: [{name: a.b, trust_bundle: {filename: /b}}]}}}}`: {
			Name: "a", Validation: &resource.ValidationContext{MaxDepth: -1, TrustDomains: []resource.TrustDomain{{Name: "a.b", Bundle: resource.DataSource{File: "/b"}}}},
		},
	} {
		if got := must[resource.Secret](t, decode.Secret, text); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestTLSThatIsWrongOrNotSupportedIsRefusedByItsField(t *testing.T) {
	socket := "filter_chains[0].transport_socket.typed_config."
	for text, want := range map[string]string{
		``:                       socket + "common_tls_context: has no certificate",
		`common_tls_context: {}`: "has no certificate",
		`require_client_certificate: true, common_tls_context: {tls_certificates: [{certificate_chain: {filename: c}, private_key: {filename: k}}]}`: socket + "require_client_certificate: needs a validation context",
		`common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_1}}`:                                                                  "tls_minimum_protocol_version: unsupported TLSv1_1",
		`common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_2}}`:                           "tls_maximum_protocol_version: is below",
		`common_tls_context: {tls_params: {cipher_suites: [AES128-SHA]}}`:                                                                            `cipher_suites[0]: unsupported "AES128-SHA"`,
		`common_tls_context: {tls_params: {ecdh_curves: [P-1]}}`:                                                                                     `ecdh_curves[0]: unsupported "P-1"`,
		`common_tls_context: {tls_params: {signature_algorithms: [x]}}`:                                                                              "signature_algorithms: not supported",
		`common_tls_context: {key_log: {path: /x}}`:                                                                                                  "key_log: not supported",
		`common_tls_context: {tls_certificates: [{private_key: {filename: k}}]}`:                                                                     "tls_certificates[0].certificate_chain: is missing",
		`common_tls_context: {tls_certificates: [{certificate_chain: {filename: c}, private_key: {filename: k}, password: {filename: p}}]}`:          "tls_certificates[0].password: not supported",
		`common_tls_context: {tls_certificates: [{pkcs12: {filename: k}}]}`:                                                                          "pkcs12: not supported",
		`common_tls_context: {validation_context: {crl: {filename: x}}}`:                                                                             "validation_context.crl: not supported",
		`common_tls_context: {validation_context: {verify_certificate_spki: [abc]}}`:                                                                 "verify_certificate_spki[0]",
		`common_tls_context: {validation_context: {match_typed_subject_alt_names: [{san_type: OTHER_NAME, oid: "1.2", matcher: {exact: a}}]}}`:       "match_typed_subject_alt_names[0]",
		`common_tls_context: {tls_certificate_sds_secret_configs: [{sds_config: {ads: {}}}]}`:                                                        "tls_certificate_sds_secret_configs[0].name",
		`session_ticket_keys: {keys: [{inline_string: short}]}, common_tls_context: {}`:                                                              "session_ticket_keys.keys[0]: has 5 bytes, want 80",
		`session_timeout: 5s, common_tls_context: {}`:                                                                                                "session_timeout: not supported",
	} {
		if _, err := from(t, decode.Listener, listenerTLS(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		`{name: a, generic_secret: {secrets: {b: {inline_string: hush}}}}`: "generic_secret.secrets: not supported",
		`{name: a, generic_secret: {secret: {filename: hush}}}`:            "generic_secret.secret.filename: not supported",
		`{name: a, generic_secret: {}}`:                                    "generic_secret.secret: is empty",
	} {
		if _, err := from(t, decode.Secret, text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if s := must[resource.Secret](t, decode.Secret, `{name: a, generic_secret: {secret: {inline_string: hush}}}`); string(s.Generic) != "hush" {
		t.Errorf("a generic secret is read as %+v", s)
	}
}

func FuzzDecodeSecret(f *testing.F) {
	fuzzKind(f, decode.Secret,
		yaml(f, decode.Secret, `{name: a, tls_certificate: {certificate_chain: {inline_string: c}, private_key: {filename: k}}}`),
		yaml(f, decode.Secret, `{name: a, validation_context: {trusted_ca: {filename: c}, match_typed_subject_alt_names: [{san_type: DNS, matcher: {suffix: a}}], verify_certificate_hash: ["00"]}}`),
		yaml(f, decode.Secret, `{name: a, session_ticket_keys: {keys: [{filename: a}]}}`),
	)
}
