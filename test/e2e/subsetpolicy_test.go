// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const subsetRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: payments}
spec:
  parentRefs: [{kind: Service, name: payments}]
  rules:
  - matches: [{path: {value: /v2}}]
    backendRefs: [{name: payments, labels: {version: v2}}]
  - matches: [{path: {value: /canary}}]
    backendRefs: [{name: payments, labels: {stage: canary, version: v2}}]
  - matches: [{path: {value: /v3}}]
    backendRefs: [{name: payments, labels: {version: v3}}]
`

// Labels of a route's backend choose instances by what they have registered; what has no
// instance is refused, unless the policy has a fallback.
func TestLabelsOfABackendChooseInstances(t *testing.T) {
	m := mesh.New(t)
	caller := m.Caller("caller")
	m.Instance("payments", "p1", "--version-label", "v1")
	m.Instance("payments", "p2", "--version-label", "v2")
	m.Instance("payments", "p3", "--version-label", "v2", "--label", "stage=canary")
	m.AwaitAnswers(caller, "payments", "p1", "p2", "p3")
	apply := func(object string) {
		t.Helper()
		r := m.ControlPlane.CLI(object, "apply", "-f", "-")
		if r.Code != 0 {
			t.Fatalf("apply: %+v", r)
		}
		if want := `no instance of service "payments" has version=v3 now: there are version=v1, version=v2; did you mean version=v1?`; object == subsetRoute && !strings.Contains(r.Output, want) {
			t.Errorf("apply says nothing of the labels that no instance has: %s", r.Output)
		}
	}
	// goes waits for an answer as of the new configuration, then sees who answers.
	goes := func(path string, status int, want ...string) {
		t.Helper()
		seen := func() (string, error) {
			a, err := mesh.Call(caller.Outbound, "payments", path)
			if err == nil && a.Status != status {
				err = fmt.Errorf("it is answered %d", a.Status)
			}
			return a.Header.Get(mesh.InstanceHeader), err
		}
		caller.Await(admissionLimit, fmt.Sprintf("%s is answered %d", path, status), func() error { _, err := seen(); return err })
		got := map[string]bool{}
		for range 40 {
			who, err := seen()
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if who != "" {
				got[who] = true
			}
		}
		for _, w := range want {
			if !got[w] {
				t.Errorf("%s never goes to %s", path, w)
			}
			delete(got, w)
		}
		if len(got) > 0 {
			t.Errorf("%s goes to %v as well", path, got)
		}
	}
	apply(subsetRoute)
	goes("/v3", 503) // it is in force
	if x := mesh.Run(t, "", mesh.Program("sidecar"), "explain", "GET", "http://payments/v3", "--admin", caller.Admin).Output; !strings.Contains(x, "503: the subset version=v3 of outbound|payments has no endpoint") {
		t.Errorf("the sidecar explains /v3 as %s", x)
	}
	goes("/v2", 200, "p2", "p3")
	goes("/canary", 200, "p3")
	goes("/", 200, "p1", "p2", "p3")
	for path, want := range map[string]string{
		"/v2":     "with version=v2",
		"/canary": "left out: it has not stage=canary, version=v2",
		"/v3":     `503 UH: no instance of service "payments" has version=v3 now`,
	} {
		if x := m.ControlPlane.CLI("", "explain", "GET", "http://payments"+path, "--from", "web").Output; !strings.Contains(x, want) {
			t.Errorf("%s is explained as %s", path, x)
		}
	}
	apply(admissionPolicy(`subsets: {selectors: [{keys: [version], fallbackPolicy: default_subset}], fallbackPolicy: default_subset, defaultSubset: {version: v1}}`))
	goes("/v3", 200, "p1")
	goes("/", 200, "p1")
	goes("/v2", 200, "p2", "p3")
	if x := m.ControlPlane.CLI("", "explain", "GET", "http://payments/v3", "--from", "web").Output; !strings.Contains(x, "no instance: those with version=v1 by its fallbackPolicy default_subset") {
		t.Errorf("explained as %s", x)
	}
}
