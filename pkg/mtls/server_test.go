// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	orders  = "spiffe://mesh.example/ns/shop/sa/orders"
	billing = "spiffe://mesh.example/ns/shop/sa/billing"
)

func TestBytesComeBackOverTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	to := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}, ALPN: []string{"h2", "http/1.1"}}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			c, err := dial(t, to, &tls.Config{RootCAs: ca.pool(), ServerName: "a.example", MaxVersion: version, NextProtos: []string{"http/1.1"}})
			must(t, err)
			defer c.Close()
			for _, n := range []int{1, 100, 1 << 10, 16 << 10, 16<<10 + 1, 1 << 20} {
				exchange(t, c, pattern(n))
			}
			i := receive(t, "handshake", r.infos)
			if i.Version != version || i.ALPN != "http/1.1" || i.SNI != "a.example" || i.Resumed || i.Peer != nil || i.Local == nil || i.Local.DNS[0] != "a.example" {
				t.Errorf("negotiated %+v", i)
			}
			if want := strings.Replace(tls.VersionName(version), "TLS 1", "TLSv1", 1); i.VersionName() != want {
				t.Errorf("version %q, want %q", i.VersionName(), want)
			}
			must(t, c.CloseWrite())
			if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
				t.Errorf("after our half-close: %q, %v; want the peer's orderly end", rest, err)
			}
			if err := receive(t, "close", r.ends); err != nil {
				t.Errorf("closed with %v", err)
			}
		})
	}
}

// drips writes one byte at a time.
type drips struct{ net.Conn }

func (d drips) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := d.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestRecordsMayComeByteAfterByte(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	to := r.serve(&resource.DownstreamTLS{
		CommonTLS:                resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}, Validation: ca.trust(orders)},
		RequireClientCertificate: true,
	})
	mine := ca.issue([]string{orders}, nil).tls(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		n, err := net.Dial("tcp", to.String())
		must(t, err)
		must(t, n.(*net.TCPConn).SetNoDelay(true))
		must(t, n.SetDeadline(time.Now().Add(limit)))
		c := tls.Client(drips{n}, &tls.Config{RootCAs: ca.pool(), ServerName: "a.example", MaxVersion: version, Certificates: []tls.Certificate{mine}})
		exchange(t, c, pattern(2000))
		if i := receive(t, "handshake", r.infos); i.Peer == nil || i.Peer.URI != orders || !i.Peer.SPIFFE || i.Peer.TrustDomain != "mesh.example" {
			t.Errorf("peer %+v", i.Peer)
		}
		must(t, c.CloseWrite())
		_, err = io.ReadAll(c)
		must(t, err)
		must(t, n.Close())
	}
}

// holds lets the first write through and keeps the rest until it is released.
type holds struct {
	net.Conn
	open bool
	kept []byte
}

func (h *holds) Write(b []byte) (int, error) {
	if h.open {
		h.kept = append(h.kept, b...)
		return len(b), nil
	}
	h.open = true
	return h.Conn.Write(b)
}

func (h *holds) release(t *testing.T, n int) {
	t.Helper()
	_, err := h.Conn.Write(h.kept[:n])
	must(t, err)
	h.kept = h.kept[n:]
}

func TestRecordsThatComeWithTheEndOfTheHandshakeAreAllRead(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	to := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}}})
	for _, left := range []int{0, 1, 100, 500} { // of the last record
		n, err := net.Dial("tcp", to.String())
		must(t, err)
		must(t, n.SetDeadline(time.Now().Add(limit)))
		h := &holds{Conn: n}
		c := tls.Client(h, &tls.Config{RootCAs: ca.pool(), ServerName: "a.example", MinVersion: tls.VersionTLS13})
		must(t, c.Handshake())
		sent := pattern(2500)
		for _, b := range [][]byte{sent[:1000], sent[1000:2000], sent[2000:]} {
			_, err = c.Write(b)
			must(t, err)
		}
		h.release(t, len(h.kept)-left)
		got := make([]byte, len(sent))
		whole := len(sent)
		if left > 0 {
			whole = 2000
		}
		_, err = io.ReadFull(c, got[:whole])
		must(t, err)
		h.release(t, left)
		_, err = io.ReadFull(c, got[whole:])
		must(t, err)
		if !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of the last record later: what came back differs", left)
		}
		must(t, n.Close())
	}
}

