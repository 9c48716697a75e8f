// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/buildinfo"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func build(path string, settings ...debug.BuildSetting) *buildinfo.BuildInfo {
	return &buildinfo.BuildInfo{Path: path, Settings: settings}
}

func TestOnlyAnUnguidedSidecarOfThisModuleIsProfiled(t *testing.T) {
	off := debug.BuildSetting{Key: "-trimpath", Value: "true"}
	for name, c := range map[string]struct {
		info *buildinfo.BuildInfo
		want string
	}{
		"ours":    {build(sidecarPackage, off), ""},
		"guided":  {build(sidecarPackage, off, debug.BuildSetting{Key: "-pgo", Value: "/src/cmd/sidecar/sidecar.pgo"}), "is itself guided by sidecar.pgo"},
		"foreign": {build("example.org/proxy"), `is built from "example.org/proxy"`},
	} {
		err := profilable(c.info)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestTheReportSaysWhichBuildItIs(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if got := sidecarBuild(own); got != "built without a profile" {
		t.Errorf("of this test: %q", got)
	}
	if got := sidecarBuild("profile_test.go"); got != "of an unknown build" {
		t.Errorf("of no program: %q", got)
	}
}

func TestOnlyFullRunsBuildGuidedSidecars(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want bool
	}{{Options{}, true}, {Options{Quick: true}, false}, {Options{Profile: "new.pgo"}, false}} {
		if got := c.o.guided(); got != c.want {
			t.Errorf("%+v: got %t", c.o, got)
		}
	}
}

func TestFlagsWithoutMeaningForAProfileAreRefused(t *testing.T) {
	c := newCommand(strings.Fields("-profile new.pgo -duration 51s -rounds 3 -only nginx -load -out here -quick"))
	c.SetOut(io.Discard)
	err := c.ExecuteContext(context.Background())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"--duration: must be at most 50s with --profile, is 51s", "--rounds: has no", "--only: has no", "--load: has no", "--out: has no", "--quick: has no"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	c = newCommand([]string{"--profile="})
	if err := c.ExecuteContext(context.Background()); err == nil || !strings.Contains(err.Error(), "--profile: names no file") {
		t.Errorf("without a name: %v", err)
	}
}

// TestTheProfileInTheTreeIsOfTheSidecar is not about its age: functions that are gone
// only guide nothing.
func TestTheProfileInTheTreeIsOfTheSidecar(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", sidecarProfile))
	if err != nil {
		t.Fatal(err)
	}
	var s stacks
	n, err := s.add(text)
	if err != nil || n < 1000 {
		t.Fatalf("%d samples, want a thousand or more; %v", n, err)
	}
	for _, part := range []string{"proxy", "codec/http1", "codec/http2", "reactor"} {
		found := false
		for _, f := range s.merged.Function {
			found = found || strings.HasPrefix(f.Name, modulePath+"/pkg/"+part+".")
		}
		if !found {
			t.Errorf("nothing of pkg/%s is in it", part)
		}
	}
}

func TestWhatIsShippedIsGuidedByTheProfile(t *testing.T) {
	for _, file := range []string{"Makefile", "Dockerfile"} {
		if text, err := os.ReadFile(filepath.Join("..", file)); err != nil || !strings.Contains(string(text), sidecarProfile) {
			t.Errorf("%s does not name %s, %v", file, sidecarProfile, err)
		}
	}
}
