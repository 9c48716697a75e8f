// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
)

// FuzzRequests sends anything as path, query, headers and body of a write.
func FuzzRequests(f *testing.F) {
	f.Add("PUT", "/v1/objects/Service/a", "", `"1"`, []byte(svc("a", 80)))
	f.Add("PUT", "/v1/services/a/instances/1", "", "*", []byte(`{"address":"10.0.0.1","port":1}`))
	f.Add("GET", "/v1/objects", "limit=1&continue=QQ&kind=svc", "", []byte{})
	f.Add("GET", "/v1/explain", "url=http://a/&header=a:b", "", []byte{})
	f.Add("DELETE", "/v1/objects/Tap/%2e%2e%2f", "", "0", []byte("x"))
	state, err := store.Open(store.Config{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = state.Close() }) // the fuzzing has ended
	s, err := New(Config{State: state, Loopback: true, Explainer: echo{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, path, query, match string, body []byte) {
		req, err := http.NewRequest(method, "http://localhost/", bytes.NewReader(body))
		if err != nil {
			t.Skip()
		}
		req.URL.Path, req.URL.RawQuery = "/"+strings.TrimPrefix(path, "/"), query
		if watching(req) {
			t.Skip()
		}
		req.Header.Set("Content-Type", "application/yaml")
		req.Header.Set("If-Match", match)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		if w.Code >= 500 || w.Code >= 400 && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}
