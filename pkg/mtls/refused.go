// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"errors"
	"net"
	"reflect"
)

// Alerts by which a peer says that it does not accept our certificate (RFC 8446,
// section 6.2).
var refusals = map[uint64]bool{
	42:  true, // bad_certificate
	43:  true, // unsupported_certificate
	44:  true, // certificate_revoked
	45:  true, // certificate_expired
	46:  true, // certificate_unknown
	48:  true, // unknown_ca
	49:  true, // access_denied
	116: true, // certificate_required
}

// Refused reports whether err, which has ended a dialled connection after its
// handshake, is the peer's refusal of our certificate: with TLS 1.3 the handshake of
// a client is over before the server has looked at it. Where nothing was heard of the
// peer before, it has processed nothing.
func Refused(err error) (Failure, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return Failure{}, false
	}
	// The type of the alert is crypto/tls's own, a number; a test holds it against the
	// library.
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 || !refusals[v.Uint()] {
		return Failure{}, false
	}
	return Failure{Reason: Alert, Err: err}, true
}
