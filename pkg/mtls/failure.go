// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
)

// Reason is why a handshake failed, as metrics count it.
type Reason uint8

// The reasons.
const (
	Expired        Reason = iota // a certificate of the peer
	NotYetValid                  //
	UnknownCA                    //
	WrongIdentity                // no subject alternative name that is accepted
	BadIdentity                  // identities that no certificate may have
	WrongUsage                   // extended key usage
	Pinned                       // none of the accepted keys or certificates
	NoCertificate                // the peer showed none
	BadCertificate               // other faults
	NoVersion                    // none in common
	NoCipher                     //
	NoALPN                       //
	NoServerName                 // none sent, or none that we have a certificate for
	NotTLS                       // the first bytes
	Alert                        // the peer refused us
	TimedOut                     //
	Closed                       // the connection, by the peer or underneath
	TooMany                      // handshakes at a time
	NoContext                    // our own certificates are not there
	Protocol                     // the peer broke the rules
	reasonCount
)

// ReasonCount is the number of reasons.
const ReasonCount = int(reasonCount)

var reasonNames = [reasonCount]string{
	"certificate_expired", "certificate_not_yet_valid", "unknown_ca", "wrong_identity", "bad_identity", "wrong_usage", "not_pinned",
	"no_certificate", "bad_certificate", "no_common_version", "no_common_cipher", "no_common_alpn", "server_name", "not_tls", "alert",
	"timeout", "closed", "too_many_handshakes", "no_certificates", "protocol_error",
}

var reasonTexts = [reasonCount]string{
	"certificate has expired", "certificate is not yet valid", "certificate is signed by an unknown authority",
	"no accepted subject alternative name", "subject alternative names are not acceptable", "certificate is not for this use",
	"certificate is not a pinned one", "peer showed no certificate", "certificate is not acceptable",
	"no protocol version in common", "no cipher suite in common", "no application protocol in common", "server name is missing or unknown",
	"not a TLS handshake", "peer sent an alert", "handshake timed out", "connection closed during the handshake",
	"too many handshakes at a time", "Secret is not supplied by SDS", "handshake failed",
}

// String is the name of metrics: "certificate_expired".
func (r Reason) String() string { return reasonNames[r] }

// Failure is why there is no secure connection.
type Failure struct {
	Reason Reason
	Err    error // nil where there is no more to say
}

// Text is for the access log, as Envoy's transport failure reason: "TLS_error:
// certificate has expired". It holds nothing that the peer chose.
func (f Failure) Text() string {
	text := "TLS_error: " + reasonTexts[f.Reason]
	var alert tls.AlertError
	var op *net.OpError
	switch {
	case errors.As(f.Err, &alert):
		text += ": " + strings.TrimPrefix(alert.Error(), "tls: ")
	case f.Reason == Alert && errors.As(f.Err, &op):
		text += ": " + strings.TrimPrefix(op.Err.Error(), "tls: ")
	}
	return text
}

// Error is Text and the cause.
func (f Failure) Error() string {
	if f.Err == nil {
		return f.Text()
	}
	return f.Text() + " (" + f.Err.Error() + ")"
}

// Unwrap returns the cause.
func (f Failure) Unwrap() error { return f.Err }

// refusal is an error of our own checks.
type refusal struct {
	reason Reason
	text   string
}

func (r *refusal) Error() string { return "mtls: " + r.text }

func refuse(r Reason, text string) error { return &refusal{r, text} }

// failureOf says what an error of crypto/tls means.
func failureOf(err error, server bool) Failure {
	return Failure{Reason: reasonOf(err, server), Err: err}
}

func reasonOf(err error, server bool) Reason {
	var (
		own     *refusal
		record  tls.RecordHeaderError
		op      *net.OpError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &own):
		return own.reason
	case errors.As(err, &invalid):
		return invalidReason(invalid)
	case errors.As(err, &unknown):
		return UnknownCA
	case errors.As(err, &record):
		return NotTLS
	case errors.As(err, &op) && op.Op == "remote error":
		return Alert
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errCancelled):
		return Closed
	}
	return textReason(err.Error())
}

func invalidReason(e x509.CertificateInvalidError) Reason {
	switch e.Reason {
	case x509.Expired:
		if strings.Contains(e.Detail, "is before") {
			return NotYetValid
		}
		return Expired
	case x509.IncompatibleUsage:
		return WrongUsage
	}
	return BadCertificate
}

// textReason goes by the texts of crypto/tls where it has no types; a test holds
// each of them against the library.
func textReason(s string) Reason {
	for _, t := range [...]struct {
		text   string
		reason Reason
	}{
		{"didn't provide a certificate", NoCertificate},
		{"unsupported versions", NoVersion},
		{"unsupported protocol version", NoVersion},
		{"no cipher suite supported", NoCipher},
		{"unsupported application protocols", NoALPN},
		{"did not select an ALPN", NoALPN},
		{"certificate", BadCertificate},
	} {
		if strings.Contains(s, t.text) {
			return t.reason
		}
	}
	return Protocol
}
