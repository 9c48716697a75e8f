// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// credentials are the files of TLS: one certificate (P-256) for every proxy, server
// and client at once, of an authority made for the run.
type credentials struct {
	Host                                string // the certificate's DNS name
	Identity                            string // and its URI
	Authority, Certificate, Key, Bundle string // files; Bundle has certificate and key

	roots *x509.CertPool
}

const (
	tlsHost     = "bench.example"
	tlsIdentity = "spiffe://bench.example/ns/default/sa/bench"
	tlsLife     = 24 * time.Hour
)

func makeCredentials(dir string) (c credentials, err error) {
	c = credentials{
		Host: tlsHost, Identity: tlsIdentity,
		Authority: filepath.Join(dir, "ca.pem"), Certificate: filepath.Join(dir, "cert.pem"),
		Key: filepath.Join(dir, "key.pem"), Bundle: filepath.Join(dir, "bundle.pem"),
		roots: x509.NewCertPool(),
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(tlsLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey, caCert, err := issue(ca, ca, nil)
	if err != nil {
		return c, err
	}
	identity, err := url.Parse(tlsIdentity)
	if err != nil {
		return c, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: tlsHost},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{tlsHost}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, URIs: []*url.URL{identity},
	}
	key, cert, err := issue(leaf, ca, caKey)
	if err != nil {
		return c, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return c, err
	}
	caText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caCert})
	certText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	c.roots.AppendCertsFromPEM(caText)
	for file, text := range map[string][]byte{
		c.Authority: caText, c.Certificate: certText, c.Key: keyText, c.Bundle: append(certText, keyText...),
	} {
		// Of no worth beyond the run, and read by a worker that gave up root.
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return c, err
		}
	}
	return c, nil
}

// issue makes a key and its certificate; without a parent's key it signs itself.
func issue(of, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, of, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of %s: %w", of.Subject.CommonName, err)
	}
	return key, der, nil
}

// client is the configuration of a client that asks every proxy for the same: TLS
// 1.3 with X25519, which all of them have. (crypto/tls and BoringSSL would choose a
// post-quantum exchange, which costs both ends more.)
func (c *credentials) client(alpn string) *tls.Config {
	return &tls.Config{
		RootCAs: c.roots, ServerName: c.Host, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
}
