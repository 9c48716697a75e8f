// SPDX-License-Identifier: Apache-2.0

package mtls

import "crypto/tls"

// Info says what a handshake has agreed on.
type Info struct {
	Version uint16 // of crypto/tls
	Cipher  uint16
	Resumed bool
	ALPN    string    // "": none
	SNI     string    // sent by the client; "": none
	Peer    *Identity // nil: it showed no certificate, or none that was verified
	Local   *Identity // nil: we showed none
}

func newInfo(cs *tls.ConnectionState) *Info {
	return &Info{Version: cs.Version, Cipher: cs.CipherSuite, Resumed: cs.DidResume, ALPN: cs.NegotiatedProtocol, SNI: cs.ServerName}
}

// VersionName is Envoy's: "TLSv1.3".
func (i *Info) VersionName() string {
	switch i.Version {
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(i.Version)
}

// CipherName is OpenSSL's, as in Envoy's access log.
func (i *Info) CipherName() string {
	if s, ok := opensslNames[i.Cipher]; ok {
		return s
	}
	return tls.CipherSuiteName(i.Cipher)
}

// opensslNames are the suites of TLS 1.2 that may be configured; those of 1.3 have
// one name everywhere.
var opensslNames = map[uint16]string{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       "ECDHE-ECDSA-AES128-GCM-SHA256",
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       "ECDHE-ECDSA-AES256-GCM-SHA384",
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:         "ECDHE-RSA-AES128-GCM-SHA256",
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:         "ECDHE-RSA-AES256-GCM-SHA384",
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:   "ECDHE-RSA-CHACHA20-POLY1305",
}
