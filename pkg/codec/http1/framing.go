// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// maxLengthDigits keeps a Content-Length well inside an int64.
const maxLengthDigits = 18

// framed is what Content-Length and Transfer-Encoding announce: a length,
// BodyChunked, or noFraming where neither is there (RFC 9112 §6.3). Both
// together, a repeated one, and every form that another parser might read
// differently are refused.
const noFraming int64 = -3

func (f *facts) framed(in []byte, p codec.Protocol) (int64, *Error) {
	if f.codings > 0 {
		switch {
		case f.lengths > 0:
			return 0, errLengthBoth
		case p == codec.HTTP10:
			return 0, errCodingIn10
		case f.codings > 1:
			return 0, errCodingRepeated
		}
		return codec.BodyChunked, checkCoding(f.coding.of(in))
	}
	if f.lengths > 0 {
		return parseLength(f.length.of(in))
	}
	return noFraming, nil
}

// checkCoding accepts "chunked" alone. Another coding under a final chunked
// frames well but is none of ours (501, RFC 9112 §6.1); anything else leaves the
// end of the body unknown (400, §6.3).
func checkCoding(v []byte) *Error {
	if codec.EqualFold(v, "chunked") {
		return nil
	}
	i := bytes.LastIndexByte(v, ',')
	if i < 0 || !codec.EqualFold(trimSpace(v[i+1:]), "chunked") {
		return errCoding
	}
	for option := range options(v[:i]) {
		if codec.EqualFold(option, "chunked") || !codec.ValidName(option) {
			return errCoding
		}
	}
	return errCodingUnknown
}

// parseLength reads 1*DIGIT and nothing else.
func parseLength(v []byte) (int64, *Error) {
	if len(v) == 0 || len(v) > maxLengthDigits {
		return 0, errLength
	}
	n := int64(0)
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, errLength
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// keepsAlive is whether the sender keeps its connection (RFC 9112 §9.3).
func (f *facts) keepsAlive(p codec.Protocol) bool {
	if f.close {
		return false
	}
	return p == codec.HTTP11 || f.keepAlive
}

// upgradeTo is the protocol that the sender offers to switch to, if it offers
// exactly one in the proper way (RFC 9110 §7.8). HTTP/2 over cleartext is not
// offered on: a peer that took it would read past every rule of ours.
func (f *facts) upgradeTo(in []byte, p codec.Protocol) (span, bool) {
	if !f.upgradeOption || f.upgrades != 1 || p != codec.HTTP11 {
		return span{}, false
	}
	v := f.upgrade.of(in)
	name, version, versioned := bytes.Cut(v, []byte{'/'})
	if !codec.ValidName(name) || versioned && !codec.ValidName(version) || codec.EqualFold(name, "h2c") {
		return span{}, false
	}
	return f.upgrade, true
}
