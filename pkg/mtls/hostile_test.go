// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// asking asks clients for certificates of ca.
func asking(ca *authority, v *resource.ValidationContext) *resource.DownstreamTLS {
	return &resource.DownstreamTLS{
		CommonTLS:                resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}, Validation: v},
		RequireClientCertificate: true,
	}
}

// shown handshakes with a chain and returns what the server makes of it, nil if done.
func shown(t *testing.T, r *rig, d *resource.DownstreamTLS, version uint16, chain tls.Certificate) *mtls.Failure {
	t.Helper()
	c, err := dial(t, r.serve(d), &tls.Config{
		InsecureSkipVerify: true, MaxVersion: version,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &chain, nil },
	})
	if err == nil {
		defer c.Close()
	}
	select {
	case f := <-r.fails:
		return &f
	case <-r.infos:
		return nil
	case <-time.After(limit):
		t.Fatal("no end of the handshake")
	}
	return nil
}

// strangers is a chain of n authorities whose keys are as slow as crypto/x509 takes
// them, and which crypto/x509 would try one after the other.
func strangers(t *testing.T, n int, padding string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	root := &x509.Certificate{
		Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if padding != "" {
		root.DNSNames = []string{padding}
	}
	chain := newAuthority(t, "ca").issue([]string{orders}, nil).tls(t)
	for i := range n {
		root.SerialNumber = big.NewInt(int64(i))
		der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
		must(t, err)
		chain.Certificate = append(chain.Certificate, der)
	}
	return chain
}

// below is a chain of n authorities of ca and a root.
func below(t *testing.T, ca *authority, n int) tls.Certificate {
	t.Helper()
	var between [][]byte
	for range n {
		p := ca.issue(nil, func(c *x509.Certificate) {
			c.Subject, c.IsCA, c.BasicConstraintsValid = pkix.Name{CommonName: "between " + c.SerialNumber.String()}, true, true
			c.KeyUsage = x509.KeyUsageCertSign
		})
		pair := p.tls(t)
		cert, err := x509.ParseCertificate(pair.Certificate[0])
		must(t, err)
		between = append([][]byte{cert.Raw}, between...)
		ca = &authority{t: t, cert: cert, key: pair.PrivateKey.(*ecdsa.PrivateKey)}
	}
	chain := ca.issue([]string{orders}, nil).tls(t)
	chain.Certificate = append(chain.Certificate, between...)
	return chain
}

func TestLongChainsAreRefusedBeforeTheyCost(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	bundle := ca.trust(orders)
	bundle.TrustDomains = []resource.TrustDomain{{Name: "mesh.example", Bundle: bundle.TrustedCA}}
	bundle.TrustedCA = resource.DataSource{}
	deep := ca.trust(orders)
	deep.MaxDepth = 5
	optional := asking(ca, ca.trust(orders))
	optional.RequireClientCertificate = false
	stranger := strangers(t, 100, "")
	for name, d := range map[string]*resource.DownstreamTLS{
		"authorities": asking(ca, ca.trust(orders)), "trust domains": asking(ca, bundle), "optional": optional,
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if f := shown(t, r, d, version, stranger); f == nil || f.Reason != mtls.BadCertificate || !strings.Contains(f.Error(), "too long") {
				t.Errorf("%s, %s: %v of a hundred authorities of a stranger", name, tls.VersionName(version), f)
			}
			if f := shown(t, r, d, version, below(t, ca, 3)); f != nil {
				t.Errorf("%s, %s: %v of a chain of 4", name, tls.VersionName(version), f)
			}
			if f := shown(t, r, d, version, below(t, ca, 4)); f == nil || f.Reason != mtls.BadCertificate {
				t.Errorf("%s, %s: %v of a chain of 5", name, tls.VersionName(version), f)
			}
		}
	}
	if f := shown(t, r, asking(ca, deep), tls.VersionTLS13, below(t, ca, 5)); f != nil {
		t.Errorf("%v of as deep a chain as is configured", f)
	}
}

