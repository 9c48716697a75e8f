// SPDX-License-Identifier: Apache-2.0

package decode

import "google.golang.org/protobuf/reflect/protoreflect"

// withTLS adds the messages of TLS to the lists of fields.go.
func withTLS(lists map[protoreflect.FullName]string) map[protoreflect.FullName]string {
	for name, fields := range map[protoreflect.FullName]string{
		"DownstreamTlsContext": `common_tls_context require_client_certificate require_sni session_ticket_keys session_ticket_keys_sds_secret_config
			disable_stateless_session_resumption ocsp_staple_policy full_scan_certs_on_sni_mismatch`,
		"UpstreamTlsContext": "common_tls_context sni auto_host_sni auto_sni_san_validation max_session_keys allow_renegotiation",
		"CommonTlsContext": `tls_params tls_certificates tls_certificate_sds_secret_configs validation_context
			validation_context_sds_secret_config combined_validation_context alpn_protocols`,
		"CommonTlsContext.CombinedCertificateValidationContext": "default_validation_context validation_context_sds_secret_config",
		"TlsParameters":        "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves",
		"TlsCertificate":       "certificate_chain private_key watched_directory ocsp_staple",
		"TlsSessionTicketKeys": "keys",
		"SdsSecretConfig":      "name sds_config",
		"CertificateValidationContext": `trusted_ca system_root_certs watched_directory verify_certificate_spki verify_certificate_hash
			match_typed_subject_alt_names match_subject_alt_names allow_expired_certificate trust_chain_verification
			custom_validator_config max_verify_depth suppress_client_ca_list`,
		"CertificateValidationContext.SystemRootCerts": "",
		"SubjectAltNameMatcher":                        "san_type matcher",
		"SPIFFECertValidatorConfig":                    "trust_domains",
		"SPIFFECertValidatorConfig.TrustDomain":        "name trust_bundle",
		"Secret":                                       "name tls_certificate session_ticket_keys validation_context generic_secret",
		"GenericSecret":                                "secret",
	} {
		lists[tlsPackage+name] = fields
	}
	lists[cl+"Cluster.TransportSocketMatch"] = "name match transport_socket"
	return lists
}
