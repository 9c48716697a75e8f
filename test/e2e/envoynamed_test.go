// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const (
	secretName    = "spiffe://mesh/a:b"
	namedSecret   = "\n- {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: \"spiffe://mesh/a:b\", tls_certificate: CERTIFICATE}\n"
	namedFilter   = "\n- {\"@type\": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig, name: of.calls, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, stats_for_all_methods: ALL}}\n"
	namedRuntime  = "\n- {\"@type\": type.googleapis.com/envoy.service.runtime.v3.Runtime, name: values, layer: {a.b: 7}}\n"
	namedListener = `
  listeners:
  - name: in
    address: LISTEN
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}
          http_filters:
          - name: of.calls
            config_discovery: {config_source: SOURCE(filters), type_urls: [type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig]}
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context: {tls_certificate_sds_secret_configs: [{name: "spiffe://mesh/a:b", sds_config: SOURCE(secrets)}]}
`
	namedCluster = `
  - name: c
    type: STATIC
    connect_timeout: 1s
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]}
`
)

// Where the stats of secrets, filters and runtime values are.
const (
	ofSecret  = "sds.spiffe_mesh/a_b."
	ofFilter  = "extension_config_discovery.http_filter.of.calls."
	ofRuntime = "runtime."
)

func (s *subscriptions) namedBootstrap() string {
	layers := "layered_runtime: {layers: [{name: base, static_layer: {}}, {name: over, rtds_layer: {name: values, rtds_config: SOURCE(runtime)}}]}\n"
	text := fmt.Sprintf("node: {id: stats, cluster: stats}\nadmin: {address: %s}\n%sstatic_resources:%s", mesh.SocketAddress(s.admin), layers, strings.Replace(namedListener, "LISTEN", mesh.SocketAddress(s.listen), 1))
	if s.api == "file" {
		return s.sourced(text + "  clusters:" + namedCluster)
	}
	return s.sourced(fmt.Sprintf(`%s  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}%sdynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
`, text, mesh.SocketAddress(s.server.Addr), namedCluster, s.api))
}

// TestStatsOfSubscriptionsByNameAreEnvoys: secrets (SDS), configurations of filters (ECDS)
// and runtime values (RTDS), changed, refused and lost with their source, are counted alike,
// of the sidecar and of Envoy.
func TestStatsOfSubscriptionsByNameAreEnvoys(t *testing.T) {
	a := newAuthority(t)
	issue := func() string {
		c := a.issue(t, nil, "spiffe://mesh/a")
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("{certificate_chain: {inline_string: %s}, private_key: {inline_string: %s}}",
			inYAML(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})), inYAML(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	}
	first, second := issue(), issue()
	for _, program := range []string{"sidecar", "envoy"} {
		for _, api := range []string{"file", "GRPC", "DELTA_GRPC"} {
			t.Run(program+" "+api, func(t *testing.T) {
				if program == "envoy" {
					mesh.NeedPeers(t)
				}
				s := &subscriptions{
					api: api, want: map[string]uint64{}, compared: map[string][]string{ofSecret: nil, ofFilter: {"config_reload", "config_fail", "config_conflict"}, ofRuntime: nil},
					ofFiles: newOfFiles(t),
				}
				if api != "file" {
					s.server = xdstest.StartRaw(t)
				}
				s.twice = program == "envoy" && api == "DELTA_GRPC"
				s.runNamed(program, first, second)
			})
		}
	}
}

func (s *subscriptions) runNamed(program, first, second string) {
	s.t.Helper()
	for scope, more := range s.scopes() {
		for _, name := range append(more, "update_attempt", "update_success", "update_rejected", "update_failure", "init_fetch_timeout", "version") {
			s.want[scope+name] = 0
		}
		s.want[scope+"update_attempt"], s.want[scope+"update_success"] = 1, 1
		if s.api != "file" {
			s.want[scope+"update_attempt"]++
		}
	}
	s.want[ofFilter+"config_reload"] = 1
	secret := func(certificate string) string { return strings.Replace(namedSecret, "CERTIFICATE", certificate, 1) }
	filter := func(all string) string { return strings.Replace(namedFilter, "ALL", all, 1) }
	s.want[ofSecret+"version"] = s.send("secrets", secret(first))
	s.want[ofFilter+"version"] = s.send("filters", filter("false"))
	s.want[ofRuntime+"version"] = s.send("runtime", namedRuntime)
	s.proxy = mesh.StartProxy(s.t, program, s.dir, s.namedBootstrap(), s.admin)
	s.awaits("at first", "", 0)
	s.says("at first", "v1", "v2", "v3")

	const taken = "update_success"
	s.awaits("after another certificate", ofSecret, s.send("secrets", secret(second)), "update_attempt", taken)
	s.awaits("after the same certificate", ofSecret, s.send("secrets", secret(second)), "update_attempt", taken)
	s.send("secrets", secret("{watched_directory: {path: ''}}")) // and no certificate
	s.awaits("after a secret that is refused", ofSecret, 0, "update_attempt", "update_rejected")
	s.awaits("after a good certificate", ofSecret, s.send("secrets", secret(first)), "update_attempt", taken)
	s.awaits("after another configuration of the filter", ofFilter, s.send("filters", filter("true")), "update_attempt", taken, "config_reload")
	s.send("filters", strings.Replace(filter("true"), "grpc_stats.v3.FilterConfig, stats_for_all_methods: true", "router.v3.Router", 1))
	s.want[ofFilter+"config_fail"]++
	s.refuses("filters", ofFilter)
	s.awaits("after other values", ofRuntime, s.send("runtime", strings.Replace(namedRuntime, "7", "8", 1)), "update_attempt", taken)
	s.awaits("after the same values", ofRuntime, s.send("runtime", strings.Replace(namedRuntime, "7", "8", 1)), "update_attempt", taken)
	s.says("after all of it", "v7", "v8", "v11")
	if s.api != "file" {
		s.lose()
		return
	}
	for name, scope := range map[string]string{"secrets": ofSecret, "filters": ofFilter, "runtime": ofRuntime} {
		counted := []string{"update_attempt", "update_failure"}
		if scope == ofFilter {
			counted = append(counted, "config_fail")
		}
		s.write(name+".yaml", "{ nonsense")
		s.awaits("after a file that cannot be read", scope, 0, counted...)
	}
}

// says waits until the versions are these, as texts.
func (s *subscriptions) says(when, secret, filter, runtime string) {
	s.t.Helper()
	want := fmt.Sprintf("%sversion_text: %q\n%sversion_text: %q\n%sversion_text: %q\n", ofFilter, filter, ofRuntime, runtime, ofSecret, secret)
	s.proxy.Await(routeLimit, "the versions "+when, func() error {
		got, err := mesh.Get("http://" + s.admin + "/stats?type=TextReadouts&filter=version_text")
		if err == nil && got != want {
			err = fmt.Errorf("got %s, want %s", got, want)
		}
		return err
	})
}
