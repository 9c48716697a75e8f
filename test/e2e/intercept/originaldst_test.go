// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const originalBootstrap = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  listeners:
  - name: out
    address: {socket_address: {address: 10.77.0.1, port_value: 15001}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: r
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{match: {prefix: /}, route: {cluster: original}}]
  clusters:
  - name: original
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    original_dst_lb_config: {use_http_header: true, http_header_name: x-to}
`

func TestOriginalDestinationClustersGoWhereTheHeaderSaysAndNeverToForbiddenPlaces(t *testing.T) {
	w := newWorld(t)
	w.serveHTTP(t, w.peer, "peer", ":80")
	w.serveHTTP(t, w.app, "application", "127.0.0.1:8080")
	path := filepath.Join(folder(t, theSidecar), "bootstrap.yaml")
	if err := os.WriteFile(path, []byte(originalBootstrap), 0o644); err != nil {
		t.Fatal(err)
	}
	w.start(t, w.app, theSidecar, sidecarBinary, "-c", path, "--concurrency", "1", "--drain-time-s", "1")
	to := func(destination string) string {
		return w.get(t, w.app, application, "10.77.0.1:15001", "x\r\nx-to: "+destination)
	}
	await(t, "a header that names the peer", "200 peer for x", func() string { return to(peerV4 + ":80") })
	if got := to("[" + peerV6 + "]:80"); got != "200 peer for x" {
		t.Errorf("IPv6: %q", got)
	}
	for _, forbidden := range []string{"127.0.0.1:15000", "127.0.0.1:8080", "[::1]:15000", "169.254.169.254:80", "0.0.0.0:15000", "10.77.0.1:15001", "no address"} {
		if got := to(forbidden); !strings.HasPrefix(got, "503 no healthy upstream") {
			t.Errorf("%s: %q, want 503", forbidden, got)
		}
	}
}

const passingBootstrap = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  listeners:
  - name: out
    address: {socket_address: {address: 127.0.0.1, port_value: 15001}}
    additional_addresses:
    - {address: {socket_address: {address: "::1", port_value: 15001}}}
    - {address: {socket_address: {address: 10.77.0.1, port_value: 15001}}}
    listener_filters:
    - {name: original_dst, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
    filter_chains:
    - filters:
      - {name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: out, cluster: original}}
  clusters:
  - {name: original, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 5s}
`