// crypto/tls would gather 256 KiB of a Certificate message.
func TestWhatAHandshakeHoldsIsBounded(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	d := asking(ca, ca.trust(orders))
	if f := shown(t, r, d, tls.VersionTLS13, strangers(t, 1, strings.Repeat("x", 50<<10))); f == nil || f.Reason != mtls.UnknownCA {
		t.Errorf("%v of a large certificate of a stranger", f)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		f := shown(t, r, d, version, strangers(t, 3, strings.Repeat("x", 60<<10)))
		if f == nil || f.Reason != mtls.Protocol || !strings.Contains(f.Error(), "too long") {
			t.Errorf("%s: %v of 180 kB of certificates", tls.VersionName(version), f)
		}
	}
	r.on(func() {
		if down, _ := r.gate.InProgress(); down != 0 {
			t.Errorf("%d handshakes are still under way", down)
		}
	})
}

// A client may send as much as it likes right behind the end of its handshake.
func TestWhatComesBehindAHandshakeDoesNotCount(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	ctx, err := mtls.NewServerContext(asking(ca, ca.trust(orders)), mtls.Options{})
	must(t, err)
	var conn *reactor.Conn
	a, err := reactor.ParseAddr("127.0.0.1:0")
	must(t, err)
	set, err := r.sets.Open(a, 1, reactor.ListenOptions{})
	must(t, err)
	t.Cleanup(set.Release)
	r.on(func() {
		_, err = r.loop.AddListener(set.Socket(0), accepts(func(c *reactor.Conn) reactor.Handler {
			conn = c
			return r.gate.Accept(c, ctx, 0, &echo{r: r})
		}))
	})
	must(t, err)
	n, err := net.Dial("tcp", set.Addr().String())
	must(t, err)
	must(t, n.SetDeadline(time.Now().Add(limit)))
	defer n.Close()
	h := &holds{Conn: n}
	c := tls.Client(h, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{ca.issue([]string{orders}, nil).tls(t)}})
	must(t, c.Handshake())
	sent := pattern(256 << 10)
	_, err = c.Write(sent) // is held
	must(t, err)
	// The server computes nothing before as much as it takes has come.
	for range cap(r.cpu) {
		r.cpu <- struct{}{}
	}
	before := r.read(&conn)
	done := make(chan error, 1)
	go func() {
		_, err := n.Write(h.kept)
		done <- err
	}()
	waitFor(t, "all that fits to come", func() bool { return r.read(&conn) > before+32<<10 })
	for range cap(r.cpu) {
		<-r.cpu
	}
	got := make([]byte, len(sent))
	for k := 0; k < len(got); {
		m, err := c.Read(got[k:])
		must(t, err)
		k += m
	}
	must(t, <-done)
	if string(got) != string(sent) {
		t.Error("it came back changed")
	}
}

// A stranger's handshakes that compute do not hold up our own.
func TestDialledHandshakesDoNotWaitBehindAcceptedOnes(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.issue([]string{"a.example"}, nil).tls(t)}})
	must(t, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_ = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
	}()
	for range cap(r.cpu) {
		r.cpu <- struct{}{}
	}
	ctx, err := mtls.NewClientContext(&resource.UpstreamTLS{CommonTLS: resource.CommonTLS{Validation: ca.trust()}}, mtls.Options{})
	must(t, err)
	to, err := reactor.ParseAddr(l.Addr().String())
	must(t, err)
	r.on(func() {
		_, err = r.gate.Dial(to, reactor.DialOptions{}, ctx, mtls.Hello{}, time.Minute, &echo{r: r})
	})
	must(t, err)
	select {
	case <-r.infos:
	case f := <-r.fails:
		t.Error(f)
	case <-time.After(limit):
		t.Error("it waits")
	}
	for range cap(r.cpu) {
		<-r.cpu
	}
}