func TestClientCertificatesAreChecked(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	r := newRig(t, mtls.Limits{})
	nul := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: sans(t, 2, "good.example\x00.evil.example")}}
	}
	raw := func(uri string) func(c *x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: sans(t, 6, uri)}}
		}
	}
	ok := []string{orders}
	for _, tc := range []struct {
		name   string
		by     *authority
		names  []string
		edit   func(*x509.Certificate)
		none   bool
		reason mtls.Reason
		text   string
	}{
		{name: "expired", by: ca, names: ok, edit: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, reason: mtls.Expired, text: "TLS_error: certificate has expired"},
		{name: "not yet valid", by: ca, names: ok, edit: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, reason: mtls.NotYetValid},
		{name: "another authority", by: other, names: ok, reason: mtls.UnknownCA, text: "TLS_error: certificate is signed by an unknown authority"},
		{name: "another identity", by: ca, names: []string{billing}, reason: mtls.WrongIdentity},
		{name: "another trust domain", by: ca, names: []string{"spiffe://mesh.example.evil/ns/shop/sa/orders"}, reason: mtls.WrongIdentity},
		{name: "a DNS name in place of a URI", by: ca, names: []string{"orders"}, reason: mtls.WrongIdentity},
		{name: "two URIs", by: ca, names: []string{orders, billing}, reason: mtls.BadIdentity},
		{name: "the identity and another URI", by: ca, names: []string{orders, "https://example.com"}, reason: mtls.BadIdentity},
		{name: "NUL in a name", by: ca, names: nil, edit: nul, reason: mtls.BadIdentity},
		{name: "upper case scheme", by: ca, edit: raw("SPIFFE" + orders[6:]), reason: mtls.BadIdentity},
		{name: "percent-encoded", by: ca, edit: raw("spiffe://mesh.example/ns/shop/sa/%6frders"), reason: mtls.BadIdentity},
		{name: "dots in the path", by: ca, edit: raw("spiffe://mesh.example/ns/shop/sa/x/../orders"), reason: mtls.BadIdentity},
		{name: "a port", by: ca, edit: raw("spiffe://mesh.example:443/ns/shop/sa/orders"), reason: mtls.BadIdentity},
		{name: "no path", by: ca, edit: raw("spiffe://mesh.example"), reason: mtls.BadIdentity},
		{name: "an authority itself", by: ca, names: ok, edit: func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, reason: mtls.BadIdentity},
		{name: "for servers only", by: ca, names: ok, edit: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, reason: mtls.WrongUsage},
		{name: "none", none: true, reason: mtls.NoCertificate, text: "TLS_error: peer showed no certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				for _, bundle := range []bool{false, true} {
					v := ca.trust(orders)
					if bundle { // by trust domain: checked by us alone
						v = ca.trust(orders)
						v.TrustDomains = []resource.TrustDomain{{Name: "mesh.example", Bundle: v.TrustedCA}}
						v.TrustedCA = resource.DataSource{}
					}
					to := r.serve(&resource.DownstreamTLS{
						CommonTLS:                resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}, Validation: v},
						RequireClientCertificate: true,
					})
					conf := &tls.Config{RootCAs: ca.pool(), ServerName: "a.example", MaxVersion: version}
					if !tc.none {
						mine := tc.by.issue(tc.names, tc.edit).tls(t)
						conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mine, nil }
					}
					c, err := dial(t, to, conf)
					if err == nil { // in 1.3 the client learns it by the first read
						_, err = c.Read(make([]byte, 1))
						_ = c.Close()
					}
					if err == nil || errors.Is(err, io.EOF) {
						t.Errorf("the client got in: %v", err)
					}
					f := r.failure()
					if f.Reason != tc.reason && !(bundle && (f.Reason == mtls.WrongIdentity || tc.name == "another trust domain" && f.Reason == mtls.UnknownCA)) {
						t.Errorf("%s, bundle %t: reason %s (%v), want %s", tls.VersionName(version), bundle, f.Reason, f, tc.reason)
					}
					if tc.text != "" && f.Text() != tc.text {
						t.Errorf("text %q, want %q", f.Text(), tc.text)
					}
				}
			}
		})
	}
	if len(r.infos) > 0 {
		t.Error("a handshake was done")
	}
}

