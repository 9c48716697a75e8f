// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/freeport/freeporttest"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

// upstream is a server that answers with its name.
func upstream(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func socket(address string) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

func staticCluster(name, address string) string {
	endpoints := ""
	if address != "" {
		endpoints = "{lb_endpoints: [{endpoint: {address: " + socket(address) + "}}]}"
	}
	return fmt.Sprintf("  - {name: %s, type: STATIC, load_assignment: {cluster_name: %s, endpoints: [%s]}}\n", name, name, endpoints)
}

// explainBootstrap has routes of every kind, to two servers and to nobody.
func explainBootstrap(admin, listener, one, two string) string {
	return `node: {id: n, cluster: c}
admin: {address: ` + socket(admin) + `}
static_resources:
  listeners:
  - name: out
    traffic_direction: OUTBOUND
    address: ` + socket(listener) + `
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          normalize_path: true
          route_config:
            name: local
            virtual_hosts:
            - name: shop
              domains: [shop, "*.shop"]
              routes:
              - {name: beta, match: {prefix: /v1, headers: [{name: x-user, string_match: {exact: "7"}}]}, route: {cluster: two}}
              - {name: query, match: {path: /q, query_parameters: [{name: a, string_match: {prefix: b}}]}, route: {cluster: two}}
              - {name: moved, match: {path: /old}, redirect: {path_redirect: /new}}
              - {name: fixed, match: {path: /fixed}, direct_response: {status: 418}}
              - {name: split, match: {path: /split}, route: {weighted_clusters: {clusters: [{name: one, weight: 3}, {name: nobody, weight: 1}]}}}
              - {name: lost, match: {path: /lost}, route: {cluster: nobody}}
              - {name: rest, match: {safe_regex: {regex: "/v[0-9]+.*"}}, route: {cluster: one}}
          http_filters:
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
` + staticCluster("one", one) + staticCluster("two", two) + staticCluster("nobody", "")
}

// startReal starts the sidecar of this program with its own data plane.
func startReal(t *testing.T, bootstrap string) *sidecar {
	t.Helper()
	t.Setenv(withDataPlane, "1")
	file := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startSidecar(t, "-c", file, "--concurrency", "1", "--drain-time-s", "1")
	eventually(t, "it is ready", func() bool { return strings.Contains(s.stderr.String(), "msg=ready") })
	return s
}

// command runs a command line of this program to its end.
func command(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asSidecar+"="+t.TempDir())
	data, err := c.CombinedOutput()
	if err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return string(data), c.ProcessState.ExitCode()
}

func TestExplainSaysWhereARealSidecarSendsARequest(t *testing.T) {
	admin, listener := freeporttest.Address(t), freeporttest.Address(t)
	startReal(t, explainBootstrap(admin, listener, upstream(t, "one"), upstream(t, "two")))
	for _, tt := range []struct {
		name, url, header string
		answer            string // status and body that the request itself gets
		outcome           string
		step              string
	}{
		{"a header that matches", "http://shop/v1/x", "x-user: 7", "200 two", "two, the only endpoint", `route beta taken: path prefix /v1, x-user "7"`},
		{"a header that is absent", "http://shop/v1/x", "", "200 one", "one, the only endpoint", `route beta skipped: wants x-user "7", it is absent`},
		{"another value", "http://shop/v1", "x-user: 8", "200 one", "one, the only endpoint", `route beta skipped: wants x-user "7", it is "8"`},
		{"a wildcard and capitals", "http://A.Shop/v2", "", "200 one", "one, the only endpoint", "virtual host shop the most specific of local for a.shop"},
		{"a parameter", "http://shop/q?a=bc", "", "200 two", "two, the only endpoint", `route query taken: path /q, parameter a beginning with "b"`},
		{"no route", "http://shop/q?a=c", "", "404 ", "404 NR: no route of the virtual host matches", `route query skipped: wants parameter a beginning with "b", it is "c"`},
		{"no virtual host", "http://nobody/", "", "404 ", `404 NR: no virtual host of local has the host name "nobody"`, "listener out " + listener},
		{"a redirect", "http://shop/old", "", "301 ", "301 from the sidecar itself: a redirect", "route moved taken: path /old"},
		{"an answer of its own", "http://shop/fixed", "", "418 ", "418 from the sidecar itself", "route fixed taken: path /fixed"},
		{"a cluster without endpoints", "http://shop/lost", "", "503 ", "503: nobody has no endpoint", "endpoint  no endpoints in nobody: 503 UH"},
		{"a path that is normalised", "http://shop/a/../v1/x", "x-user: 7", "200 two", "two, the only endpoint", "path /v1/x normalised from /a/../v1/x"},
		{"a split", "http://shop/split", "", "", "one, nobody, the only endpoint; 25% get 503, because nobody has none", "cluster nobody 25% of the requests"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"explain", "get", tt.url, "--admin", admin, "-o", "json"}
			if tt.header != "" {
				args = append(args, "-H", tt.header)
			}
			out, code := command(t, args...)
			var x proxy.Explanation
			if err := json.Unmarshal([]byte(out), &x); err != nil || code != exitOK {
				t.Fatalf("exit %d: %s", code, out)
			}
			var steps []string
			for _, s := range append(x.Steps, x.Endpoints...) {
				steps = append(steps, s.Stage+" "+s.Name+" "+s.Reason)
			}
			if all := strings.Join(steps, "\n"); x.Outcome != tt.outcome || !strings.Contains(all, tt.step) {
				t.Errorf("got %q by\n%s\nwant %q by %q", x.Outcome, all, tt.outcome, tt.step)
			}
			if tt.answer == "" {
				return
			}
			if got := send(t, listener, tt.url, tt.header); !strings.HasPrefix(got, tt.answer) {
				t.Errorf("the request itself got %q, want %q", got, tt.answer)
			}
		})
	}
}

