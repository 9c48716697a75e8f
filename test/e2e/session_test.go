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

// Two sidecars with the same keys keep a client at its endpoint, by a cookie that says
// nothing; a third one, whose first key is newer, takes it over.
func TestAnEncryptedSessionIsKeptBySidecarsWithItsKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := func(name string) string {
		b := make([]byte, 32)
		_, _ = rand.Read(b)
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(b)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first, second := key("key-1"), key("key-2")
	var endpoints []string
	for i := range 4 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, i) }))
		t.Cleanup(s.Close)
		endpoints = append(endpoints, s.Listener.Addr().String())
	}
	start := func(keys ...string) string {
		admin, listen := mesh.FreeAddress(t), mesh.FreeAddress(t)
		mesh.StartFile(t, t.TempDir(), mesh.Bootstrap{
			Admin: admin, Listen: listen,
			Routes: mesh.AllTo("c"),
			Filters: `
          - name: session
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession
              session_state:
                name: encrypted
                typed_config:
                  "@type": type.googleapis.com/xds.type.v3.TypedStruct
                  type_url: type.googleapis.com/io.outrigger.v1.EncryptedSession
                  value: {cookie: {name: sid, path: /, ttl: 1h}, keyFiles: [` + strings.Join(keys, ", ") + `]}
`,
			Clusters: mesh.StaticCluster("c", "", endpoints...),
		}.String(), admin)
		return listen
	}
	get := func(listen, cookie string) (body, set string) {
		t.Helper()
		q, err := http.NewRequest(http.MethodGet, "http://"+listen+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if cookie != "" {
			q.Header.Set("Cookie", cookie)
		}
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		set, _, _ = strings.Cut(resp.Header.Get("Set-Cookie"), ";")
		return string(b), set
	}
	one, two, renewing := start(first), start(first), start(second, first)
	at, cookie := get(one, "")
	if raw, err := base64.RawURLEncoding.DecodeString(strings.Trim(strings.TrimPrefix(cookie, "sid="), `"`)); err != nil || strings.Contains(string(raw), "127.0.0.1") {
		t.Fatalf("the cookie %s says %q, %v", cookie, raw, err)
	}
	for range 10 {
		for _, listen := range []string{one, two} {
			if got, set := get(listen, cookie); got != at || set != "" {
				t.Errorf("endpoint %s, want %s; told %q", got, at, set)
			}
		}
	}
	got, renewed := get(renewing, cookie)
	if got != at || renewed == "" || renewed == cookie {
		t.Errorf("with another key: endpoint %s, want %s; told %q", got, at, renewed)
	}
	if _, set := get(one, renewed); set == "" {
		t.Error("a sidecar without the new key takes what it has encrypted")
	}
	if _, set := get(one, `sid="CgwxMjcuMC4wLjE6MQ=="`); set == "" {
		t.Error("an address in the clear is taken")
	}
}
