// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"strings"
	"time"
)

// DownstreamTLS is what a filter chain's connections are secured with
// (DownstreamTlsContext).
type DownstreamTLS struct {
	CommonTLS
	RequireClientCertificate bool
	RequireSNI               bool
	DisableTickets           bool // disable_stateless_session_resumption
	FullScan                 bool // full_scan_certs_on_sni_mismatch
	// Handshake is transport_socket_connect_timeout; default 10 s.
	Handshake time.Duration
	// Keys of tickets; where both are empty, keys are made and rotated in memory.
	Tickets       *TicketKeys
	TicketsSecret string // SDS
}

// UpstreamTLS is what a cluster's connections are secured with
// (UpstreamTlsContext).
type UpstreamTLS struct {
	CommonTLS
	SNI            string // "": none, unless AutoHostSNI
	AutoHostSNI    bool   // the endpoint's hostname
	AutoSANs       bool   // auto_sni_san_validation: the name sent must be in the certificate
	MaxSessionKeys int    // sessions kept per endpoint: 0 (no resumption) or 1; default 1
}

// SocketMatch is one of a cluster's transport_socket_matches: what the connections
// to some of its endpoints are made with.
type SocketMatch struct {
	Name string
	// Match is what an endpoint's metadata of MatchNamespace must have; empty: every
	// endpoint matches.
	Match map[string]string
	TLS   *UpstreamTLS // nil: plaintext
}

// MatchNamespace is where endpoints' metadata says what Match asks for.
const MatchNamespace = "envoy.transport_socket_match"

// Secrets of the sidecar itself: its own certificate, whose key never leaves the
// process, and the roots that it checks its peers with. Resources name them
// without a source, as static secrets.
const (
	IdentitySecret = "outrigger:identity"
	RootsSecret    = "outrigger:roots"
	ownSecrets     = "outrigger:"
)

// OwnSecret reports whether a name is kept for the sidecar's own secrets.
func OwnSecret(name string) bool { return strings.HasPrefix(name, ownSecrets) }

// CommonTLS is what both directions have (CommonTlsContext).
type CommonTLS struct {
	MinVersion   uint16 // crypto/tls numbers; default TLS 1.2
	MaxVersion   uint16 // default TLS 1.3
	CipherSuites []uint16
	Curves       []uint16
	ALPN         []string // in order of preference

	Certificates       []*TLSCertificate // inline or files
	CertificateSecrets []string          // SDS

	// Validation is that of the context itself; ValidationSecret (SDS) is added to
	// it where both are set (combined_validation_context).
	Validation       *ValidationContext
	ValidationSecret string
}

// TLSCertificate is a certificate chain and its key, in PEM.
type TLSCertificate struct {
	Chain, Key DataSource
	OCSP       DataSource // staple, DER
	WatchedDir string     // its change means that the files have changed; "": their own folders
}

// DataSource is bytes, or the file that holds them.
type DataSource struct {
	Inline []byte
	File   string
}

// Empty reports whether there is nothing.
func (d *DataSource) Empty() bool { return len(d.Inline) == 0 && d.File == "" }

// ValidationContext says which certificates of peers are accepted
// (CertificateValidationContext).
type ValidationContext struct {
	TrustedCA       DataSource // PEM; empty: certificates are not verified against an authority
	SystemRoots     bool
	SANs            []SANMatcher // any of them; empty: all
	SPKI            [][]byte     // SHA-256 of accepted public keys; empty: all
	Hashes          [][]byte     // SHA-256 of accepted certificates; empty: all
	AllowExpired    bool
	AcceptUntrusted bool // ACCEPT_UNTRUSTED: what does not verify is let in without an identity
	MaxDepth        int  // max_verify_depth; -1: the library's
	SuppressCAList  bool
	// TrustDomains are the bundles of SPIFFECertValidatorConfig; where there are
	// any, only certificates with an identity of one of them are accepted.
	TrustDomains []TrustDomain
	WatchedDir   string
}

// TrustDomain is a SPIFFE trust domain and the authorities of its identities.
type TrustDomain struct {
	Name   string
	Bundle DataSource // PEM
}

// SANMatcher accepts one kind of subject alternative name.
type SANMatcher struct {
	Kind  SANKind
	Match StringMatch
}

// SANKind is a kind of subject alternative name.
type SANKind uint8

// The kinds.
const (
	SANEmail SANKind = iota
	SANDNS
	SANURI
	SANIP
)

// TicketKeys are the keys of session tickets, 80 bytes each as Envoy has them. The
// first encrypts, all decrypt.
type TicketKeys struct{ Keys []DataSource }

// Secret is a resource of SDS. Exactly one of the fields besides Name is set.
type Secret struct {
	Name        string
	Certificate *TLSCertificate
	Validation  *ValidationContext
	Tickets     *TicketKeys
	Generic     []byte // generic_secret.secret
}
