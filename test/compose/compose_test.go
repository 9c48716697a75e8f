// SPDX-License-Identifier: Apache-2.0

// Package compose checks docker-compose.yml and the Dockerfile with Compose's own
// loader, and what they say against the programs that they start. It runs no
// container.
package compose

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/outrigger-mesh/outrigger/internal/programs"
)

const (
	root  = "../.."
	token = "compose-test-token-0123456789abcdef"
)

func load(t *testing.T, profiles ...string) *types.Project {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithProfiles(profiles), cli.WithEnv([]string{"OUTRIGGER_TOKEN=" + token}))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheFileLoadsWithItsServices(t *testing.T) {
	mesh := []string{"controlplane", "orders", "orders-sidecar", "payments-v1", "payments-v1-sidecar", "payments-v2", "payments-v2-sidecar", "web", "web-sidecar"}
	for _, tc := range []struct {
		name     string
		profiles []string
		want     []string
	}{
		{"without profiles", nil, mesh},
		{"with zipkin", []string{"zipkin"}, append(mesh[:len(mesh):len(mesh)], "zipkin", "zipkin-telemetry")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := load(t, tc.profiles...).ServiceNames()
			slices.Sort(got)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestEverySidecarSharesTheNetworkOfItsServiceAndWaitsForTheControlPlane(t *testing.T) {
	p := load(t)
	seen := 0
	for name, s := range p.Services {
		app, ok := strings.CutSuffix(name, "-sidecar")
		if !ok {
			continue
		}
		seen++
		if s.NetworkMode != "service:"+app {
			t.Errorf("%s: network_mode %q, want service:%s", name, s.NetworkMode, app)
		}
		if d := s.DependsOn["controlplane"]; d.Condition != types.ServiceConditionHealthy {
			t.Errorf("%s: waits for the control plane to be %q, want healthy", name, d.Condition)
		}
		if _, ok := s.DependsOn[app]; !ok {
			t.Errorf("%s: does not depend on %s, whose network it uses", name, app)
		}
	}
	if seen != 4 {
		t.Errorf("%d sidecars, want one for each of 4 instances", seen)
	}
}

func TestTheTokenIsASecretAndNowhereElse(t *testing.T) {
	p := load(t, "zipkin")
	if got := p.Secrets["outrigger_token"].Environment; got != "OUTRIGGER_TOKEN" {
		t.Errorf("the secret comes from %q", got)
	}
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), token) {
		t.Error("the file contains a token")
	}
	for name, s := range p.Services {
		uses := slices.ContainsFunc(s.Command, func(a string) bool { return strings.HasSuffix(a, "/run/secrets/outrigger_token") })
		has := slices.ContainsFunc(s.Secrets, func(x types.ServiceSecretConfig) bool { return x.Source == "outrigger_token" })
		if uses != has {
			t.Errorf("%s: its command names the token: %t, it has the secret: %t", name, uses, has)
		}
		if len(s.Environment) > 0 {
			t.Errorf("%s: has environment variables; a token does not belong there", name)
		}
	}
}

func TestPortsArePublishedOnLoopbackOnly(t *testing.T) {
	got := map[string]string{}
	for name, s := range load(t, "zipkin").Services {
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s: publishes %s on %q", name, p.Published, p.HostIP)
			}
			got[p.Published] = name
		}
	}
	for port, name := range map[string]string{"8080": "web", "15014": "controlplane", "9411": "zipkin"} {
		if got[port] != name {
			t.Errorf("port %s: published by %q, want %s", port, got[port], name)
		}
	}
}

func TestImagesAreThoseOfTheDockerfileAndNeverRoot(t *testing.T) {
	file, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]string{} // target → base
	for _, m := range regexp.MustCompile(`(?m)^FROM (\S+) AS (\S+)$`).FindAllStringSubmatch(string(file), -1) {
		targets[m[2]] = m[1]
	}
	if targets["base"] != "scratch" || !strings.Contains(string(file), "USER 65532:65532") {
		t.Errorf("the images' base is %q, and its user has to be 65532", targets["base"])
	}
	for name, s := range load(t, "zipkin").Services {
		if s.Build != nil && targets[s.Build.Target] != "base" {
			t.Errorf("%s: builds target %q, which is no image of the Dockerfile", name, s.Build.Target)
		}
		if strings.HasPrefix(s.Image, "outrigger/") && (!s.ReadOnly || !slices.Contains(s.CapDrop, "ALL")) {
			t.Errorf("%s: wants a read-only root and no capabilities", name)
		}
		if !strings.HasPrefix(s.Image, "outrigger/") && (!strings.Contains(s.Image, ":") || strings.HasSuffix(s.Image, ":latest")) {
			t.Errorf("%s: image %q has no version", name, s.Image)
		}
	}
}

func TestTheDockerfileBuildsWithTheGoOfTheModule(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	got := regexp.MustCompile(`(?m)^ARG GO_VERSION=(\d+\.\d+)\.\d+$`).FindSubmatch(file)
	if want == nil || got == nil || string(want[1]) != string(got[1]) {
		t.Errorf("go.mod wants %s, the Dockerfile has %s", want, got)
	}
}

func TestConfigsAreFilesThatTheControlPlaneAccepts(t *testing.T) {
	p := load(t, "zipkin")
	args := []string{"run", "./cmd/controlplane", "validate"}
	for _, c := range p.Configs {
		args = append(args, "-f", c.File)
	}
	if len(args) != 3+2*3 {
		t.Fatalf("got %v, want three files", args)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", args, err, out)
	}
}

// TestCommandsAreUnderstood gives every command line to its program, with a flag
// that ends it before it does anything.
func TestCommandsAreUnderstood(t *testing.T) {
	bin := t.TempDir()
	if err := programs.Build(t.Context(), bin, "cmd/sidecar", "cmd/controlplane"); err != nil {
		t.Fatal(err)
	}
	for name, s := range load(t, "zipkin").Services {
		program := strings.TrimPrefix(s.Image, "outrigger/")
		if program != "sidecar" && program != "controlplane" {
			continue
		}
		args := append(slices.Clone([]string(s.Command)), "--help")
		if out, err := exec.Command(filepath.Join(bin, program), args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %v\n%s", name, args, err, out)
		}
	}
}
