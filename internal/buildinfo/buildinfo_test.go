// SPDX-License-Identifier: Apache-2.0

package buildinfo_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/buildinfo"
)

func TestABuildNamesItsModuleAndItsGo(t *testing.T) {
	i := buildinfo.Of("sidecar")
	if i.Program != "sidecar" || i.Module != "github.com/outrigger-mesh/outrigger" || i.Version == "" || i.Go != runtime.Version() {
		t.Errorf("got %+v", i)
	}
}

func TestTheTextOfABuild(t *testing.T) {
	for _, tt := range []struct {
		name string
		info buildinfo.Info
		want string
	}{
		{"of a checkout", buildinfo.Info{Program: "p", Version: "v1.2.3", Module: "m", Commit: "abc", Time: "2026-01-02T03:04:05Z", Go: "go1", Platform: "linux/amd64"},
			"p v1.2.3\nmodule   m\ncommit   abc, 2026-01-02T03:04:05Z\ngo       go1 linux/amd64\n"},
		{"with changes", buildinfo.Info{Program: "p", Version: "devel", Module: "m", Commit: "abc", Modified: true, Go: "go1", Platform: "x/y"},
			"p devel\nmodule   m\ncommit   abc, with changes\ngo       go1 x/y\n"},
		{"without one", buildinfo.Info{Program: "p", Version: "devel", Module: "m", Go: "go1", Platform: "x/y"},
			"p devel\nmodule   m\ncommit   unknown\ngo       go1 x/y\n"},
	} {
		var b strings.Builder
		if err := tt.info.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		if b.String() != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, b.String(), tt.want)
		}
	}
}
