// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const sessionSubset = `
node: {id: a, cluster: a}
admin: {address: ADMIN}
static_resources:
  listeners:
  - name: in
    address: LISTEN
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c, metadata_match: {filter_metadata: {envoy.lb: {version: v2}}}}}]}
          http_filters:
          - name: session
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession
              session_state: {name: envoy.http.stateful_session.cookie, typed_config: STATE}
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: c
    type: EDS
    connect_timeout: 1s
    eds_cluster_config: {eds_config: {path_config_source: {path: DIR/endpoints.yaml}}}
    lb_subset_config: {fallback_policy: ANY_ENDPOINT, subset_selectors: [{keys: [version]}]}
`

// A session that began while its subset had no endpoint is at one of the fallback's. With
// Envoy's encoding it stays there, in Envoy and here; one of ours goes to its subset when
// that has an endpoint.
func TestASessionReturnsToItsSubset(t *testing.T) {
	const plain = `{"@type": type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState, cookie: {name: sid, path: /}}`
	const sealed = `{"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/io.outrigger.v1.EncryptedSession, value: {cookie: {name: sid, path: /}, keyFiles: [DIR/key]}}`
	for _, tt := range []struct{ name, program, state, want string }{
		{"Envoy", "envoy", plain, "v1"},
		{"Envoy's encoding", "sidecar", plain, "v1"},
		{"encrypted", "sidecar", sealed, "v2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.program == "envoy" {
				mesh.NeedPeers(t)
			}
			dir, listen := t.TempDir(), mesh.FreeAddress(t)
			f := &ofFiles{t: t, dir: dir, admin: mesh.FreeAddress(t)}
			key := make([]byte, 32)
			_, _ = rand.Read(key)
			if err := os.WriteFile(filepath.Join(dir, "key"), []byte(base64.StdEncoding.EncodeToString(key)), 0o600); err != nil {
				t.Fatal(err)
			}
			endpoint := map[string]string{}
			for _, version := range []string{"v1", "v2"} {
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, version) }))
				t.Cleanup(s.Close)
				endpoint[version] = fmt.Sprintf("{endpoint: {address: %s}, metadata: {filter_metadata: {envoy.lb: {version: %s}}}}", mesh.SocketAddress(strings.TrimPrefix(s.URL, "http://")), version)
			}
			are := func(versions ...string) {
				var list []string
				for _, v := range versions {
					list = append(list, endpoint[v])
				}
				f.write("endpoints.yaml", fmt.Sprintf(`resources:
- {"@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: c, endpoints: [{lb_endpoints: [%s]}]}
`, strings.Join(list, ", ")))
			}
			get := func(cookie string) (body, set string, err error) {
				q, err := http.NewRequest(http.MethodGet, "http://"+listen+"/", http.NoBody)
				if err != nil {
					return "", "", err
				}
				if cookie != "" {
					q.Header.Set("Cookie", cookie)
				}
				resp, err := http.DefaultClient.Do(q)
				if err != nil {
					return "", "", err
				}
				defer resp.Body.Close()
				b, err := io.ReadAll(resp.Body)
				set, _, _ = strings.Cut(resp.Header.Get("Set-Cookie"), ";")
				return string(b), set, err
			}
			are("v1")
			text := strings.NewReplacer("ADMIN", mesh.SocketAddress(f.admin), "LISTEN", mesh.SocketAddress(listen), "STATE", strings.ReplaceAll(tt.state, "DIR", dir), "DIR", dir).Replace(sessionSubset)
			f.proxy = mesh.StartProxy(t, tt.program, dir, text, f.admin)
			var cookie string
			is := func(what, body string) {
				t.Helper()
				f.proxy.Await(routeLimit, what, func() error {
					got, set, err := get("")
					if err == nil && got != body {
						err = fmt.Errorf("it is answered by %q", got)
					}
					cookie = set
					return err
				})
			}
			is("a session by the fallback", "v1")
			session := cookie
			if session == "" {
				t.Fatal("no cookie")
			}
			for range 4 {
				if got, set, err := get(session); got != "v1" || set != "" || err != nil {
					t.Errorf("without the subset: %q, told %q, %v", got, set, err)
				}
			}
			are("v1", "v2")
			is("another session of the subset", "v2")
			got, set, err := get(session)
			if got != tt.want || (set != "") != (tt.want == "v2") || err != nil {
				t.Errorf("with the subset: %q, want %q; told %q, %v", got, tt.want, set, err)
			}
			if set == "" {
				return
			}
			if got, again, err := get(set); got != tt.want || again != "" || err != nil {
				t.Errorf("after that: %q, told %q, %v", got, again, err)
			}
		})
	}
}
