// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// serverTLS is what a filter chain secures its connections with. Context is nil
// while it cannot: connections are refused then, and never served in the clear.
type serverTLS struct {
	context *mtls.ServerContext
	res     *resource.DownstreamTLS
	used    material
}

// material is what a context was compiled from, to tell when that has changed.
type material struct {
	secrets map[string]*resource.Secret // nil values: not there
	files   map[string]fileState
	err     error
}

// fileState tells whether a file was replaced or written.
type fileState struct {
	inode uint64
	size  int64
	mtime int64
}

func stateOf(file string) (s fileState) {
	if i, err := os.Stat(file); err == nil {
		s.size, s.mtime = i.Size(), i.ModTime().UnixNano()
		if sys, ok := i.Sys().(*syscall.Stat_t); ok {
			s.inode = sys.Ino
		}
	}
	return s
}

// newMaterial notes what the context names.
func newMaterial(all map[string]*resource.Secret, c *resource.CommonTLS, tickets *resource.TicketKeys, ticketsSecret string) material {
	m := material{secrets: map[string]*resource.Secret{}, files: map[string]fileState{}}
	for _, name := range append([]string{c.ValidationSecret, ticketsSecret}, c.CertificateSecrets...) {
		if name != "" {
			m.secrets[name] = all[name]
		}
	}
	note := func(sources ...*resource.DataSource) {
		for _, d := range sources {
			if d.File != "" {
				m.files[d.File] = stateOf(d.File)
			}
		}
	}
	certificate := func(t *resource.TLSCertificate) {
		if t != nil {
			note(&t.Chain, &t.Key, &t.OCSP)
		}
	}
	validation := func(v *resource.ValidationContext) {
		if v == nil {
			return
		}
		note(&v.TrustedCA)
		for i := range v.TrustDomains {
			note(&v.TrustDomains[i].Bundle)
		}
	}
	keys := func(t *resource.TicketKeys) {
		for i := 0; t != nil && i < len(t.Keys); i++ {
			note(&t.Keys[i])
		}
	}
	for _, t := range c.Certificates {
		certificate(t)
	}
	validation(c.Validation)
	keys(tickets)
	for _, s := range m.secrets {
		if s != nil {
			certificate(s.Certificate)
			validation(s.Validation)
			keys(s.Tickets)
		}
	}
	return m
}

// same reports whether nothing has changed since m was made.
func (m *material) same(now *material) bool {
	return maps.Equal(m.secrets, now.secrets) && maps.Equal(m.files, now.files)
}

func (p *Proxy) tlsOptions() mtls.Options {
	secrets := p.snapshot.Secrets
	return mtls.Options{Tickets: &p.tickets, Shared: &p.shared, Secrets: func(name string) *resource.Secret { return secrets[name] }}
}

// secureChain brings the TLS of a chain up to date with its configuration, secrets
// and files. A context that cannot be made leaves the one before in service.
func (p *Proxy) secureChain(ch *chain, r *resource.DownstreamTLS) error {
	prev := ch.tls.Load()
	if r == nil {
		ch.tls.Store(nil)
		return nil
	}
	now := newMaterial(p.snapshot.Secrets, &r.CommonTLS, r.Tickets, r.TicketsSecret)
	if prev != nil && prev.res == r && prev.used.same(&now) {
		return prev.used.err
	}
	s := &serverTLS{res: r, used: now}
	s.context, s.used.err = mtls.NewServerContext(r, p.tlsOptions())
	if s.used.err != nil && prev != nil && reflect.DeepEqual(prev.res, r) {
		s.context = prev.context // the last good one of the same settings
	}
	ch.tls.Store(s)
	if s.used.err != nil {
		return fmt.Errorf("transport_socket: %w", s.used.err)
	}
	return nil
}

