// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const limit = 30 * time.Second

// authority issues certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{t: t, cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// pair is a certificate with its key.
type pair struct{ chain, key []byte }

func (p pair) res() *resource.TLSCertificate {
	return &resource.TLSCertificate{Chain: resource.DataSource{Inline: p.chain}, Key: resource.DataSource{Inline: p.key}}
}

func (p pair) tls(t testing.TB) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(p.chain, p.key)
	must(t, err)
	return c
}

// issue makes a certificate for names, of which those with a scheme are URIs; edit
// may change it first.
func (a *authority) issue(names []string, edit func(*x509.Certificate)) pair {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	return a.issueFor(key, names, edit)
}

func (a *authority) issueFor(key crypto.Signer, names []string, edit func(*x509.Certificate)) pair {
	a.t.Helper()
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	c := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if u, err := url.Parse(n); err == nil && u.Scheme != "" {
			c.URIs = append(c.URIs, u)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	if edit != nil {
		edit(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	must(a.t, err)
	k, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)
	return pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// trust is a validation context of this authority and URI names.
func (a *authority) trust(uris ...string) *resource.ValidationContext {
	v := &resource.ValidationContext{TrustedCA: resource.DataSource{Inline: a.pem}, MaxDepth: -1}
	for _, u := range uris {
		v.SANs = append(v.SANs, resource.SANMatcher{Kind: resource.SANURI, Match: resource.StringMatch{Kind: resource.MatchExact, Value: u}})
	}
	return v
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a loop that runs, with a gate.
type rig struct {
	t    testing.TB
	loop *reactor.Loop
	gate *mtls.Gate
	cpu  mtls.CPU // of accepted connections
	sets *reactor.Sockets

	infos chan *mtls.Info
	fails chan mtls.Failure
	ends  chan error // OnClose of secured connections
}

func newRig(t testing.TB, limits mtls.Limits) *rig {
	t.Helper()
	l, err := reactor.NewLoop(reactor.Config{OnPanic: func(v any, stack []byte) { t.Errorf("%v\n%s", v, stack) }})
	must(t, err)
	cpu := mtls.NewCPU(2)
	r := &rig{
		t: t, loop: l, cpu: cpu, gate: mtls.NewGate(l, cpu, mtls.NewCPU(2), limits), sets: reactor.NewSockets(nil),
		infos: make(chan *mtls.Info, 1<<16), fails: make(chan mtls.Failure, 1<<16), ends: make(chan error, 1<<16),
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		l.StopOffLoop()
		wg.Wait()
	})
	return r
}

// on runs f on the loop and waits for it.
func (r *rig) on(f func()) {
	r.t.Helper()
	done := make(chan struct{})
	r.loop.PostOffLoop(func() {
		f()
		close(done)
	})
	<-done
}

// listen accepts connections, secures them by what ctx returns then, and echoes.
func (r *rig) listen(ctx func() *mtls.ServerContext, timeout time.Duration) netip.AddrPort {
	r.t.Helper()
	a, err := reactor.ParseAddr("127.0.0.1:0")
	must(r.t, err)
	set, err := r.sets.Open(a, 1, reactor.ListenOptions{Backlog: 4096})
	must(r.t, err)
	r.on(func() {
		_, err = r.loop.AddListener(set.Socket(0), accepts(func(c *reactor.Conn) reactor.Handler {
			return r.gate.Accept(c, ctx(), timeout, &echo{r: r})
		}))
	})
	must(r.t, err)
	r.t.Cleanup(set.Release)
	return set.Addr().AddrPort
}

func (r *rig) serve(res *resource.DownstreamTLS) netip.AddrPort {
	r.t.Helper()
	s, err := mtls.NewServerContext(res, mtls.Options{Tickets: &mtls.Tickets{}})
	must(r.t, err)
	return r.listen(func() *mtls.ServerContext { return s }, 0)
}

func (r *rig) failure() mtls.Failure {
	r.t.Helper()
	return receive(r.t, "a failure", r.fails)
}

func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatalf("waiting for %s: time limit reached", what)
	}
	panic("unreachable")
}

type accepts func(*reactor.Conn) reactor.Handler

func (a accepts) OnAccept(c *reactor.Conn) reactor.Handler { return a(c) }

// echo sends back what it gets, with back-pressure, and half-closes back.
type echo struct{ r *rig }

func (e *echo) OnSecure(_ *reactor.Conn, s *mtls.Session) reactor.Handler {
	e.r.infos <- s.Info()
	return e
}
func (e *echo) OnInsecure(_ *reactor.Conn, f mtls.Failure) { e.r.fails <- f }
func (e *echo) OnConnect(*reactor.Conn)                    {}
func (e *echo) OnData(c *reactor.Conn, in []byte) int {
	c.Write(in)
	return len(in)
}
func (e *echo) OnEOF(c *reactor.Conn)              { c.CloseWrite() }
func (e *echo) OnHighWater(c *reactor.Conn)        { c.Pause() }
func (e *echo) OnLowWater(c *reactor.Conn)         { c.Resume() }
func (e *echo) OnClose(_ *reactor.Conn, err error) { e.r.ends <- err }

// dial connects a crypto/tls client.
func dial(t testing.TB, to netip.AddrPort, c *tls.Config) (*tls.Conn, error) {
	t.Helper()
	n, err := net.Dial("tcp", to.String())
	must(t, err)
	must(t, n.SetDeadline(time.Now().Add(limit)))
	k := tls.Client(n, c)
	if err := k.Handshake(); err != nil {
		_ = n.Close()
		return nil, err
	}
	return k, nil
}

// exchange sends b and wants it back.
func exchange(t testing.TB, c io.ReadWriter, b []byte) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := c.Write(b)
		done <- err
	}()
	got := make([]byte, len(b))
	_, err := io.ReadFull(c, got)
	must(t, err)
	must(t, <-done)
	if string(got) != string(b) {
		t.Fatalf("%d bytes came back changed", len(b))
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}
