// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// secureMesh is a mesh whose sidecars have identities: they reach the control plane
// over mutual TLS only.
type secureMesh struct {
	*mesh.Mesh
	t     *testing.T
	xds   string // with TLS
	roots string // file of the trust bundle
}

func newSecureMesh(t *testing.T, flags ...string) *secureMesh {
	t.Helper()
	xds := mesh.FreeAddress(t)
	m := &secureMesh{Mesh: mesh.New(t, append([]string{"--xds-mtls", xds}, flags...)...), t: t, xds: xds}
	m.roots = m.save("roots.pem", m.ca("bundle"))
	return m
}

// ca runs `controlplane ca`.
func (m *secureMesh) ca(args ...string) string {
	m.t.Helper()
	f := m.ControlPlane.CLI("", append([]string{"ca"}, args...)...)
	if f.Code != 0 {
		m.t.Fatal(f.Output)
	}
	return f.Output
}

func (m *secureMesh) save(name, content string) string {
	m.t.Helper()
	path := filepath.Join(m.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// token is a file with a bootstrap token of the service.
func (m *secureMesh) token(service string) string {
	m.t.Helper()
	var answer struct{ Token string }
	if err := json.Unmarshal([]byte(m.ca("token", "--service", service, "-o", "json")), &answer); err != nil {
		m.t.Fatal(err)
	}
	return m.save(service+".token", answer.Token)
}

// sidecar starts one with an identity and waits until it is ready.
func (m *secureMesh) sidecar(service, id, app string, flags ...string) *mesh.Sidecar {
	m.t.Helper()
	s := mesh.StartSidecar(m.t, m.Dir, mesh.SidecarOptions{
		Service: service, ID: id, App: app, XDS: m.xds,
		Flags: append([]string{"--trust-bundle", m.roots, "--token-file", m.token(service)}, flags...),
	})
	s.AwaitReady()
	if app != "" {
		m.AwaitInstance(service, id, true)
	}
	return s
}

// apply puts an object in force.
func (m *secureMesh) apply(object string) {
	m.t.Helper()
	if f := m.ControlPlane.CLI(object, "apply", "-f", "-"); f.Code != 0 {
		m.t.Fatal(f.Output)
	}
}

// logInbound makes the sidecars of orders log who calls, and who is refused and why.
func (m *secureMesh) logInbound() (file string) {
	file = filepath.Join(m.Dir, "orders.access.log")
	m.apply(`
apiVersion: outrigger.io/v1
kind: Telemetry
metadata: {name: orders}
spec:
  targetRef: {kind: Service, name: orders}
  accessLog:
  - file: ` + file + `
    format: 'peer=%DOWNSTREAM_PEER_URI_SAN% status=%RESPONSE_CODE% protocol=%PROTOCOL% tls=%DOWNSTREAM_TLS_VERSION% flags=%RESPONSE_FLAGS% reason=%DOWNSTREAM_TRANSPORT_FAILURE_REASON%'
`)
	return file
}

// awaitLine waits for a line of the access log that holds all of the parts.
func (m *secureMesh) awaitLine(file string, parts ...string) {
	m.t.Helper()
	mesh.Await(m.t, 30*time.Second, fmt.Sprintf("a line of the access log with %q", parts), func() error {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
	lines:
		for line := range strings.Lines(string(b)) {
			for _, p := range parts {
				if !strings.Contains(line, p) {
					continue lines
				}
			}
			return nil
		}
		return fmt.Errorf("it is:\n%s", b)
	})
}

// authority is one from outside, whose key the test has.
type authority struct {
	certificateFile, keyFile string

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "outside"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range []struct {
		path *string
		name string
		kind string
		der  []byte
	}{{&a.certificateFile, "ca.pem", "CERTIFICATE", der}, {&a.keyFile, "ca-key.pem", "PRIVATE KEY", key}} {
		*f.path = filepath.Join(dir, f.name)
		if err := os.WriteFile(*f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// issue makes a certificate of those URI names as the mesh's are; edit may change it
// first.
func (a *authority) issue(t *testing.T, edit func(*x509.Certificate), uris ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = append(c.URIs, parsed)
	}
	if edit != nil {
		edit(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
