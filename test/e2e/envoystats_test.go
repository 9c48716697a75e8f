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

// statsOfFiles is a proxy whose secrets and filter come from files (SDS, ECDS).
type statsOfFiles struct {
	t                  *testing.T
	dir, admin, listen string
	proxy              interface {
		Await(limit time.Duration, what string, check func() error)
	}
}

// write replaces a file as a whole, which Envoy looks for.
func (f *statsOfFiles) write(name, text string) {
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
func (f *statsOfFiles) certificate(c *tls.Certificate) {
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
func (f *statsOfFiles) filter(config string) {
	f.write("ecds.yaml", `resources:
- "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: of.calls
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.`+config+`}
`)
}

func (f *statsOfFiles) bootstrap() string {
	return fmt.Sprintf(`
node: {id: stats, cluster: stats}
admin: {address: %[1]s}
static_resources:
  listeners:
  - name: in
    address: %[2]s
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}
          http_filters:
          - name: of.calls
            config_discovery:
              config_source: {path_config_source: {path: %[3]s/ecds.yaml}}
              type_urls: [type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig]
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context: &own
            tls_certificate_sds_secret_configs: [{name: "spiffe://mesh/a:b", sds_config: {path_config_source: {path: %[3]s/cert.yaml}}}]
            validation_context_sds_secret_config: {name: roots, sds_config: {path_config_source: {path: %[3]s/roots.yaml}}}
  clusters:
  - name: c
    type: STATIC
    connect_timeout: 1s
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]}
    transport_socket:
      name: tls
      typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: *own}
`, detailsAddress(f.admin), detailsAddress(f.listen), f.dir)
}

// want waits until the stats of certificates and of the filter are exactly these.
func (f *statsOfFiles) want(when string, own, roots time.Time, counts map[string]int64) {
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
	for _, program := range []string{"sidecar", "envoy"} {
		t.Run(program, func(t *testing.T) {
			if program == "envoy" && os.Getenv("OUTRIGGER_PEERS") == "" {
				t.Skip("runs real peers: set OUTRIGGER_PEERS=1")
			}
			f := &statsOfFiles{t: t, dir: t.TempDir(), admin: mesh.FreeAddress(t), listen: mesh.FreeAddress(t)}
			f.write("roots.yaml", fmt.Sprintf(`resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: roots
  validation_context: {trusted_ca: {inline_string: %s}}
`, inYAML(roots)))
			first, until := issue(time.Hour)
			f.certificate(first)
			f.filter("grpc_stats.v3.FilterConfig, stats_for_all_methods: false")
			if program == "envoy" {
				f.proxy = mesh.StartEnvoy(t, f.dir, f.bootstrap(), f.admin)
			} else {
				f.proxy = mesh.StartFile(t, f.dir, f.bootstrap(), f.admin)
			}
			f.want("at first", until, a.certificate.NotAfter, map[string]int64{"config_reload": 1, "config_fail": 0, "config_conflict": 0})

			next, later := issue(5 * time.Hour)
			f.certificate(next)
			f.filter("grpc_stats.v3.FilterConfig, stats_for_all_methods: true")
			f.want("after a rotation", later, a.certificate.NotAfter, map[string]int64{"config_reload": 2, "config_fail": 0, "config_conflict": 0})

			f.filter("router.v3.Router")
			f.want("after a filter that is refused", later, a.certificate.NotAfter, map[string]int64{"config_reload": 2, "config_fail": 1, "config_conflict": 0})
		})
	}
}
