// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// ofFiles is a proxy that follows files, such as ones with its secrets and a filter (SDS,
// ECDS).
type ofFiles struct {
	t                  *testing.T
	dir, admin, listen string
	proxy              *mesh.Process
}

func newOfFiles(t *testing.T) *ofFiles {
	return &ofFiles{t: t, dir: t.TempDir(), admin: mesh.FreeAddress(t), listen: mesh.FreeAddress(t)}
}

// start starts it with a bootstrap for its addresses.
func (f *ofFiles) start(program string, b mesh.Bootstrap) {
	f.t.Helper()
	b.Admin, b.Listen = f.admin, f.listen
	f.proxy = mesh.StartProxy(f.t, program, f.dir, b.String(), f.admin)
}

// stat is the text of a number of the admin port.
func (f *ofFiles) stat(name string) string {
	body, err := mesh.Get("http://" + f.admin + "/stats")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(body) {
		if n, value, _ := strings.Cut(strings.TrimSpace(line), ": "); n == name {
			return value
		}
	}
	return "missing"
}

// write replaces a file as a whole, which Envoy looks for.
func (f *ofFiles) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.t.Fatal(err)
	}
}

func inYAML(b []byte) string { return fmt.Sprintf("%q", b) }

// certificate puts c into service.
func (f *ofFiles) certificate(c *tls.Certificate) {
	f.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		f.t.Fatal(err)
	}
	f.write("cert.yaml", fmt.Sprintf(`resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: spiffe://mesh/a:b
  tls_certificate: {certificate_chain: {inline_string: %s}, private_key: {inline_string: %s}}
`, inYAML(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})), inYAML(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))))
}

// filter puts a configuration of the filter into service.
func (f *ofFiles) filter(config string) {
	f.write("ecds.yaml", `resources:
- "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: of.calls
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.`+config+`}
`)
}

func (f *ofFiles) bootstrap() mesh.Bootstrap {
	return mesh.Bootstrap{
		Routes: mesh.AllTo("c"),
		Filters: fmt.Sprintf(`
          - name: of.calls
            config_discovery:
              config_source: {path_config_source: {path: %s/ecds.yaml}}
              type_urls: [type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig]
`, f.dir),
		Chain: fmt.Sprintf(`
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context: &own
            tls_certificate_sds_secret_configs: [{name: "spiffe://mesh/a:b", sds_config: {path_config_source: {path: %[1]s/cert.yaml}}}]
            validation_context_sds_secret_config: {name: roots, sds_config: {path_config_source: {path: %[1]s/roots.yaml}}}
`, f.dir),
		Clusters: mesh.StaticCluster("c", `
    transport_socket:
      name: tls
      typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: *own}
`, "127.0.0.1:9"),
	}
}

// want waits until the stats of certificates and of the filter are exactly these.
func (f *ofFiles) want(when string, own, roots time.Time, counts map[string]int64) {
	f.t.Helper()
	want := map[string]int64{}
	for _, scope := range []string{"listener." + strings.ReplaceAll(f.listen, ":", "_"), "cluster.c"} {
		want[scope+".ssl.certificate.spiffe://mesh/a:b.expiration_unix_time_seconds"] = own.Unix()
		want[scope+".ssl.certificate.roots.expiration_unix_time_seconds"] = roots.Unix()
	}
	for name, n := range counts {
		want["extension_config_discovery.http_filter.of.calls."+name] = n
	}
	f.proxy.Await(routeLimit, "the stats "+when, func() error {
		body, err := mesh.Get("http://" + f.admin + "/stats")
		if err != nil {
			return err
		}
		got := map[string]int64{}
		for line := range strings.Lines(body) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if strings.Contains(name, ".ssl.certificate.") || strings.HasPrefix(name, "extension_config_discovery.") && strings.Contains(name, ".config_") {
				var n int64
				if _, err := fmt.Sscan(value, &n); err != nil {
					return fmt.Errorf("%s: %q is no number", name, value)
				}
				got[name] = n
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("got %v, want %v", got, want)
		}
		return nil
	})
}

// TestStatsOfCertificatesAndFiltersAreEnvoys: the same files lead to the same stats, of
// the sidecar and of Envoy.
func TestStatsOfCertificatesAndFiltersAreEnvoys(t *testing.T) {
	a := newAuthority(t)
	roots, err := os.ReadFile(a.certificateFile)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(life time.Duration) (*tls.Certificate, time.Time) {
		c := a.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(life).Truncate(time.Second) }, "spiffe://mesh/a")
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return c, leaf.NotAfter
	}
	mesh.Both(t, func(t *testing.T, program string) {
		f := newOfFiles(t)
		f.write("roots.yaml", fmt.Sprintf(`resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: roots
  validation_context: {trusted_ca: {inline_string: %s}}
`, inYAML(roots)))
		first, until := issue(time.Hour)
		f.certificate(first)
		f.filter("grpc_stats.v3.FilterConfig, stats_for_all_methods: false")
		f.start(program, f.bootstrap())
		f.want("at first", until, a.certificate.NotAfter, map[string]int64{"config_reload": 1, "config_fail": 0, "config_conflict": 0})

		next, later := issue(5 * time.Hour)
		f.certificate(next)
		f.filter("grpc_stats.v3.FilterConfig, stats_for_all_methods: true")
		f.want("after a rotation", later, a.certificate.NotAfter, map[string]int64{"config_reload": 2, "config_fail": 0, "config_conflict": 0})

		f.filter("router.v3.Router")
		f.want("after a filter that is refused", later, a.certificate.NotAfter, map[string]int64{"config_reload": 2, "config_fail": 1, "config_conflict": 0})
	})
}
