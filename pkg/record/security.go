// SPDX-License-Identifier: Apache-2.0

package record

// Security is what TLS has said of a downstream connection. It is immutable and
// shared by the records of the connection. Lists are joined by commas.
type Security struct {
	Version, Cipher string
	ServerName      string
	ALPN            string // negotiated; "": none
	FailureReason   string // of the handshake: there was no connection then

	PeerURI, PeerDNS            string
	PeerSubject, PeerIssuer     string
	PeerSerial, PeerFingerprint string
	PeerNotBefore, PeerNotAfter int64 // unix nanoseconds

	LocalURI, LocalDNS, LocalSubject string
}