// rotateListeners looks for secrets and files of listeners that have changed; files only:
// for nothing that has none. It holds p.mu.
func (p *Proxy) rotateListeners(filesOnly bool) {
	for name, l := range p.listeners {
		for _, ch := range l.config.Load().all() {
			if ch.res != nil && ch.res.TLS != nil && !(filesOnly && ch.tls.Load().idle()) {
				p.tellInsecure("listener", name, p.secureChain(ch, ch.res.TLS))
			}
		}
	}
}

// rotateClusters is rotateListeners for clusters.
func (p *Proxy) rotateClusters(filesOnly bool) {
	if p.snapshot == nil {
		return
	}
	if filesOnly {
		for name := range p.restless {
			if res := p.snapshot.Clusters[name]; res != nil {
				p.tellInsecure("cluster", name, p.secureCluster(p.slot(name), res))
			} else {
				delete(p.restless, name)
			}
		}
		return
	}
	for name, res := range p.snapshot.Clusters {
		if securedCluster(res) {
			p.tellInsecure("cluster", name, p.secureCluster(p.slot(name), res))
		}
	}
}

func (p *Proxy) tellInsecure(what, name string, err error) {
	if err != nil && !errors.Is(err, mtls.ErrNoSecret) && p.untold(what+name, err) {
		p.log.Error("TLS cannot use its certificates; what it had before serves", what, name, "error", err)
	}
}

// idle reports whether only an Apply can change what a context was made of.
func (m *material) idle() bool { return len(m.files) == 0 && m.err == nil }

func (s *serverTLS) idle() bool { return s != nil && s.used.idle() }

// rotateFiles is the look for files that have changed: what moves them about, such
// as links of Kubernetes, shows here within a second.
func (p *Proxy) rotateFiles() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rotateListeners(true)
	p.rotateClusters(true)
}

// adoptChain ends the update of a chain. A chain whose TLS cannot be made takes no
// connections, and is tried again.
func (p *Proxy) adoptChain(ch *chain, fc *resource.FilterChain) {
	if err := p.secureChain(ch, fc.TLS); err != nil && p.untold("chain"+fc.Name, err) {
		p.log.Warn("filter chain cannot be secured yet: it takes no connections", "chain", fc.Name, "error", err)
	}
	ch.res = fc
	ch.limit.Store(int64(fc.ConnectionLimit))
	p.rates.compile(ch, fc.RateLimits)
}

// untold reports whether err is news about who.
func (p *Proxy) untold(who string, err error) bool {
	if p.told == nil || len(p.told) > 1000 {
		p.told = map[string]string{}
	}
	was := p.told[who]
	p.told[who] = err.Error()
	return was != err.Error()
}

// Certificates lists the certificates in use.
func (p *Proxy) Certificates() []mtls.CertificateInfo { return slices.Concat(p.CertificateSets()...) }

// CertificateSets lists the certificates in use by the listener or cluster that uses
// them, for /certs.
func (p *Proxy) CertificateSets() [][]mtls.CertificateInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out [][]mtls.CertificateInfo
	p.eachCertificates(
		func(_ *listener, set []mtls.CertificateInfo) { out = append(out, set) },
		func(_ *cluster, _ *clusterSpec, set []mtls.CertificateInfo) { out = append(out, set) },
	)
	return out
}

