// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// When all instances of a service are gone, its policy says who answers: another service,
// then the last good answer, then the policy itself.
func TestAFallbackAnswersWhenAllInstancesAreGone(t *testing.T) {
	m := mesh.New(t)
	caller := m.Caller("caller")
	payments := m.Instance("payments", "p1")
	standby := m.Instance("standby", "s1")
	m.AwaitAnswers(caller, "payments", "p1")
	m.AwaitAnswers(caller, "standby", "s1")
	apply := func(fallback string) {
		t.Helper()
		old := m.ControlPlane.Accepted(caller.Node(), "Cluster")
		m.ControlPlane.PutYAML("TrafficPolicy", "payments", "apiVersion: outrigger.io/v1\nkind: TrafficPolicy\nmetadata: {name: payments}\nspec: {targetRef: {kind: Service, name: payments}, fallback: {"+fallback+"}}\n")
		m.ControlPlane.AwaitChange(caller.Node(), "Cluster", old)
	}
	call := func(path string) mesh.Answer {
		t.Helper()
		a, err := mesh.Call(caller.Outbound, "payments", path)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	apply("service: standby, cached: {maxAge: 1h}, status: 203, body: ours")
	if a := call("/?kept"); a.Status != 200 || a.Header.Get(mesh.InstanceHeader) != "p1" || a.Header.Get("Age") != "" {
		t.Fatalf("the service itself answers %d %v", a.Status, a.Header)
	}
	payments.App.Kill()
	payments.Sidecar.Kill()
	if a := call("/"); a.Status != 200 || a.Header.Get(mesh.InstanceHeader) != "s1" {
		t.Errorf("without the service: %d %v, want the standby's answer", a.Status, a.Header)
	}
	standby.App.Kill()
	standby.Sidecar.Kill()
	if a := call("/?kept"); a.Status != 200 || a.Header.Get(mesh.InstanceHeader) != "p1" || a.Header.Get("Age") == "" || a.Header.Get("Cache-Status") == "" {
		t.Errorf("without both: %d %v, want what was kept", a.Status, a.Header)
	}
	if a := call("/?other"); a.Status != 203 || a.Body != "ours" {
		t.Errorf("without anything that was kept: %d %q, want the policy's own", a.Status, a.Body)
	}
	stats, err := caller.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(stats["outrigger.response_cache.served_total"], stats["outrigger.response_cache.missed_total"]); got != "1 1" {
		t.Errorf("served and missed: %s", got)
	}
}
