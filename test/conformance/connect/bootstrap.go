// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// bootstrap is the configuration of a sidecar, what matters as the control plane
// makes it: requests go on by the protocol that they came by, calls have the time
// that they name, and are counted.
func (l *link) bootstrap(listen string, first, last bool) string {
	downstream, upstream := "", ""
	if l.cert != "" && first {
		downstream = fmt.Sprintf(`
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: %s}, private_key: {filename: %s}}]`, l.cert, l.key)
	}
	if l.cert != "" && last {
		upstream = fmt.Sprintf(`
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context: {validation_context: {trusted_ca: {filename: %s}}}`, l.root)
	}
	web := ""
	if l.web {
		web = `
          - name: envoy.filters.http.grpc_web
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb}`
	}
	return fmt.Sprintf(`node: {id: sidecar, cluster: sidecar}
static_resources:
  listeners:
  - name: in
    address: %s
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            name: all
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{match: {prefix: /}, route: {cluster: app, timeout: 15s, max_grpc_timeout: 0s}}]
          http_filters:%s
          - name: envoy.filters.http.grpc_stats
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, stats_for_all_methods: true}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}%s
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]%s
`, socketAddress(listen), web, downstream, socketAddress(l.upstream), upstream)
}

func socketAddress(address string) string {
	host, port, _ := strings.Cut(address, ":")
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}
