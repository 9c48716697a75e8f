// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
)

// FuzzAGetChangesNothing sends any path and query. Answers must be whole, and no
// GET may act.
func FuzzAGetChangesNothing(f *testing.F) {
	for _, seed := range [][2]string{
		{"/stats", "filter=a.*&usedonly"}, {"/stats", "format=json&histogram_buckets=disjoint"}, {"/config_dump", "resource=dynamic_listeners&mask=name"},
		{"/config_dump", "mask=a.b,c&name_regex=x"}, {"/clusters", "format=json&filter=["}, {"/quitquitquit", ""}, {"/logging", "level=off"},
		{"/healthcheck/fail", ""}, {"/../ready", "%"}, {"", ""}, {"//", "a;b"},
	} {
		f.Add(seed[0], seed[1])
	}
	dump, err := os.ReadFile("testdata/dump.json")
	if err != nil {
		f.Fatal(err)
	}
	act := func() { panic("a GET acted") }
	s, err := New(Config{
		Address: "127.0.0.1:0", Proxy: &fixed{samples: someSamples}, State: func() State { return Live },
		Dump:  func(bool) ([]byte, error) { return dump, nil },
		Drain: func(Drain) { act() }, Quit: act, ReopenLogs: act, HealthCheck: func(bool) { act() },
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.listener.Close() })
	f.Fuzz(func(t *testing.T, path, query string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
		r.URL = &url.URL{Path: path, RawQuery: query}
		s.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 503 || w.Header().Get("Content-Type") == "" {
			t.Errorf("%q?%q: %d without a type", path, query, w.Code)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), jsonType) && path != "/clusters" && path != "/listeners" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%q?%q: no valid JSON: %s", path, query, w.Body)
		}
	})
}
