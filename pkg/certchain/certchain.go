// SPDX-License-Identifier: Apache-2.0

// Package certchain verifies chains of certificates that anybody may have made, at a
// cost that their maker does not choose. x509.Certificate.Verify tries up to 100
// signatures, each by a key out of the chain: with keys of P-521 that is 0.3 s of CPU
// for one handshake of a stranger.
package certchain

import (
	"crypto/x509"
	"errors"
)

// MaxLength is how many certificates a chain may have, the peer's own included, where
// nothing else is configured: a root, two authorities below it and the leaf. Meshes
// have one or two authorities between; each more is work for whoever connects.
const MaxLength = 4

// ErrTooLong is of a chain that was not looked at.
var ErrTooLong = errors.New("the certificate chain is too long")

// Verify is x509.Certificate.Verify for the leaf that chain begins with; the rest of
// chain is what options.Intermediates would be. No signature is checked with a key
// that no root vouches for, and none at all in a chain of more than most certificates.
func Verify(chain []*x509.Certificate, options x509.VerifyOptions, most int) ([][]*x509.Certificate, error) {
	if len(chain) > most {
		return nil, ErrTooLong
	}
	between, invalid := vouched(chain[1:], options)
	options.Intermediates = between
	found, err := chain[0].Verify(options)
	var unknown x509.UnknownAuthorityError
	if invalid != nil && errors.As(err, &unknown) {
		err = invalid // it says why the leaf's authority is not known
	}
	return found, err
}

// vouched returns those of list that lead to a root, found from the roots on: what is
// checked is checked with a key of a root, or of what was found before. invalid is
// what is wrong with one that is left out, other than that.
func vouched(list []*x509.Certificate, options x509.VerifyOptions) (found *x509.CertPool, invalid error) {
	found = x509.NewCertPool()
	options.Intermediates = found
	used := make([]bool, len(list))
	for more := true; more; {
		more = false
		for i, c := range list {
			if used[i] {
				continue
			}
			_, err := c.Verify(options)
			if err == nil {
				found.AddCert(c)
				used[i], more = true, true
				continue
			}
			var reason x509.CertificateInvalidError
			if errors.As(err, &reason) {
				invalid = err
			}
		}
	}
	return found, invalid
}