// send makes the request that was explained.
func send(t *testing.T, listener, url, header string) string {
	t.Helper()
	rest := strings.TrimPrefix(url, "http://")
	host, path, _ := strings.Cut(rest, "/")
	conn, err := net.Dial("tcp", listener)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if header != "" {
		header += "\r\n"
	}
	fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n", path, host, header)
	data, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(data), "\r\n\r\n")
	status := strings.Fields(head)
	if len(status) < 2 {
		t.Fatalf("got %q", data)
	}
	for _, name := range []string{"one", "two"} {
		if strings.Contains(body, name) {
			body = name
		}
	}
	return status[1] + " " + body
}

func TestExplainNamesWhatIsWrong(t *testing.T) {
	admin, listener := freeporttest.Address(t), freeporttest.Address(t)
	startReal(t, explainBootstrap(admin, listener, upstream(t, "one"), upstream(t, "two")))
	other := upstream(t, "another program")
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a table for people", []string{"GET", "http://shop/v1"}, exitOK, "one, the only endpoint\n"},
		{"no argument", nil, exitUsage, "want METHOD URL, such as sidecar explain GET http://payments/v1/x"},
		{"no method", []string{"http://shop/"}, exitUsage, "the method is missing: sidecar explain GET http://shop/"},
		{"the wrong way round", []string{"http://shop/", "post"}, exitUsage, "the method comes first: sidecar explain POST http://shop/"},
		{"a bare name", []string{"GET", "shop"}, exitUsage, `want an http:// URL such as http://payments/v1/x, or tcp://db:5432, got "shop"`},
		{"a header without a colon", []string{"GET", "http://shop/", "-H", "x"}, exitUsage, "header: want 'name: value', got \"x\""},
		{"another output", []string{"GET", "http://shop/", "-o", "yaml"}, exitUsage, "-o: want json"},
		{"a listener that there is not", []string{"GET", "http://shop/", "--listener", "in"}, exitConfiguration, `no such listener: "in"; there are: out`},
		{"a listener by address", []string{"GET", "http://shop/v1", "--listener", listener}, exitOK, "asked for"},
		{"the traffic's port", []string{"GET", "http://shop/", "--admin", listener}, exitUnreachable, "is not a sidecar's admin port (status 404)"},
		{"another program's port", []string{"GET", "http://shop/", "--admin", other}, exitUnreachable, "is not a sidecar's admin port"},
		{"nobody there", []string{"GET", "http://shop/", "--admin", freeporttest.Address(t)}, exitUnreachable, "no sidecar answers at --admin"},
		{"no port", []string{"GET", "http://shop/", "--admin", "localhost"}, exitConfiguration, "--admin: want HOST:PORT or unix:PATH"},
	} {
		args := append([]string{"explain"}, tt.args...)
		if !strings.Contains(strings.Join(args, " "), "--admin") {
			args = append(args, "--admin", admin)
		}
		if out, code := command(t, args...); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit %d, want %d with %q\n%s", tt.name, code, tt.code, tt.want, out)
		}
	}
}
