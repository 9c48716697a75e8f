// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const types = "type.googleapis.com/envoy.extensions."

// config is a bootstrap file that Envoy and the sidecar both read.
type config struct {
	t                   testing.TB
	dir, admin          string
	listeners, clusters strings.Builder
}

func newConfig(t testing.TB) *config {
	t.Helper()
	c := &config{t: t, dir: t.TempDir()}
	c.admin = mesh.FreeAddress(t)
	return c
}

// listener adds one, and returns where it listens. The transport is the YAML of a
// transport_socket, filters those of listener and chain.
func (c *config) listener(transport, listenerFilters, filter string) string {
	a := mesh.FreeAddress(c.t)
	if transport != "" {
		transport = "transport_socket: " + transport + ", "
	}
	fmt.Fprintf(&c.listeners, "  - {name: %q, address: %s, listener_filters: [%s], filter_chains: [{%sfilters: [{name: f, typed_config: %s}]}]}\n",
		a, mesh.SocketAddress(a), listenerFilters, transport, filter)
	return a
}

// cluster adds one with further fields, and returns its name.
func (c *config) cluster(address, fields string) string {
	name := fmt.Sprintf("c%d", c.clusters.Len()) // where its text begins: no two have the same
	fmt.Fprintf(&c.clusters, "  - {name: %s, type: STATIC, connect_timeout: 5s, %s load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}}\n",
		name, fields, name, mesh.SocketAddress(address))
	return name
}

// http is a connection manager that sends everything to a cluster, WebSockets
// included, and CONNECT to another, where it ends if terminates.
func http(cluster, connects string, terminates bool) string {
	end := ""
	if terminates {
		end = ", connect_config: {}"
	}
	return fmt.Sprintf(`{"@type": %sfilters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, codec_type: AUTO, use_remote_address: true,
      http2_protocol_options: {allow_connect: true}, upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}],
      route_config: {name: r, virtual_hosts: [{name: a, domains: ["*"], routes: [
        {match: {connect_matcher: {}}, route: {cluster: %s, timeout: 30s, upgrade_configs: [{upgrade_type: CONNECT%s}]}},
        {match: {prefix: /}, route: {cluster: %s, timeout: 30s}}]}]},
      http_filters: [{name: router, typed_config: {"@type": %sfilters.http.router.v3.Router}}]}`, types, connects, end, cluster, types)
}

// tcp is a TCP proxy to a cluster.
func tcp(cluster string) string {
	return fmt.Sprintf(`{"@type": %sfilters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: %s}`, types, cluster)
}

// http2 are the fields of a cluster that is spoken to by HTTP/2.
const http2 = `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": ` + types + `upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {allow_connect: true}}}},`

func (c *config) text() string {
	return fmt.Sprintf("node: {id: interop, cluster: interop}\nadmin: {address: %s}\nstatic_resources:\n  listeners:\n%s  clusters:\n%s", mesh.SocketAddress(c.admin), c.listeners.String(), c.clusters.String())
}

// sidecar starts ours with the configuration, envoy the other.
func (c *config) sidecar() *mesh.Sidecar { return mesh.StartFile(c.t, c.dir, c.text(), c.admin) }

func (c *config) envoy() *mesh.Process { return mesh.StartEnvoy(c.t, c.dir, c.text(), c.admin) }

// plain is http to an address, CONNECT too.
func plain(c *config, address, fields string) string {
	name := c.cluster(address, fields)
	return http(name, name, false)
}
