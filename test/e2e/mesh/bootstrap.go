// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"fmt"
	"net"
	"strings"
)

// Bootstrap is a bootstrap with an admin address and one listener, "in", for the sidecar
// and for Envoy. Further lines are YAML, each indented as its field says; empty fields add
// none.
type Bootstrap struct {
	Admin, Listen string // addresses
	Service       string // the node's cluster; "web" when empty
	Top           string // further fields of the bootstrap, not indented

	// TCP is the cluster to which connections go as they are; empty: there is a connection
	// manager, with the fields up to Filters.
	TCP     string
	Routes  string // of its one virtual host, a list at fourteen spaces, such as AllTo
	Manager string // further fields, at ten spaces
	Filters string // before the router, a list at ten spaces

	Chain     string // further fields of the filter chain, at six spaces
	Listeners string // further ones, a list at two spaces, such as TCPListener
	Clusters  string // a list at two spaces, such as StaticCluster
}

// ToHTTP2 are lines of a StaticCluster that is spoken to by HTTP/2.
const ToHTTP2 = `    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}
`

// AllTo is the route of every request to a cluster; further fields of the route's action
// may be given, as YAML flow.
func AllTo(cluster string, fields ...string) string {
	return fmt.Sprintf("              - {match: {prefix: /}, route: {%s}}\n", strings.Join(append([]string{"cluster: " + cluster}, fields...), ", "))
}

// TCPListener is a listener that hands connections on to a cluster.
func TCPListener(name, address, cluster string) string {
	return fmt.Sprintf("  - name: %s\n    address: %s\n    filter_chains:\n    - filters:\n%s", name, SocketAddress(address), tcpProxy(name, cluster))
}

func tcpProxy(statPrefix, cluster string) string {
	return fmt.Sprintf(`      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: %s, cluster: %s}
`, statPrefix, cluster)
}

// StaticCluster is a cluster of these addresses; lines are further fields at four spaces,
// or none.
func StaticCluster(name, lines string, addresses ...string) string {
	endpoints := make([]string, len(addresses))
	for i, a := range addresses {
		endpoints[i] = "{endpoint: {address: " + SocketAddress(a) + "}}"
	}
	return fmt.Sprintf(`  - name: %s
    type: STATIC
    connect_timeout: 1s
%s    load_assignment: {cluster_name: %[1]s, endpoints: [{lb_endpoints: [%[3]s]}]}
`, name, ended(lines), strings.Join(endpoints, ", "))
}

// SocketAddress is the YAML of an address, HOST:PORT or unix:PATH.
func SocketAddress(address string) string {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return fmt.Sprintf("{pipe: {path: %s}}", path)
	}
	host, port, _ := net.SplitHostPort(address) // what is no address the programs refuse
	return fmt.Sprintf("{socket_address: {address: %q, port_value: %s}}", host, port)
}

// String is its text.
func (b Bootstrap) String() string {
	filter := tcpProxy("in", b.TCP)
	if b.TCP == "" {
		filter = b.manager()
	}
	clusters := ended(b.Clusters)
	if clusters != "" {
		clusters = "  clusters:\n" + clusters
	}
	return fmt.Sprintf(`node: {id: static, cluster: %s}
admin: {address: %s}
%sstatic_resources:
  listeners:
  - name: in
    address: %s
    filter_chains:
    - filters:
%s%s%s%s`, cmp.Or(b.Service, "web"), SocketAddress(b.Admin), ended(b.Top), SocketAddress(b.Listen), filter, ended(b.Chain), ended(b.Listeners), clusters)
}

func (b Bootstrap) manager() string {
	return fmt.Sprintf(`      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
%s          http_filters:
%s          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: all
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
%s`, ended(b.Manager), ended(b.Filters), ended(b.Routes))
}

// ended is the lines with an end of line after the last one, and none before the first.
func ended(lines string) string {
	if lines = strings.Trim(lines, "\n"); lines != "" {
		lines += "\n"
	}
	return lines
}
