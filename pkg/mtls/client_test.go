// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// server is crypto/tls's: it echoes, and half-closes back.
func server(t testing.TB, c *tls.Config) netip.AddrPort {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	must(t, err)
	done := make(chan struct{})
	t.Cleanup(func() {
		must(t, l.Close())
		<-done
	})
	go func() {
		defer close(done)
		for {
			n, err := l.Accept()
			if err != nil {
				return
			}
			_ = n.SetDeadline(time.Now().Add(limit))
			go func() {
				defer n.Close()
				if _, err := io.Copy(n, n); err == nil {
					_ = n.(*tls.Conn).CloseWrite()
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// caller writes at once, before the handshake is done, and collects what comes back.
type caller struct {
	echo
	want int
	n    int
	got  chan int
}

func (c *caller) OnSecure(_ *reactor.Conn, s *mtls.Session) reactor.Handler {
	c.r.infos <- s.Info()
	return c
}

func (c *caller) OnData(conn *reactor.Conn, in []byte) int {
	if c.n += len(in); c.n == c.want {
		conn.CloseWrite()
	}
	return len(in)
}

func (c *caller) OnEOF(*reactor.Conn) { c.got <- c.n }

// call sends n bytes over ctx and returns how many came back until the end.
func (r *rig) call(to netip.AddrPort, ctx *mtls.ClientContext, sni string, n int) *caller {
	c := &caller{echo: echo{r: r}, want: n, got: make(chan int, 1)}
	r.on(func() {
		conn, err := r.gate.Dial(reactor.TCPAddr(to), reactor.DialOptions{}, ctx, mtls.Hello{Name: sni}, 0, c)
		must(r.t, err)
		conn.Write(pattern(n))
	})
	return c
}

func clientContext(t testing.TB, u *resource.UpstreamTLS) *mtls.ClientContext {
	t.Helper()
	c, err := mtls.NewClientContext(u, mtls.Options{})
	must(t, err)
	return c
}

func TestAClientSpeaksTLSAndResumes(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		to := server(t, &tls.Config{
			Certificates: []tls.Certificate{ca.issue([]string{orders, "a.example"}, nil).tls(t)}, ClientCAs: ca.pool(), ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"},
		})
		ctx := clientContext(t, &resource.UpstreamTLS{
			CommonTLS:   resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{billing}, nil).res()}, Validation: ca.trust(orders), MaxVersion: version, ALPN: []string{"h2"}},
			AutoHostSNI: true, AutoSANs: true, MaxSessionKeys: 1,
		})
		for i, n := range []int{1, 100_000, 1 << 20} {
			c := r.call(to, ctx, "a.example", n)
			if got := receive(t, "echo", c.got); got != n {
				t.Errorf("%d of %d bytes came back", got, n)
			}
			info := receive(t, "handshake", r.infos)
			if info.Resumed != (i > 0) || info.Version != version || info.ALPN != "h2" || info.Peer == nil || info.Peer.URI != "" && info.Peer.URI != orders || info.Local.URI != billing {
				t.Errorf("connection %d: %+v", i, info)
			}
			if err := receive(t, "close", r.ends); err != nil {
				t.Errorf("closed with %v", err)
			}
		}
	}
}

func TestServersAreChecked(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	r := newRig(t, mtls.Limits{})
	for name, tc := range map[string]struct {
		by     *authority
		names  []string
		edit   func(*x509.Certificate)
		auto   bool
		reason mtls.Reason
	}{
		"expired":         {by: ca, names: []string{orders}, edit: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, reason: mtls.Expired},
		"authority":       {by: other, names: []string{orders}, reason: mtls.UnknownCA},
		"identity":        {by: ca, names: []string{billing}, reason: mtls.WrongIdentity},
		"two identities":  {by: ca, names: []string{orders, billing}, reason: mtls.BadIdentity},
		"for clients":     {by: ca, names: []string{orders}, edit: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, reason: mtls.WrongUsage},
		"not for the SNI": {by: ca, names: []string{orders, "b.example"}, auto: true, reason: mtls.WrongIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				to := server(t, &tls.Config{Certificates: []tls.Certificate{tc.by.issue(tc.names, tc.edit).tls(t)}})
				r.call(to, clientContext(t, &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{Validation: ca.trust(orders), MaxVersion: version}, SNI: "a.example", AutoSANs: tc.auto}), "", 10)
				if f := r.failure(); f.Reason != tc.reason {
					t.Errorf("reason %s (%v), want %s", f.Reason, f, tc.reason)
				}
			}
		})
	}
}

func TestWhatAClientMeetsBesidesTLSHasAReason(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	ctx := clientContext(t, &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{Validation: ca.trust(orders)}, SNI: "a.example"})
	plain := func(answer string) netip.AddrPort {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				n, err := l.Accept()
				if err != nil {
					return
				}
				b := make([]byte, 4096)
				k, _ := n.Read(b)
				if strings.Contains(string(b[:k]), string(pattern(10))) {
					t.Error("plaintext was sent before the handshake")
				}
				_, _ = n.Write([]byte(answer))
				_ = n.Close()
			}
		}()
		return l.Addr().(*net.TCPAddr).AddrPort()
	}
	r.call(plain("HTTP/1.1 400 Bad Request\r\n\r\n"), ctx, "", 10)
	if f := r.failure(); f.Reason != mtls.NotTLS {
		t.Errorf("a server that speaks HTTP: %v", f)
	}
	r.call(plain(""), ctx, "", 10)
	if f := r.failure(); f.Reason != mtls.Closed && !errors.Is(f, syscall.ECONNRESET) {
		t.Errorf("a server that hangs up: %v", f)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	nobody := l.Addr().(*net.TCPAddr).AddrPort()
	must(t, l.Close())
	r.call(nobody, ctx, "", 10)
	if f := r.failure(); f.Reason != mtls.Closed || !errors.Is(f, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", f)
	}
	demands := server(t, &tls.Config{Certificates: []tls.Certificate{ca.issue([]string{orders}, nil).tls(t)}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12})
	r.call(demands, ctx, "", 10)
	if f := r.failure(); f.Reason != mtls.Alert || f.Text() != "TLS_error: peer sent an alert: handshake failure" && !strings.Contains(f.Text(), "certificate") {
		t.Errorf("a server that wants a certificate: %v", f)
	}
}
