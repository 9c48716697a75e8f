// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Options are what contexts share in a process.
type Options struct {
	Secrets Secrets
	Shared  *Shared          // nil: nothing is shared
	Tickets *Tickets         // nil: no resumption where no keys are configured
	Now     func() time.Time // nil: time.Now; asked off the loops only
}

func (o *Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// ServerContext secures accepted connections. It is immutable, and free for all.
type ServerContext struct {
	res      *resource.DownstreamTLS
	options  Options
	conf     *tls.Config
	verifier *verifier // nil: clients are not asked for certificates
	names    map[string][]*tls.Certificate
	all      []*tls.Certificate
	locals   map[*tls.Certificate]*Identity
	files    []string
	certs    []CertificateInfo
	turn     atomic.Uint64 // of the tickets in conf
}

// NewServerContext compiles a context. Files are read here. The error wraps
// ErrNoSecret while a secret has not come.
func NewServerContext(r *resource.DownstreamTLS, o Options) (*ServerContext, error) {
	l := &loader{secrets: o.Secrets, shared: o.Shared}
	s := &ServerContext{res: r, options: o, names: map[string][]*tls.Certificate{}, locals: map[*tls.Certificate]*Identity{}}
	var err error
	if s.all, err = l.certificates(&r.CommonTLS); err != nil {
		return nil, err
	}
	if len(s.all) == 0 {
		return nil, errors.New("tls_certificates: none is configured")
	}
	for i, c := range s.all {
		s.locals[c] = &l.certs[i].Identity
		s.index(c)
	}
	if s.verifier, err = l.validation(&r.CommonTLS, x509.ExtKeyUsageClientAuth); err != nil {
		return nil, err
	}
	if r.RequireClientCertificate && s.verifier == nil {
		return nil, errors.New("require_client_certificate needs a validation_context")
	}
	keys, err := l.tickets(r)
	if err != nil {
		return nil, err
	}
	s.conf = s.config()
	switch {
	case r.DisableTickets, keys == nil && o.Tickets == nil:
		s.conf.SessionTicketsDisabled = true
	case keys != nil:
		s.conf.SetSessionTicketKeys(bind(keys, s.print()))
	}
	s.files, s.certs = l.files, l.certs
	s.options.Secrets, s.options.Shared = nil, nil
	if keys != nil {
		s.options.Tickets = nil
	}
	return s, nil
}

// print is of what decides about clients.
func (s *ServerContext) print() []byte {
	if s.verifier == nil {
		return []byte("none")
	}
	return fmt.Appendf(nil, "%t %x", s.res.RequireClientCertificate, s.verifier.print)
}

// index files c under its names.
func (s *ServerContext) index(c *tls.Certificate) {
	names := c.Leaf.DNSNames
	if len(names) == 0 && c.Leaf.Subject.CommonName != "" {
		names = []string{c.Leaf.Subject.CommonName}
	}
	for _, n := range names {
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		s.names[n] = append(s.names[n], c)
	}
}

func (s *ServerContext) config() *tls.Config {
	c := newConfig(&s.res.CommonTLS, s.options.Now)
	c.GetCertificate = s.certificate
	c.GetConfigForClient = s.note
	v := s.verifier
	if v == nil {
		return c
	}
	c.VerifyConnection = s.verify
	if !v.res.SuppressCAList {
		c.ClientCAs = v.roots
	}
	// crypto/tls does not verify: it would try all that a stranger sends, before us.
	// What that costs is its alerts: a client that is refused hears bad_certificate.
	c.ClientAuth = tls.RequestClientCert
	if s.res.RequireClientCertificate {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	return c
}

// newConfig is what both directions share.
func newConfig(r *resource.CommonTLS, now func() time.Time) *tls.Config {
	c := &tls.Config{
		MinVersion: r.MinVersion, MaxVersion: r.MaxVersion, CipherSuites: r.CipherSuites, NextProtos: r.ALPN,
		Time: now,
		// Small first records help a browser's first byte; between proxies they cost
		// CPU for nothing.
		DynamicRecordSizingDisabled: true,
	}
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS12
	}
	for _, id := range r.Curves {
		c.CurvePreferences = append(c.CurvePreferences, tls.CurveID(id))
	}
	return c
}

// current returns the configuration with the ticket keys of now.
func (s *ServerContext) current() *tls.Config {
	if t := s.options.Tickets; t != nil && !s.conf.SessionTicketsDisabled {
		if keys, turn := t.current(s.options.now()); s.turn.Swap(turn) != turn {
			s.conf.SetSessionTicketKeys(bind(keys, s.print()))
		}
	}
	return s.conf
}

// certificate picks by server name: the name itself, then a wildcard, then the
// first of all; among several for a name the first that the client can use.
func (s *ServerContext) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if h.ServerName == "" && s.res.RequireSNI {
		return nil, refuse(NoServerName, "the client sent no server name")
	}
	list, known := s.lookup(h.ServerName)
	if !known && s.res.FullScan {
		list = s.all
	}
	if len(list) > 1 {
		hello := *h
		hello.ServerName = "" // lookup has seen to it: what matters is the key
		for _, c := range list {
			if hello.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
	}
	return list[0], nil
}

// note keeps what certificate the hello is for: a session that is resumed asks for
// none.
func (s *ServerContext) note(h *tls.ClientHelloInfo) (*tls.Config, error) {
	c, err := s.certificate(h)
	if p, ok := h.Conn.(*pipe); ok {
		p.sync.shown = c
	}
	return nil, err
}

func (s *ServerContext) lookup(name string) (list []*tls.Certificate, known bool) {
	name = strings.ToLower(name)
	if list = s.names[name]; list != nil && name != "" {
		return list, true
	}
	if _, tail, ok := strings.Cut(name, "."); ok {
		if list = s.names["*."+tail]; list != nil {
			return list, true
		}
	}
	// Without a name that we know: the first, and others like it for clients that
	// cannot use its kind of key.
	return s.all, false
}

func (s *ServerContext) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 && !s.res.RequireClientCertificate {
		return nil
	}
	_, err := s.verifier.verify(cs.PeerCertificates, cs.DidResume, s.options.now(), "")
	return err
}

func (s *ServerContext) describe(c *tls.Conn, shown *tls.Certificate) *Info {
	cs := c.ConnectionState()
	i := newInfo(&cs)
	i.Local = s.locals[shown]
	i.Peer = s.verifier.identity(cs.PeerCertificates)
	return i
}

// Files lists the files that were read, for those who watch them.
func (s *ServerContext) Files() []string { return s.files }

// Certificates lists what is in use, our own first.
func (s *ServerContext) Certificates() []CertificateInfo { return s.certs }

// Timeout is how long a handshake may take.
func (s *ServerContext) Timeout() time.Duration { return s.res.Handshake }
