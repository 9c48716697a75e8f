// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// serve runs f for each connection to a new address.
func serve(t *testing.T, f func(c *net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close() //nolint:errcheck // its direction was ended
				_ = c.SetDeadline(deadline())
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

// echoServer sends back what it gets, to the end.
func echoServer(t *testing.T) string {
	return serve(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
}

// proxyReader reads a PROXY header of version 2 and says what is in it, with the
// word that follows; at the client's end it says something more.
func proxyReader(t *testing.T) string {
	return serve(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		from, err := readProxyV2(r)
		if err != nil {
			_, _ = fmt.Fprint(c, err)
			_ = c.CloseWrite()
			return
		}
		hello := make([]byte, 5)
		_, _ = io.ReadFull(r, hello)
		_, _ = fmt.Fprintf(c, "%s %s", from, hello)
		_, _ = io.Copy(io.Discard, r)
		_, _ = fmt.Fprint(c, " bye")
		_ = c.CloseWrite()
	})
}

func readProxyV2(r io.Reader) (netip.AddrPort, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.AddrPort{}, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[14:]))
	if _, err := io.ReadFull(r, body); err != nil {
		return netip.AddrPort{}, err
	}
	if string(head[:12]) != "\r\n\r\n\x00\r\nQUIT\n" || head[12] != 0x21 || head[13] != 0x11 || len(body) < 12 {
		return netip.AddrPort{}, fmt.Errorf("no PROXY header of TCP over IPv4: %x", head)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[:4])), binary.BigEndian.Uint16(body[8:])), nil
}

const (
	nearID = "spiffe://mesh.example/near"
	farID  = "spiffe://mesh.example/far"
)

// paper are certificates in files, as fields of a TLS context.
type paper struct {
	t         *testing.T
	dir, ca   string
	near, far string
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
}

func newPaper(t *testing.T) *paper {
	t.Helper()
	p := &paper{t: t, dir: t.TempDir()}
	p.ca = filepath.Join(p.dir, "ca.pem")
	c := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	p.cert, p.key = p.write("ca", c)
	p.near, p.far = p.issue("near", nearID), p.issue("far", farID)
	return p
}

func (p *paper) issue(name, id string) string {
	u, err := url.Parse(id)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(name, &x509.Certificate{
		URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	file := filepath.Join(p.dir, name)
	return fmt.Sprintf("tls_certificates: [{certificate_chain: {filename: %s.pem}, private_key: {filename: %s.key}}]", file, file)
}

// write makes a certificate, signed by itself where there is no authority yet.
func (p *paper) write(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := p.cert, p.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		p.t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: k}} {
		if err := os.WriteFile(filepath.Join(p.dir, name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return made, key
}
