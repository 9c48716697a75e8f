// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// certificate is that of every listener with TLS, made once.
var certificate = sync.OnceValue(func() (made struct{ chain, key string }) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"a"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	made.chain = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	made.key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return made
})

// downstreamTLS is the transport socket of a filter chain that takes HTTP/2 and
// HTTP/1.1 over TLS.
func downstreamTLS() string {
	c := certificate()
	return fmt.Sprintf(`transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, `+
		`common_tls_context: {alpn_protocols: [h2, http/1.1], tls_certificates: [{certificate_chain: {inline_string: %q}, private_key: {inline_string: %q}}]}}}`, c.chain, c.key)
}

// clientTLS is what clients of such a chain use: who the sidecar is does not
// matter here.
func clientTLS(protocol string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
}

// over is the connection itself, or TLS on it.
func over(c net.Conn, secure bool) net.Conn {
	if !secure {
		return c
	}
	return tls.Client(c, clientTLS("h2"))
}