// eachCertificates calls back with the certificates of each context in use, by listener
// or cluster in the order of their names. A cluster that is no longer configured uses
// none, though routes may still name it. It holds p.mu.
func (p *Proxy) eachCertificates(down func(*listener, []mtls.CertificateInfo), up func(*cluster, *clusterSpec, []mtls.CertificateInfo)) {
	for _, name := range slices.Sorted(maps.Keys(p.listeners)) {
		l := p.listeners[name]
		for _, ch := range l.config.Load().all() {
			if s := ch.tls.Load(); s != nil && s.context != nil {
				down(l, s.context.Certificates())
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.slots)) {
		c := p.slots[name]
		spec := c.spec.Load()
		if spec == nil {
			continue
		}
		for _, t := range c.transports() {
			if t.context != nil {
				up(c, spec, t.context.Certificates())
			}
		}
	}
}

// mixedChains reports whether a listener has chains with TLS and chains without.
func mixedChains(res *resource.Listener) bool {
	chains := res.FilterChains
	if d := res.DefaultFilterChain; d != nil {
		chains = append(slices.Clone(chains), d)
	}
	plain := slices.ContainsFunc(chains, func(c *resource.FilterChain) bool { return c.TLS == nil })
	return plain && slices.ContainsFunc(chains, func(c *resource.FilterChain) bool { return c.TLS != nil })
}

// admission is a downstream connection whose handshake is under way.
type admission struct {
	w        *worker
	listener *listener
	chain    *chain
	started  int64
}

// admit starts the handshake of a connection of a chain with TLS.
func (w *worker) admit(c *reactor.Conn, l *listener, ch *chain, s *serverTLS) reactor.Handler {
	a := &admission{w: w, listener: l, chain: ch, started: w.accepted()}
	if s.context == nil {
		a.OnInsecure(c, mtls.Failure{Reason: mtls.NoContext, Err: s.used.err})
		return nil
	}
	return w.gate.Accept(c, s.context, s.context.Timeout(), a)
}

// OnSecure implements mtls.Owner.
func (a *admission) OnSecure(c *reactor.Conn, s *mtls.Session) reactor.Handler {
	return a.w.serve(c, a.listener, a.chain, a.started, security(s.Info()))
}

// OnInsecure implements mtls.Owner.
func (a *admission) OnInsecure(c *reactor.Conn, f mtls.Failure) {
	a.listener.left(a.chain)
	r := connectionRecord(a.w, c, a.started, a.chain.name)
	r.Flags, r.CloseDetails = record.DC, "transport_socket_failure"
	r.Security = &record.Security{FailureReason: f.Text()}
	a.listener.config.Load().log.push(a.w, &r)
}

// serve gives an accepted connection, secured if it has to be, to its protocol. since
// is when it was accepted.
func (w *worker) serve(c *reactor.Conn, l *listener, ch *chain, since int64, s *record.Security) reactor.Handler {
	if m := ch.manager.Load(); m != nil {
		c.EndOnReset()
		d := w.newDownstream(c, l, ch, m, since)
		d.security = s
		if speaks(c, m) == resource.CodecHTTP2 {
			return d.newHTTP2Conn(m)
		}
		return d
	}
	return w.newTunnel(c, l, ch, ch.tcp.Load(), s)
}

// security is what access logs say of a secured connection.
func security(i *mtls.Info) *record.Security {
	s := &record.Security{Version: i.VersionName(), Cipher: i.CipherName(), ServerName: i.SNI, ALPN: i.ALPN}
	if p := i.Peer; p != nil {
		s.PeerURI, s.PeerDNS = strings.Join(p.URIs, ","), strings.Join(p.DNS, ",")
		s.PeerSubject, s.PeerIssuer, s.PeerSerial, s.PeerFingerprint = p.Subject, p.Issuer, p.Serial, p.Fingerprint
		s.PeerNotBefore, s.PeerNotAfter = p.NotBefore.UnixNano(), p.NotAfter.UnixNano()
	}
	if p := i.Local; p != nil {
		s.LocalURI, s.LocalDNS, s.LocalSubject = strings.Join(p.URIs, ","), strings.Join(p.DNS, ","), p.Subject
	}
	return s
}

// connectError is the system's where there was no connection to secure.
func connectError(f mtls.Failure) error {
	if errno, ok := f.Err.(syscall.Errno); ok && f.Reason == mtls.Closed {
		return errno
	}
	return f
}

// tlsFailure is the failure of a connection that could not be secured.
func tlsFailure(f mtls.Failure) *failure {
	reason, class := f.Text(), classConnect
	if short(f) {
		class = classShort
	}
	return &failure{
		Flag: record.UF, Status: 503, Class: class, Reason: reason,
		Details: "upstream_reset_before_response_started{remote_connection_failure|" + strings.ReplaceAll(reason, " ", "_") + "}",
		Body:    []byte("upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, transport failure reason: " + reason),
	}
}
