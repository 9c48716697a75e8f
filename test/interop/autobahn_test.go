// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// autobahnCases leaves the long ones of limits and compression to
// OUTRIGGER_AUTOBAHN=all: a proxy does not see what is in a frame.
var autobahnCases = []string{"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.*", "9.2.*", "9.5.*", "9.7.1", "9.8.6", "10.*", "12.1.3", "12.2.13", "13.3.3", "13.7.9"}

// outcome is how a case ended: what was exchanged, and how the connection closed.
type outcome struct {
	Behavior      string `json:"behavior"`
	BehaviorClose string `json:"behaviorClose"`
}

// badness orders outcomes as Autobahn's report does: by colour.
var badness = map[string]int{"OK": 0, "INFORMATIONAL": 0, "NON-STRICT": 1, "UNIMPLEMENTED": 2, "UNCLEAN": 3, "WRONG CODE": 3, "FAILED BY CLIENT": 3, "FAILED": 4}

func (o outcome) worseThan(other outcome) bool {
	return badness[o.Behavior] > badness[other.Behavior] || badness[o.BehaviorClose] > badness[other.BehaviorClose]
}

// TestNoAutobahnCaseBehavesWorseThanDirect runs the cases against a server directly,
// through one sidecar, and through two that speak HTTP/2 to each other.
func TestNoAutobahnCaseBehavesWorseThanDirect(t *testing.T) {
	mesh.NeedPeers(t)
	a := newAutobahn(t)
	server := a.echo()

	one := newConfig(t)
	throughOne := one.listener("", "", plain(one, server, ""))
	one.sidecar()

	far, near := newConfig(t), newConfig(t)
	between := far.listener("", "", plain(far, server, ""))
	throughTwo := near.listener("", "", plain(near, between, http2))
	far.sidecar()
	near.sidecar()

	cases := autobahnCases
	if os.Getenv("OUTRIGGER_AUTOBAHN") == "all" {
		cases = []string{"*"}
	}
	direct := a.run(server, cases)
	for _, route := range []struct{ name, address string }{{"one sidecar", throughOne}, {"two sidecars over HTTP/2", throughTwo}} {
		got := a.run(route.address, cases)
		if len(got) != len(direct) {
			t.Errorf("%s: %d cases, directly %d", route.name, len(got), len(direct))
		}
		if worse := a.worse(route.address, server, got, direct); len(worse) > 0 {
			t.Errorf("%s: worse than direct: %s", route.name, strings.Join(worse, "; "))
		}
		t.Logf("%d cases through %s, none worse than direct (%s; direct: %s)", len(got), route.name, tally(got), tally(direct))
	}
}

// tally counts outcomes.
func tally(list map[string]outcome) string {
	n := map[string]int{}
	for _, o := range list {
		n[o.Behavior]++
		if o.BehaviorClose != "OK" && o.BehaviorClose != "INFORMATIONAL" {
			n["close "+o.BehaviorClose]++
		}
	}
	var parts []string
	for what, count := range n {
		parts = append(parts, fmt.Sprintf("%d %s", count, what))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}

type autobahn struct {
	t    *testing.T
	path string
	runs int
}

func newAutobahn(t *testing.T) *autobahn {
	t.Helper()
	const script = "../peers/autobahn"
	if out, err := exec.Command(script, "install").CombinedOutput(); err != nil {
		t.Fatalf("install autobahn: %v: %s", err, out)
	}
	path, err := exec.Command(script, "path").Output()
	if err != nil {
		t.Fatalf("path of autobahn: %v", err)
	}
	return &autobahn{t: t, path: strings.TrimSpace(string(path))}
}

// echo starts the server.
func (a *autobahn) echo() string {
	a.t.Helper()
	address := mesh.FreeAddress(a.t)
	p := mesh.Start(a.t, "echo", filepath.Join(a.t.TempDir(), "echo.log"), []string{"PYTHONPATH=" + a.path}, "python3", filepath.Join(a.path, "echo.py"), address)
	p.Await(time.Minute, "the server", func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	return address
}

// run runs cases against an address.
func (a *autobahn) run(address string, cases []string) map[string]outcome {
	a.t.Helper()
	a.runs++
	dir := filepath.Join(a.t.TempDir(), fmt.Sprint(a.runs))
	argv := []string{"-c", "from kosoku._cli import main; main()", address, "-o", dir}
	for _, c := range cases {
		argv = append(argv, "-i", c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", argv...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+a.path)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // 1: a case failed
		a.t.Fatalf("run the cases: %v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		a.t.Fatalf("%v: %s", err, out)
	}
	var agents map[string]map[string]outcome
	if err := json.Unmarshal(text, &agents); err != nil {
		a.t.Fatal(err)
	}
	all := map[string]outcome{}
	for _, list := range agents {
		for id, o := range list {
			all[id] = o
		}
	}
	if len(all) == 0 {
		a.t.Fatalf("no case was run: %s", out)
	}
	return all
}

// worse lists what went worse than directly. Cases in which the client waits for a
// second depend on how busy the machine is: those are run again, each by itself.
func (a *autobahn) worse(address, server string, got, direct map[string]outcome) (list []string) {
	a.t.Helper()
	for id, o := range got {
		d := direct[id]
		if _, known := badness[o.Behavior]; !known {
			a.t.Errorf("case %s: unknown outcome %q", id, o.Behavior)
		}
		for range 3 {
			if !o.worseThan(d) {
				break
			}
			d, o = a.run(server, []string{id})[id], a.run(address, []string{id})[id]
			got[id] = o
		}
		if o.worseThan(d) {
			list = append(list, fmt.Sprintf("%s: %s/%s instead of %s/%s", id, o.Behavior, o.BehaviorClose, d.Behavior, d.BehaviorClose))
		}
	}
	sort.Strings(list)
	return list
}
