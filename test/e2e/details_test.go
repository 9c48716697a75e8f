// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// detailsFormat is what is compared: what an operator sees of a failure.
const detailsFormat = `%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON% %CONNECTION_TERMINATION_DETAILS%\n`

// detailsCase is a listener of its own, what is sent to it, and where the line
// that it logs is meant to differ from Envoy's.
type detailsCase struct {
	name    string
	manager string // fields of the connection manager
	route   string // the virtual host's routes; by default all go to cluster
	cluster string
	send    string // by default a GET
	then    string // what the client does once the upstream has the request: fin, rst
	tcp     bool   // a TCP proxy to the cluster
	chain   string // filter_chain_match
	differs string // our line, where it is meant to be another
	why     string
}

const aGET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// TestDetailsAreEnvoys provokes each failure through Envoy and through the sidecar
// with the same bootstrap and compares the lines that they log.
func TestDetailsAreEnvoys(t *testing.T) {
	mesh.NeedPeers(t)
	up := startUpstreams(t)
	envoy, sidecar := newDetails(t, up), newDetails(t, up)
	mesh.StartEnvoy(t, envoy.dir, envoy.text, envoy.admin)
	mesh.StartFile(t, sidecar.dir, sidecar.text, sidecar.admin)
	same := 0
	for i := range detailsCases {
		c := &detailsCases[i]
		want, got := envoy.line(t, c, up), sidecar.line(t, c, up)
		switch {
		case c.differs == "" && got != want:
			t.Errorf("%s:\n envoy   %s\n sidecar %s", c.name, want, got)
		case c.differs != "" && got != c.differs:
			t.Errorf("%s:\n meant   %s (%s)\n sidecar %s", c.name, c.differs, c.why, got)
		case c.differs != "" && got == want:
			t.Errorf("%s: is listed as a difference, and is none: %s", c.name, got)
		case c.differs == "":
			same++
		}
	}
	t.Logf("%d of %d failures are logged as Envoy logs them, %d differ as meant", same, len(detailsCases), len(detailsCases)-same)
}

// details is one proxy with its listeners and logs.
type details struct {
	dir, text, admin string
	address          map[string]string // by case
}

func newDetails(t *testing.T, up *upstreams) *details {
	t.Helper()
	d := &details{dir: t.TempDir(), admin: mesh.FreeAddress(t), address: map[string]string{}}
	var b strings.Builder
	fmt.Fprintf(&b, "node: {id: details, cluster: details}\nadmin: {address: %s}\nstatic_resources:\n  listeners:\n", mesh.SocketAddress(d.admin))
	for i := range detailsCases {
		c := &detailsCases[i]
		d.address[c.name] = mesh.FreeAddress(t)
		log := fmt.Sprintf(`[{name: file, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q, log_format: {text_format_source: {inline_string: "%s"}}}}]`, d.log(c), detailsFormat)
		fmt.Fprintf(&b, "  - {name: %s, address: %s, %s filter_chains: [{%s filters: [{name: f, typed_config: %s}]}]}\n",
			c.name, mesh.SocketAddress(d.address[c.name]), listenerLog(c, log), c.chain, c.filter(log))
	}
	b.WriteString("  clusters:\n")
	for _, name := range upstreamNames {
		endpoints := ""
		if a := up.address[name]; a != "" {
			endpoints = fmt.Sprintf("{lb_endpoints: [{endpoint: {address: %s}}]}", mesh.SocketAddress(a))
		}
		limits := ""
		if name == "full" {
			limits = "circuit_breakers: {thresholds: [{max_requests: 0}]}, "
		}
		fmt.Fprintf(&b, "  - {name: %s, type: STATIC, connect_timeout: 0.2s, %sload_assignment: {cluster_name: %s, endpoints: [%s]}}\n", name, limits, name, endpoints)
	}
	d.text = b.String()
	return d
}

// listenerLog: connections that no chain is for are logged by the listener.
func listenerLog(c *detailsCase, log string) string {
	if c.chain == "" {
		return ""
	}
	return "access_log: " + log + ","
}

func (c *detailsCase) filter(log string) string {
	const types = "type.googleapis.com/envoy.extensions.filters."
	if c.tcp {
		return fmt.Sprintf(`{"@type": %snetwork.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: %s, access_log: %s, %s}`, types, c.cluster, log, c.manager)
	}
	routes := c.route
	if routes == "" {
		routes = fmt.Sprintf("{match: {prefix: /}, route: {cluster: %s}}", c.cluster)
	}
	return fmt.Sprintf(`{"@type": %snetwork.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, access_log: %s, %s
      route_config: {name: r, virtual_hosts: [{name: a, domains: [a], routes: [%s]}]},
      http_filters: [{name: router, typed_config: {"@type": %shttp.router.v3.Router}}]}`, types, log, c.manager, routes, types)
}

func (d *details) log(c *detailsCase) string { return filepath.Join(d.dir, c.name+".log") }

// line runs the case and returns the line that was logged of it.
func (d *details) line(t *testing.T, c *detailsCase, up *upstreams) string {
	t.Helper()
	conn, err := net.Dial("tcp", d.address[c.name])
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	defer conn.Close() //nolint:errcheck // what matters was logged
	send := c.send
	if send == "" {
		send = aGET
	}
	seen := up.seen(c.cluster)
	if _, err := conn.Write([]byte(send)); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	if c.then != "" {
		mesh.Await(t, 10*time.Second, c.name+": the request at its upstream", func() error {
			if up.seen(c.cluster) == seen {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		if c.then == "rst" {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	}
	line := ""
	err = mesh.Poll(10*time.Second, func() error {
		text, err := os.ReadFile(d.log(c))
		if err != nil {
			return err
		}
		var whole bool
		if line, _, whole = strings.Cut(string(text), "\n"); !whole {
			return fmt.Errorf("no line in %s", d.log(c))
		}
		return nil
	})
	if err != nil {
		return "no line"
	}
	f := strings.Split(line, " ")
	flags := strings.Split(f[1], ",") // Envoy's are in the order in which they were set
	slices.Sort(flags)
	f[1] = strings.Join(flags, ",")
	return strings.Join(f, " ")
}
