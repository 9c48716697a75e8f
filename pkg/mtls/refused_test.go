// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
)

// A client of TLS 1.3 hears that its certificate is refused when its handshake is
// done: the alert is told from other ends of a connection.
func TestTheRefusalOfAClientCertificateIsTold(t *testing.T) {
	a, other := newAuthority(t, "a"), newAuthority(t, "b")
	server := a.issue([]string{"a.example"}, nil).tls(t)
	cases := map[string]struct {
		conf    *tls.Config
		client  []tls.Certificate
		refused bool
	}{
		"unknown authority": {&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool()}, []tls.Certificate{other.issue([]string{"x"}, nil).tls(t)}, true},
		"expired":           {&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool()}, []tls.Certificate{a.issue([]string{"x"}, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).tls(t)}, true},
		"missing":           {&tls.Config{ClientAuth: tls.RequireAnyClientCert}, nil, true},
		"refused by a rule": {&tls.Config{ClientAuth: tls.RequireAnyClientCert, VerifyConnection: func(tls.ConnectionState) error { return errors.New("no") }}, []tls.Certificate{a.issue([]string{"x"}, nil).tls(t)}, true},
		"closed in order":   {&tls.Config{}, nil, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			defer far.Close()
			c.conf.Certificates, c.conf.MinVersion = []tls.Certificate{server}, tls.VersionTLS13
			done := make(chan struct{})
			go func() {
				defer close(done)
				s := tls.Server(far, c.conf)
				_ = s.Handshake() // its error is what the client is told
				_ = s.Close()
			}()
			client := tls.Client(near, &tls.Config{RootCAs: a.pool(), ServerName: "a.example", Certificates: c.client})
			_, err := io.ReadAll(client)
			near.Close()
			<-done
			if f, ok := mtls.Refused(err); ok != c.refused || ok && f.Reason != mtls.Alert {
				t.Errorf("%v: refused %t, %v", err, ok, f)
			}
		})
	}
}
