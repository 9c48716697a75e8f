// SPDX-License-Identifier: Apache-2.0

package accesslog

import "github.com/outrigger-mesh/outrigger/pkg/record"

// What opSecurity says of a connection, by index.
const (
	tlsVersion = iota
	tlsCipher
	tlsFailure
	tlsServerName
	tlsPeerURI
	tlsPeerDNS
	tlsPeerSubject
	tlsPeerIssuer
	tlsPeerSerial
	tlsPeerFingerprint
	tlsLocalURI
	tlsLocalDNS
	tlsLocalSubject
)

// security appends one of the values of TLS. Names come from certificates and
// hellos: they are escaped like any other text.
func (c *command) security(dst []byte, m mode, s *record.Security) ([]byte, bool) {
	if s == nil {
		return dst, false
	}
	v := [...]string{
		tlsVersion: s.Version, tlsCipher: s.Cipher, tlsFailure: s.FailureReason, tlsServerName: s.ServerName,
		tlsPeerURI: s.PeerURI, tlsPeerDNS: s.PeerDNS, tlsPeerSubject: s.PeerSubject, tlsPeerIssuer: s.PeerIssuer,
		tlsPeerSerial: s.PeerSerial, tlsPeerFingerprint: s.PeerFingerprint,
		tlsLocalURI: s.LocalURI, tlsLocalDNS: s.LocalDNS, tlsLocalSubject: s.LocalSubject,
	}[c.index]
	if c.index == tlsFailure {
		return c.details(dst, m, v)
	}
	return c.string(dst, m, v)
}
