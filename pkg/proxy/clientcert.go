// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// clientCert applies Envoy's rules for x-forwarded-client-cert: what the client wrote
// there counts only where the configuration says so and the client has shown a
// certificate.
func (x *exchange) clientCert() {
	c, h := &x.manager.res.ClientCert, &x.Request
	if c.Mode == resource.ForwardAlways {
		return
	}
	s := x.Record.Security
	mutual := s != nil && s.PeerFingerprint != ""
	if !mutual || c.Mode == resource.ForwardSanitize {
		if h.HasKnown(codec.NameXForwardedClientCert) {
			h.RemoveKnown(codec.NameXForwardedClientCert)
		}
		return
	}
	b := x.w.value[:0]
	switch c.Mode {
	case resource.ForwardOnly:
		return
	case resource.ForwardAppend:
		var had bool
		if b, had = h.AppendJoined(b, "x-forwarded-client-cert"); had {
			b = append(b, ',')
		}
	case resource.ForwardSanitizeSet:
	}
	b = appendClientCert(b, c, s)
	x.w.value = b
	h.SetKnown(codec.NameXForwardedClientCert, b)
}

// appendClientCert writes one element: who we are, and what the certificate that the
// client has shown says.
func appendClientCert(b []byte, c *resource.ForwardClientCert, s *record.Security) []byte {
	b = appendNames(b, "By=", s.LocalURI)
	b = append(append(b, "Hash="...), s.PeerFingerprint...)
	if c.Subject {
		b = append(b, ";Subject="...)
		b = appendQuoted(b, s.PeerSubject)
	}
	if c.URI {
		b = appendNames(append(b, ';'), "URI=", s.PeerURI)
		b = b[:len(b)-1]
	}
	if c.DNS && s.PeerDNS != "" {
		b = appendNames(append(b, ';'), "DNS=", s.PeerDNS)
		b = b[:len(b)-1]
	}
	return b
}

// appendNames writes key and value of each of the names, joined by commas, with a
// semicolon behind each; an empty value where there is none.
func appendNames(b []byte, key, names string) []byte {
	for more := true; more; {
		var name string
		name, names, more = strings.Cut(names, ",")
		b = append(b, key...)
		if strings.ContainsAny(name, `;="`) {
			b = appendQuoted(b, name)
		} else {
			b = append(b, name...)
		}
		b = append(b, ';')
	}
	return b
}

// variants removes the fields that an application may take for x-forwarded-client-cert,
// or for a field that only the mesh may set, because it reads fields as variables:
// x_forwarded_client_cert is HTTP_X_FORWARDED_CLIENT_CERT too.
func (x *exchange) variants() {
	h := &x.Request
	for i := h.NextOther(0, 'x'); i >= 0; i = h.NextOther(i+1, 'x') {
		name, _, _, _ := h.At(i)
		if x.manager.res.ClientCert.Mode != resource.ForwardAlways && codec.EqualVariable(name, "x-forwarded-client-cert") ||
			!x.internal && (hasVariant(name, "x-envoy-") || hasVariant(name, "x-outrigger-")) {
			h.RemoveAt(i)
		}
	}
}

func hasVariant(name []byte, prefix string) bool {
	return len(name) > len(prefix) && codec.EqualVariable(name[:len(prefix)], prefix) && codec.IsVariant(name)
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
