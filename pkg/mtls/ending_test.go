// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"net"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A client's last flight, with a chain that a handshake does not hold at a time, its request
// and its end are there at once: the end comes after the bytes, not before those that the
// loop still holds.
func TestTheEndOfAClientComesAfterAllThatItSaid(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	to := r.serve(&resource.DownstreamTLS{
		CommonTLS:                resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}, Validation: ca.trust(orders)},
		RequireClientCertificate: true,
	})
	for _, long := range []int{0, 5000, 12000} { // bytes more in its certificate
		mine := ca.issue([]string{orders}, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5}, Value: make([]byte, long)}}
		}).tls(t)
		n, err := net.Dial("tcp", to.String())
		must(t, err)
		must(t, n.SetDeadline(time.Now().Add(limit)))
		h := &holds{Conn: n}
		c := tls.Client(h, &tls.Config{RootCAs: ca.pool(), ServerName: "a.example", MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{mine}})
		must(t, c.Handshake())
		sent := pattern(20000)
		_, err = c.Write(sent)
		must(t, err)
		must(t, c.CloseWrite())
		must(t, n.SetDeadline(time.Now().Add(limit))) // CloseWrite has ended the time for writes
		h.release(t, len(h.kept))
		must(t, n.(*net.TCPConn).CloseWrite())
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes more: %d bytes came back, %v", long, len(got), err)
		}
		must(t, n.Close())
	}
}
