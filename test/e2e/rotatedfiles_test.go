// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// TestCertificatesInFilesRotateBySwappedLinks: secrets come from a file (SDS), certificate,
// key and OCSP staple from others; all are mounted as Kubernetes does, by links that
// are swapped. What is served, /certs and the stats follow, and no handshake fails.
func TestCertificatesInFilesRotateBySwappedLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(version string) {
		t.Helper()
		v := filepath.Join(dir, ".."+version)
		if err := os.Mkdir(v, 0o700); err != nil {
			t.Fatal(err)
		}
		c := mesh.SelfSigned(t, version)
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(v, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})))
		write(filepath.Join(v, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
		write(filepath.Join(v, "ocsp.der"), "staple of "+version)
		link := filepath.Join(dir, "..data")
		if err := os.Symlink(filepath.Base(v), link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
	}
	mount("one")
	for _, f := range []string{"cert.pem", "key.pem", "ocsp.der"} {
		if err := os.Symlink(filepath.Join("..data", f), filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "sds.yaml"), fmt.Sprintf(`resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: web
  tls_certificate:
    certificate_chain: {filename: %[1]s/cert.pem}
    private_key: {filename: %[1]s/key.pem}
    ocsp_staple: {filename: %[1]s/ocsp.der}
    watched_directory: {path: %[1]s}
`, dir))
	admin, listen := mesh.FreeAddress(t), mesh.FreeAddress(t)
	upstream := namedUpstream(t, "x")
	s := mesh.StartFile(t, t.TempDir(), mesh.Bootstrap{
		Admin: admin, Listen: listen, TCP: "c",
		Chain: `
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context: {tls_certificate_sds_secret_configs: [{name: web, sds_config: {path_config_source: {path: ` + dir + `/sds.yaml}}}]}
`,
		Clusters: mesh.StaticCluster("c", "", upstream),
	}.String(), admin)
	var expires int64 // Unix time, of what was served last
	served := func() (string, error) {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: routeLimit}, "tcp", listen, &tls.Config{ServerName: "x", InsecureSkipVerify: true}) //nolint:gosec // the names are looked at
		if err != nil {
			return "", err
		}
		defer c.Close() //nolint:errcheck // nothing is under way
		st := c.ConnectionState()
		expires = st.PeerCertificates[0].NotAfter.Unix()
		return st.PeerCertificates[0].Subject.CommonName + " with " + string(st.OCSPResponse), nil
	}
	await := func(version string) {
		t.Helper()
		s.Await(routeLimit, "the certificate "+version, func() error {
			if got, err := served(); err != nil || got != version+" with staple of "+version {
				return fmt.Errorf("%q %w", got, err)
			}
			return nil
		})
	}
	await("one")
	for _, version := range []string{"two", "three"} {
		mount(version)
		await(version)
		if body, err := mesh.Get("http://" + admin + "/certs"); err != nil || strings.Count(body, `"serial_number"`) != 1 || !strings.Contains(body, dir+"/cert.pem") {
			t.Errorf("/certs: %v\n%s", err, body)
		}
		body, err := mesh.Get("http://" + admin + "/stats")
		if err != nil || !strings.Contains(body, "server.days_until_first_cert_expiring: 0\n") {
			t.Errorf("the certificate is good for an hour: %v", err)
		}
		stat := fmt.Sprintf("listener.%s.ssl.certificate.web.expiration_unix_time_seconds: %d\n", strings.ReplaceAll(listen, ":", "_"), expires)
		if !strings.Contains(body, stat) {
			t.Errorf("/stats has no %s", stat)
		}
	}
}