// sans is the extension with one name of a kind.
func sans(t *testing.T, tag int, name string) []byte {
	t.Helper()
	b, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(name)}})
	must(t, err)
	return b
}

func TestSessionsResumeAndOnlyUnderTheSameRules(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	tickets := &mtls.Tickets{}
	res := func(uris ...string) *resource.DownstreamTLS {
		return &resource.DownstreamTLS{
			CommonTLS:                resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}, Validation: ca.trust(uris...)},
			RequireClientCertificate: true,
		}
	}
	var ctx *mtls.ServerContext
	use := func(d *resource.DownstreamTLS) {
		s, err := mtls.NewServerContext(d, mtls.Options{Tickets: tickets})
		must(t, err)
		r.on(func() { ctx = s })
	}
	use(res(orders))
	to := r.listen(func() *mtls.ServerContext { return ctx }, 0)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		conf := &tls.Config{RootCAs: ca.pool(), ServerName: "a.example", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4),
			Certificates: []tls.Certificate{ca.issue([]string{orders}, nil).tls(t)}}
		connect := func(want bool) {
			t.Helper()
			c, err := dial(t, to, conf)
			must(t, err)
			exchange(t, c, []byte("x")) // and the ticket
			must(t, c.Close())
			i := receive(t, "handshake", r.infos)
			if i.Resumed != want || i.Peer == nil || i.Peer.URI != orders {
				t.Errorf("%s: %+v of %+v, want resumed %t", tls.VersionName(version), i, i.Peer, want)
			}
		}
		use(res(orders))
		connect(false)
		connect(true)
		use(res(orders)) // our certificate has rotated: the rules are the same
		connect(true)
		use(res(orders, billing))
		connect(false)
		connect(true)
		use(res(billing)) // not even with a ticket
		c, err := dial(t, to, conf)
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if f := r.failure(); err == nil || f.Reason != mtls.WrongIdentity {
			t.Errorf("a client that is no longer accepted: %v, %v", err, f)
		}
	}
}

func TestCertificatesArePickedByServerName(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	certs := []*resource.TLSCertificate{
		ca.issue([]string{"first.example"}, nil).res(), ca.issue([]string{"a.example"}, nil).res(), ca.issue([]string{"*.b.example"}, nil).res(),
	}
	to := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: certs}})
	strict := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: certs}, RequireSNI: true})
	for sni, want := range map[string]string{"a.example": "a.example", "A.EXAMPLE": "a.example", "x.b.example": "*.b.example", "y.x.b.example": "first.example", "other": "first.example", "": "first.example"} {
		c, err := dial(t, to, &tls.Config{InsecureSkipVerify: true, ServerName: sni})
		must(t, err)
		if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("%q got the certificate of %s, want %s", sni, got, want)
		}
		must(t, c.Close())
	}
	if _, err := dial(t, strict, &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("no server name was taken where one is required")
	}
	if f := r.failure(); f.Reason != mtls.NoServerName {
		t.Errorf("reason %v", f)
	}
}

// A client may be shown another certificate than the first of its server name.
func TestTheLocalIdentityIsOfTheCertificateThatWasShown(t *testing.T) {
	ca := newAuthority(t, "ca")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	certs := []*resource.TLSCertificate{
		ca.issueFor(key, []string{"a.example", "rsa.example"}, nil).res(), ca.issue([]string{"a.example", "ecdsa.example"}, nil).res(),
	}
	r := newRig(t, mtls.Limits{})
	to := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: certs}})
	for suite, want := range map[uint16]string{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: "rsa.example", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: "ecdsa.example",
	} {
		for _, name := range []string{"a.example", "", "other.example"} {
			conf := &tls.Config{
				InsecureSkipVerify: true, ServerName: name, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}, ClientSessionCache: tls.NewLRUClientSessionCache(1),
			}
			for resumed := range 2 {
				c, err := dial(t, to, conf)
				must(t, err)
				i := receive(t, "what the handshake agreed on", r.infos)
				if got := c.ConnectionState().PeerCertificates[0].DNSNames[1]; got != want {
					t.Errorf("shown %s to a client of %s", got, want)
				}
				if i.Local == nil || i.Local.DNS[1] != want || i.Resumed != (resumed == 1) {
					t.Errorf("%q, resumed %v: got %+v, want %s", name, i.Resumed, i.Local, want)
				}
				must(t, c.Close())
			}
		}
	}
}

