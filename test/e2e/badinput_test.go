// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// badObjects are refused by the REST API and the command line with the place
// and the field of the fault.
var badObjects = []struct {
	name, kind, yaml string
	line             int
	field            string // path; empty where the text cannot be read at all
}{
	{"broken YAML", "Service", "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: bad\nspec: {}\n", 4, ""},
	{"a tab as indentation", "Service", "apiVersion: outrigger.io/v1\nkind: Service\nmetadata:\n\tname: bad\n", 4, ""},
	{"an alias of itself", "Service", "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: bad}\nspec: &a {ports: *a}\n", 4, ""},
	{"an alias bomb", "Service", bomb(), 6, ""},
	{"a zero byte", "Service", "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: \"b\x00d\"}\n", 3, ""},
	{"an unknown field", "Service", "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: bad}\nspec:\n  prots: []\n", 5, "spec.prots"},
	{"a port that is none", "Service", "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: bad}\nspec:\n  ports:\n  - port: 70000\n", 6, "spec.ports[0].port"},
	{"a bad regular expression", "HTTPRoute", "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: bad}\nspec:\n  parentRefs: [{kind: Service, name: a}]\n  rules:\n  - matches:\n    - path: {type: RegularExpression, value: '/a(b'}\n    backendRefs: [{name: a}]\n", 8, "spec.rules[0].matches[0].path.value"},
	{"a number as a duration", "TrafficPolicy", "apiVersion: outrigger.io/v1\nkind: TrafficPolicy\nmetadata: {name: bad}\nspec:\n  targetRef: {kind: Service, name: a}\n  timeouts: {connect: 10}\n", 6, "spec.timeouts.connect"},
	{"what is not supported yet", "Telemetry", "apiVersion: outrigger.io/v1\nkind: Telemetry\nmetadata: {name: bad}\nspec:\n  metrics: {}\n", 5, "spec.metrics"},
}

// bomb would be a billion values if its aliases were followed.
func bomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: bad}\nspec:\n  a: &a0 [x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "  b%d: &a%d [%s]\n", i, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	return b.String()
}

