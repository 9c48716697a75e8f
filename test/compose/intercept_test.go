// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/outrigger-mesh/outrigger/internal/programs"
)

func loadIntercept(t *testing.T) *types.Project {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{filepath.Join(root, "examples/compose/intercept.yml")})
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOnlyTheInitContainerMayChangeRules(t *testing.T) {
	p := loadIntercept(t)
	for name, s := range p.Services {
		want := []string(nil)
		if name == "shop-intercept" {
			want = []string{"NET_ADMIN"}
		}
		if !slices.Equal(s.CapAdd, want) || !slices.Contains(s.CapDrop, "ALL") || s.Privileged {
			t.Errorf("%s: cap_add %v, cap_drop %v, privileged %v; want cap_add %v alone", name, s.CapAdd, s.CapDrop, s.Privileged, want)
		}
	}
	if r := p.Services["shop-intercept"].Restart; r != "no" {
		t.Errorf("the init container: restart %q, want no", r)
	}
	for _, name := range []string{"shop", "shop-sidecar"} {
		s := p.Services[name]
		if d := s.DependsOn["shop-intercept"]; d.Condition != types.ServiceConditionCompletedSuccessfully {
			t.Errorf("%s: waits for the rules to be %q, want completed", name, d.Condition)
		}
		if s.NetworkMode != p.Services["shop-intercept"].NetworkMode {
			t.Errorf("%s: in network %q, the rules are in %q", name, s.NetworkMode, p.Services["shop-intercept"].NetworkMode)
		}
	}
}

func TestTheSidecarsUserIsTheOneThatTheRulesLetPass(t *testing.T) {
	p := loadIntercept(t)
	command := p.Services["shop-intercept"].Command
	for _, name := range []string{"shop-sidecar", "shop"} {
		uid, gid, _ := strings.Cut(p.Services[name].User, ":")
		passes := slices.Contains(command, "--sidecar-uid="+uid) || slices.Contains(command, "--sidecar-gid="+gid)
		if passes != (name == "shop-sidecar") {
			t.Errorf("%s runs as %s; let pass: %v", name, p.Services[name].User, passes)
		}
	}
}

func TestTheExampleOfInterceptionIsUnderstood(t *testing.T) {
	bin := t.TempDir()
	if err := programs.Build(t.Context(), bin, "cmd/sidecar", "cmd/controlplane"); err != nil {
		t.Fatal(err)
	}
	for name, s := range loadIntercept(t).Services {
		program := strings.TrimPrefix(s.Image, "outrigger/")
		args := append(slices.Clone([]string(s.Command)), "--help")
		switch program {
		case "intercept":
			program, args = "sidecar", append([]string{"intercept", "--dry-run"}, s.Command...)
		case "sidecar", "controlplane":
		default:
			continue
		}
		if out, err := exec.Command(filepath.Join(bin, program), args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %v\n%s", name, args, err, out)
		}
	}
}