func TestFailuresHaveReasons(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	r := newRig(t, mtls.Limits{})
	cert := []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}
	to := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: cert, ALPN: []string{"h2"}, MinVersion: tls.VersionTLS13}})
	only12 := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: cert, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}})
	handshake := func(c *tls.Config) func(net.Conn) {
		return func(n net.Conn) { _ = tls.Client(n, c).Handshake() }
	}
	send := func(s string) func(net.Conn) { return func(n net.Conn) { _, _ = n.Write([]byte(s)) } }
	for name, tc := range map[string]struct {
		do     func(net.Conn)
		old    bool
		reason mtls.Reason
		text   string
	}{
		"version":     {do: handshake(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}), reason: mtls.NoVersion},
		"cipher":      {do: handshake(&tls.Config{InsecureSkipVerify: true, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}), old: true, reason: mtls.NoCipher},
		"ALPN":        {do: handshake(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"spdy/3"}}), reason: mtls.NoALPN},
		"alert":       {do: handshake(&tls.Config{RootCAs: other.pool(), ServerName: "a.example"}), reason: mtls.Alert, text: "TLS_error: peer sent an alert: bad certificate"},
		"HTTP":        {do: send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), reason: mtls.NotTLS, text: "TLS_error: not a TLS handshake"},
		"nothing":     {do: func(net.Conn) {}, reason: mtls.Closed},
		"half a head": {do: send("\x16\x03"), reason: mtls.Closed},
		"half hello":  {do: send("\x16\x03\x01\x01\x00\x01"), reason: mtls.Closed},
		"garbage":     {do: send("\x16\x03\x01\x00\x05hello"), reason: mtls.Protocol},
		"huge record": {do: send("\x16\x03\x01\xff\xff" + strings.Repeat("x", 1<<16)), reason: mtls.NotTLS},
		"SSL 2":       {do: send("\x80\x2e\x01\x00\x02" + strings.Repeat("\x00", 60)), reason: mtls.NotTLS},
	} {
		t.Run(name, func(t *testing.T) {
			at := to
			if tc.old {
				at = only12
			}
			n, err := net.Dial("tcp", at.String())
			must(t, err)
			must(t, n.SetDeadline(time.Now().Add(limit)))
			tc.do(n)
			_ = n.(*net.TCPConn).CloseWrite()
			f := r.failure()
			if f.Reason != tc.reason {
				t.Errorf("reason %s (%v), want %s", f.Reason, f, tc.reason)
			}
			if tc.text != "" && f.Text() != tc.text {
				t.Errorf("text %q, want %q", f.Text(), tc.text)
			}
			_, _ = io.Copy(io.Discard, n)
			must(t, n.Close())
		})
	}
	r.on(func() {
		if down, up := r.gate.InProgress(); down != 0 || up != 0 {
			t.Errorf("%d and %d handshakes are still under way", down, up)
		}
		if n := r.gate.Counters().Failures[mtls.Closed]; n != 3 {
			t.Errorf("%d were counted as closed, want 3", n)
		}
	})
}

func TestAnEndWithoutCloseNotifyIsNotAnOrderlyOne(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	to := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c, err := dial(t, to, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
		must(t, err)
		exchange(t, c, []byte("hello"))
		must(t, c.NetConn().(*net.TCPConn).CloseWrite())
		if err := receive(t, "close", r.ends); !errors.Is(err, reactor.ErrTruncated) {
			t.Errorf("closed with %v, want ErrTruncated", err)
		}
		must(t, c.NetConn().Close())
	}
}

func TestARecordThatWasChangedEndsTheConnection(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	to := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}}})
	c, err := dial(t, to, &tls.Config{InsecureSkipVerify: true})
	must(t, err)
	exchange(t, c, []byte("hello"))
	_, err = c.NetConn().Write(append([]byte{23, 3, 3, 0, 40}, bytes.Repeat([]byte{1}, 40)...))
	must(t, err)
	_, err = c.Read(make([]byte, 1))
	if err == nil || !strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("the client was told %v, want the alert bad_record_mac", err)
	}
	if err := receive(t, "close", r.ends); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("closed with %v", err)
	}
	must(t, c.NetConn().Close())
}
