// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// Profiles show what a process does, so they are off; with the flag they are of use.
func TestProfilesAreForThoseWhoAskForThem(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	for _, c := range []struct {
		id, flag string
		status   int
		body     string
	}{
		{"web-1", "", http.StatusForbidden, "profiling is off (--admin-profiling)"},
		{"web-2", "--admin-profiling", http.StatusOK, "\x1f\x8b"}, // gzip, as pprof reads it
	} {
		s := m.Caller(c.id, strings.Fields(c.flag)...)
		if _, err := mesh.Do(http.MethodPost, "http://"+s.Admin+"/cpuprofiler?enable=y", "", ""); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/cpuprofiler?enable=n", "/heapprofiler?enable=y"} {
			a, err := mesh.Do(http.MethodPost, "http://"+s.Admin+path, "", "")
			if err != nil || a.Status != c.status || !strings.HasPrefix(a.Body, c.body) {
				t.Errorf("%s with %q: %d %v %.60q", path, c.flag, a.Status, err, a.Body)
			}
		}
	}
}
