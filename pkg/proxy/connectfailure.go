// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"
	"syscall"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// connectErrors are the answers of kernels and networks to a connect that are
// told apart in logs; any other is told as one of the system's.
var connectErrors = [...]syscall.Errno{
	syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN,
	syscall.ENOENT, syscall.EACCES, syscall.EPERM, syscall.EADDRNOTAVAIL, syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE,
}

// immediateErrors are those of connect itself, delayedErrors those of the
// connection that it began; the last of each is for every other error.
var immediateErrors, delayedErrors = connectFailures("immediate"), connectFailures("delayed")

func connectFailures(when string) (all [len(connectErrors) + 1]failure) {
	for i := range all {
		text := "System error"
		if i < len(connectErrors) {
			text = connectErrors[i].Error()
			text = strings.ToUpper(text[:1]) + text[1:]
		}
		class := classConnect
		if i < len(connectErrors) && short(connectErrors[i]) {
			class = classShort
		}
		reason := when + " connect error: " + text
		all[i] = failure{
			Flag: record.UF, Status: 503, Class: class, Reason: reason,
			Details: "upstream_reset_before_response_started{remote_connection_failure|" + strings.ReplaceAll(reason, " ", "_") + "}",
			Body:    []byte("upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, transport failure reason: " + reason),
		}
	}
	return all
}

// short reports whether err says that we lack something: a descriptor, our own
// certificate, a place for a handshake. That says nothing about the endpoint.
func short(err error) bool {
	if f, ok := err.(mtls.Failure); ok {
		return f.Reason == mtls.NoContext || f.Reason == mtls.TooMany
	}
	return err == syscall.EMFILE || err == syscall.ENFILE
}

// connectFailure is the failure of a connection that did not come about.
func connectFailure(err error, immediate bool) *failure {
	if f, ok := err.(mtls.Failure); ok {
		return tlsFailure(f)
	}
	table := &delayedErrors
	if immediate {
		table = &immediateErrors
	}
	errno, ok := err.(syscall.Errno)
	if !ok {
		return &table[len(connectErrors)]
	}
	for i, e := range connectErrors {
		if e == errno {
			return &table[i]
		}
	}
	return &table[len(connectErrors)]
}