// Robustness row D23. What is passed on to where it was meant to go comes there by both
// families; what would lead back to the sidecar, to this host or to a metadata service
// ends; what is excluded never meets the sidecar.
func TestWhatIsPassedOnNeverComesToTheSidecarItselfToLoopbackOrToMetadata(t *testing.T) {
	eachTool(t, func(t *testing.T, w *world, tool string) {
		w.serveHTTP(t, w.peer, "peer", ":80")
		w.serveHTTP(t, w.peer, "peer at 81", ":81")
		w.serveHTTP(t, w.app, "application", ":8080")
		run(t, "ip", "-n", w.peer, "addr", "add", "169.254.169.254/32", "dev", "eth0") // it would be reached
		path := filepath.Join(folder(t, theSidecar), "bootstrap.yaml")
		if err := os.WriteFile(path, []byte(passingBootstrap), 0o644); err != nil {
			t.Fatal(err)
		}
		w.start(t, w.app, theSidecar, sidecarBinary, "-c", path, "--concurrency", "1", "--drain-time-s", "1")
		w.intercept(t, "--tool", tool, "--exclude-outbound-ports", "81", "--exclude-uids", "3000")
		await(t, "IPv4", "200 peer for x", func() string { return w.get(t, w.app, application, peerV4+":80", "x") })
		if got := w.get(t, w.app, application, "["+peerV6+"]:80", "x"); got != "200 peer for x" {
			t.Errorf("IPv6: %q", got)
		}
		for name, to := range map[string]string{
			"the sidecar's own port":               "127.0.0.1:15001",
			"the sidecar's own port by IPv6":       "[::1]:15001",
			"the sidecar's own port, this address": appV4 + ":15001",
			"a metadata service":                   "169.254.169.254:80",
			"a link-local address":                 "169.254.1.1:80",
			"another sidecar port elsewhere":       peerV4 + ":15001",
		} {
			if got := w.get(t, w.app, application, to, "x"); strings.HasPrefix(got, "200") {
				t.Errorf("%s: %q, want a connection that ends", name, got)
			}
		}
		for _, c := range []struct {
			name, to, want string
			as             who
		}{
			{"an excluded port", peerV4 + ":81", "200 peer at 81 for x", application},
			{"an excluded user", peerV4 + ":80", "200 peer for x", who{3000, 1}},
			{"the application to itself", "127.0.0.1:8080", "200 application for x", application},
		} {
			if got := w.get(t, w.app, c.as, c.to, "x"); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
		// Two that were passed on and six that ended, and IPv4's tries before the sidecar
		// was there, which did not come to it.
		if n := w.stat(t, "outrigger.tcp.downstream_cx_total"); n != 8 {
			t.Errorf("the sidecar took %d connections, want 8: no more came back to it", n)
		}
	})
}

// stat is a number of the admin port of the application's sidecar.
func (w *world) stat(t *testing.T, name string) int {
	t.Helper()
	c, err := w.dial(t, w.app, application, "127.0.0.1:15000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /stats HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	all := string(text)
	for line := range strings.Lines(all) {
		if n, ok := strings.CutPrefix(line, name+": "); ok {
			v, err := strconv.Atoi(strings.TrimSpace(n))
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no number %s in %.300q", name, all)
	return 0
}

const routingBootstrap = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  listeners:
  - name: out
    traffic_direction: OUTBOUND
    address: {socket_address: {address: 127.0.0.1, port_value: 15001}}
    additional_addresses:
    - {address: {socket_address: {address: "::1", port_value: 15001}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: r
            virtual_hosts:
            - {name: "4", domains: ["v4"], routes: [{match: {prefix: /}, route: {cluster: "4"}}]}
            - {name: "6", domains: ["v6"], routes: [{match: {prefix: /}, route: {cluster: "6"}}]}
  clusters:
  - {name: "4", type: STATIC, load_assignment: {cluster_name: "4", endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.77.0.2, port_value: 80}}}}]}]}}
  - {name: "6", type: STATIC, load_assignment: {cluster_name: "6", endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "fd77::2", port_value: 80}}}}]}]}}
`

// A sidecar whose user the rules do not know has all that it dials led back to it. It
// notices, whether it goes by the destination or by the Host of a request.
func TestASidecarThatTheRulesInterceptRefusesItsOwnConnections(t *testing.T) {
	for name, bootstrap := range map[string]string{"by destination": passingBootstrap, "by Host": routingBootstrap} {
		t.Run(name, func(t *testing.T) {
			eachTool(t, func(t *testing.T, w *world, tool string) {
				w.serveHTTP(t, w.peer, "peer", ":80")
				path := filepath.Join(folder(t, application), "bootstrap.yaml")
				if err := os.WriteFile(path, []byte(bootstrap), 0o644); err != nil {
					t.Fatal(err)
				}
				w.start(t, w.app, application, sidecarBinary, "-c", path, "--concurrency", "2", "--drain-time-s", "1")
				await(t, "the sidecar", "listens", func() string {
					c, err := w.dial(t, w.app, application, "127.0.0.1:15001")
					if err != nil {
						return err.Error()
					}
					c.Close()
					return "listens"
				})
				w.intercept(t, "--tool", tool)
				for _, c := range []struct{ to, host string }{{peerV4 + ":80", "v4"}, {"[" + peerV6 + "]:80", "v6"}} {
					before := w.stat(t, "outrigger.loops_refused_total")
					if got := w.get(t, w.app, application, c.to, c.host); strings.HasPrefix(got, "200") {
						t.Errorf("%s: %q, though there is no way there", c.host, got)
					}
					// The connection, and one more try. A worker may take one before the other has
					// noted it: that one is noticed at the next turn.
					if n := w.stat(t, "outrigger.loops_refused_total") - before; n < 1 || n > 10 {
						t.Errorf("%s: %d were refused", c.host, n)
					}
				}
			})
		})
	}
}