func TestBadObjectsAreRefusedWithTheirPlace(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	cp := m.ControlPlane
	cp.PutYAML("Service", "good", "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: good}\n")
	dir := t.TempDir()
	for _, b := range badObjects {
		t.Run(b.name, func(t *testing.T) {
			a, err := mesh.Do(http.MethodPut, cp.URL("/v1/objects/"+b.kind+"/bad"), "application/yaml", b.yaml)
			if err != nil {
				t.Fatal(err)
			}
			var p struct {
				Title  string
				Errors []struct {
					Line          int
					Field, Reason string
				}
			}
			if err := json.Unmarshal([]byte(a.Body), &p); err != nil || a.Header.Get("Content-Type") != "application/problem+json" || a.Status/100 != 4 {
				t.Fatalf("answered %d %v: %s", a.Status, err, a.Body)
			}
			found := false
			for _, e := range p.Errors {
				found = found || e.Field == b.field && e.Reason != ""
			}
			if p.Title == "" || !found {
				t.Errorf("no error for field %q: %s", b.field, a.Body)
			}
			file := filepath.Join(dir, strings.ReplaceAll(b.name, " ", "-")+".yaml")
			if err := os.WriteFile(file, []byte(b.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			out := cp.CLI("", "apply", "-f", file)
			if out.Code == 0 || !strings.Contains(out.Output, fmt.Sprintf("%s:%d:", file, b.line)) || !strings.Contains(out.Output, b.field) {
				t.Errorf("apply: exit code %d, want %s:%d: and %q in\n%s", out.Code, file, b.line, b.field, out.Output)
			}
		})
	}
	// Bodies that are not even that.
	for name, c := range map[string]struct {
		path, kind, body string
		want             int
	}{
		"binary": {"/v1/objects/Service/x", "application/yaml", "\x7fELF\x02\x01\x01\x00\xff\xfe", 400},
		// A little more than the limit, so that the answer is not lost in a reset.
		"a body too large":      {"/v1/objects/Service/x", "application/yaml", strings.Repeat("# padding\n", (1<<20+1<<16)/10), 413},
		"an empty body":         {"/v1/objects/Service/x", "application/yaml", "", 400},
		"another name":          {"/v1/objects/Service/x", "application/yaml", "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: y}\n", 422},
		"an unknown kind":       {"/v1/objects/Pod/x", "application/yaml", "{}", 404},
		"an instance of port 0": {"/v1/services/a/instances/b", "application/json", `{"address":"127.0.0.1","port":0}`, 422},
		"an instance of a name": {"/v1/services/a/instances/b", "application/json", `{"address":"localhost","port":1}`, 422},
		"half an instance":      {"/v1/services/a/instances/b", "application/json", `{"address":"127.0.0.1","po`, 400},
		"deep nesting":          {"/v1/services/a/instances/b", "application/json", strings.Repeat("[", 200000), 400},
	} {
		a, err := mesh.Do(http.MethodPut, cp.URL(c.path), c.kind, c.body)
		if err != nil || a.Status != c.want || !strings.Contains(a.Header.Get("Content-Type"), "problem+json") {
			t.Errorf("%s: answered %d %v, want %d: %.300s", name, a.Status, err, c.want, a.Body)
		}
	}
	if _, err := mesh.Get(cp.URL("/v1/objects/Service/good")); err != nil {
		t.Errorf("what was good: %v", err)
	}
	if a, err := mesh.Do(http.MethodGet, cp.URL("/v1/objects/Service/bad"), "", ""); err != nil || a.Status != http.StatusNotFound {
		t.Errorf("what was bad: %d %v", a.Status, err)
	}
}

// TestABadFileOfTheFolderLeavesTheRestInService breaks one of two files of the
// watched folder while traffic flows by both.
func TestABadFileOfTheFolderLeavesTheRestInService(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("orders.yaml", route(1))
	write("policy.yaml", policy(0))
	m := mesh.New(t, "--config", folder)
	m.Instance(orders, "orders-1")
	web := m.Caller("web-1")
	round := func(want string) {
		t.Helper()
		mesh.Await(t, 15*time.Second, "round "+want, func() error {
			a, err := mesh.Call(web.Outbound, orders, "/")
			if err == nil && a.Header.Get("X-Round") != want {
				err = fmt.Errorf("%d %q", a.Status, a.Header.Get("X-Round"))
			}
			return err
		})
	}
	round("1")
	write("policy.yaml", "apiVersion: outrigger.io/v1\nkind: TrafficPolicy\nmetadata: {name: orders}\nspec:\n  targetRef: {kind: Service, name: orders}\n  limits: {connections: -1}\n")
	mesh.Await(t, 15*time.Second, "an event about the bad file", func() error {
		body, err := mesh.Get(m.ControlPlane.URL("/v1/events?limit=500"))
		if err == nil && !(strings.Contains(body, "policy.yaml") && strings.Contains(body, "spec.limits.connections")) {
			err = fmt.Errorf("none among %.2000s", body)
		}
		return err
	})
	round("1")
	if body, err := mesh.Get(m.ControlPlane.URL("/v1/objects/TrafficPolicy/orders")); err != nil || !strings.Contains(body, "1000") {
		t.Errorf("the policy that the bad file held before: %v %s", err, body)
	}
	// The other file still counts, and so does the bad one when it is good again.
	write("orders.yaml", route(2))
	round("2")
	write("policy.yaml", policy(5))
	mesh.Await(t, 15*time.Second, "the mended policy", func() error {
		body, err := mesh.Get(m.ControlPlane.URL("/v1/objects/TrafficPolicy/orders"))
		if err == nil && !strings.Contains(body, "1005") {
			err = fmt.Errorf("%s", body)
		}
		return err
	})
}

func TestABusyPortIsNamedByItsFlag(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close() //nolint:errcheck // never used
	address := busy.Addr().String()
	m := mesh.New(t)
	for _, flag := range []string{"--http", "--xds"} {
		out := mesh.Run(t, "", mesh.Program("controlplane"), "serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0", flag, address)
		if out.Code == 0 || !strings.Contains(out.Output, flag) || !strings.Contains(out.Output, address) {
			t.Errorf("controlplane %s: exit code %d\n%s", flag, out.Code, out.Output)
		}
	}
	for _, flag := range []string{"--inbound", "--outbound", "--admin"} {
		t.Run("sidecar "+flag, func(t *testing.T) {
			app := mesh.StartApp(t, t.TempDir(), "app")
			s := mesh.StartSidecar(t, t.TempDir(), mesh.SidecarOptions{
				Service: "busy", ID: "busy-1", App: app.Address, XDS: m.ControlPlane.XDS, Flags: []string{flag, address},
			})
			code := s.Wait(20 * time.Second)
			if out := s.Output(); code != 3 || !strings.Contains(out, flag) || !strings.Contains(out, address) {
				t.Errorf("exit code %d, want 3 and a message with %s and %s\n%s", code, flag, address, out)
			}
		})
	}
	out := mesh.Run(t, "", mesh.Program("controlplane"), "serve", "--data", m.ControlPlane.Data, "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0")
	if out.Code == 0 || !strings.Contains(out.Output, m.ControlPlane.Data) {
		t.Errorf("a second control plane over the same folder: exit code %d\n%s", out.Code, out.Output)
	}
}

// TestAFullOrReadOnlyLakeHurtsNoRequest taps everything into a lake of one
// megabyte.
func TestAFullOrReadOnlyLakeHurtsNoRequest(t *testing.T) {
	t.Parallel()
	small := smallFolder(t, 1<<20)
	m := mesh.New(t, "--lake", small, "--lake-interval", "500ms")
	m.ControlPlane.PutYAML("Tap", orders, `apiVersion: outrigger.io/v1
kind: Tap
metadata: {name: orders}
spec:
  targetRef: {kind: Service, name: orders}
  match: {sample: 100%, maxPerSecond: 100000}
  capture: {responseBody: 64KiB}
  expires: 1h
`)
	x := m.Instance(orders, "orders-1")
	web := m.Caller("web-1")
	m.AwaitAnswers(web, orders, "orders-1")
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Path: "/bytes?n=32768", Conns: 10, Rate: 200})
	m.ControlPlane.Await(20*time.Second, "the full lake in the log", func() error {
		if out := strings.ToLower(m.ControlPlane.Output()); !strings.Contains(out, "no space") && !strings.Contains(out, "full") {
			return fmt.Errorf("nothing yet")
		}
		return nil
	})
	load.AwaitSent(100)
	tally := load.Stop()
	tally.Flawless(t, "with a full lake")
	m.ControlPlane.PutYAML("HTTPRoute", orders, route(1)) // it still works
	if !x.Sidecar.Alive() || !m.ControlPlane.Alive() {
		t.Error("a process has ended")
	}
	m.ControlPlane.Stop()
	readOnly(t, small)
	p := mesh.Start(t, "controlplane", filepath.Join(m.Dir, "read-only.log"), nil,
		mesh.Program("controlplane"), "serve", "--data", m.ControlPlane.Data, "--lake", small, "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0")
	p.Await(20*time.Second, "an error that names the lake", func() error {
		if out := p.Output(); !strings.Contains(out, small) || !strings.Contains(out, "read-only") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if p.Alive() {
		p.Stop()
	} else if !strings.Contains(p.Output(), "--lake") {
		t.Errorf("the error does not name the flag: %s", p.Output())
	}
	mesh.Conformance(t, "T3", "lake full and then read-only: %d tapped requests, %d failed, both errors named", tally.Sent, tally.Failed)
}
