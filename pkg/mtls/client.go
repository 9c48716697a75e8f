// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// maxPeers bounds the peers whose sessions a context keeps.
const maxPeers = 1024

// ClientContext secures dialled connections. It is immutable but for the sessions
// that it keeps, and free for all.
type ClientContext struct {
	res      *resource.UpstreamTLS
	options  Options
	verifier *verifier // nil: any server is accepted
	all      []*tls.Certificate
	local    *Identity
	files    []string
	certs    []CertificateInfo

	mu    sync.Mutex
	peers map[peer]*tls.Config
}

// peer is whom a session may be resumed with.
type peer struct {
	addr     netip.AddrPort
	sni      string
	protocol string
}

// NewClientContext compiles a context. Files are read here. The error wraps
// ErrNoSecret while a secret has not come.
func NewClientContext(r *resource.UpstreamTLS, o Options) (*ClientContext, error) {
	l := &loader{secrets: o.Secrets, shared: o.Shared}
	c := &ClientContext{res: r, options: o, peers: map[peer]*tls.Config{}}
	var err error
	if c.all, err = l.certificates(&r.CommonTLS); err != nil {
		return nil, err
	}
	if len(c.all) > 0 {
		c.local = &l.certs[0].Identity
	}
	if c.verifier, err = l.validation(&r.CommonTLS, x509.ExtKeyUsageServerAuth); err != nil {
		return nil, err
	}
	if r.AutoSANs && (c.verifier == nil || c.verifier.roots == nil && c.verifier.domains == nil) {
		return nil, errors.New("auto_sni_san_validation needs a validation_context with trusted_ca")
	}
	c.files, c.certs = l.files, l.certs
	c.options.Secrets, c.options.Shared = nil, nil
	return c, nil
}

// Config is what a client outside of a loop secures its connections to a peer with; who
// uses it sets its own deadlines. It is not to be changed.
func (c *ClientContext) Config(addr netip.AddrPort, hello Hello) *tls.Config {
	return c.config(addr, hello)
}

// config returns the configuration for a peer, with the sessions had with it.
func (c *ClientContext) config(addr netip.AddrPort, hello Hello) *tls.Config {
	p := peer{addr: addr, sni: c.sni(hello.Name)}
	if len(c.res.ALPN) == 0 {
		p.protocol = hello.Protocol
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if conf := c.peers[p]; conf != nil {
		return conf
	}
	if len(c.peers) >= maxPeers {
		clear(c.peers)
	}
	conf := c.newConfig(&p)
	c.peers[p] = conf
	return conf
}

// sni is the name that is sent.
func (c *ClientContext) sni(host string) string {
	if c.res.SNI == "" && c.res.AutoHostSNI {
		return host
	}
	return c.res.SNI
}

func (c *ClientContext) newConfig(p *peer) *tls.Config {
	conf := newConfig(&c.res.CommonTLS, c.options.Now)
	conf.ServerName = p.sni
	if p.protocol != "" {
		conf.NextProtos = []string{p.protocol}
	}
	conf.InsecureSkipVerify = true // verify does it: names are not hosts here
	conf.VerifyConnection = c.verify
	conf.GetClientCertificate = c.certificate
	if c.res.MaxSessionKeys > 0 {
		conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return conf
}

// certificate picks the first that the server can use; none is an empty one.
func (c *ClientContext) certificate(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	for _, t := range c.all {
		if r.SupportsCertificate(t) == nil {
			return t, nil
		}
	}
	if len(c.all) > 0 { // let the server say what is wrong with it
		return c.all[0], nil
	}
	return &tls.Certificate{}, nil
}

func (c *ClientContext) verify(cs tls.ConnectionState) error {
	if c.verifier == nil {
		return nil
	}
	name := ""
	if c.res.AutoSANs {
		name = cs.ServerName
	}
	_, err := c.verifier.verify(cs.PeerCertificates, cs.DidResume, c.options.now(), name)
	return err
}

func (c *ClientContext) describe(t *tls.Conn) *Info {
	cs := t.ConnectionState()
	i := newInfo(&cs)
	i.Local = c.local
	i.Peer = c.verifier.identity(cs.PeerCertificates)
	return i
}

// Files lists the files that were read, for those who watch them.
func (c *ClientContext) Files() []string { return c.files }

// Certificates lists what is in use, our own first.
func (c *ClientContext) Certificates() []CertificateInfo { return c.certs }

// Timeout is how long a handshake may take where nothing else is said.
func (c *ClientContext) Timeout() time.Duration { return DefaultTimeout }
