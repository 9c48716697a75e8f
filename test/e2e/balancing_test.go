// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// Policies said by a TrafficPolicy are what the sidecar does, through every change.
func TestATrafficPolicyChoosesHowInstancesArePicked(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	all := []string{"orders-1", "orders-2", "orders-3"}
	for _, id := range all {
		m.Instance("orders", id)
	}
	web, cp := m.Caller("web-1"), m.ControlPlane
	m.AwaitAnswers(web, "orders", all...)
	const requests = 30
	for _, c := range []struct {
		policy string
		reach  int // instances
	}{
		{"policy: pick_first", 1},
		{"policy: peak_ewma", 0}, // by latency
		{"policy: client_side_weighted_round_robin, slowStart: 1s", 3},
		{"policy: maglev, hashOn: {sourceIP: true}, hashBalanceFactor: 150", 1},
		{"policy: round_robin, slowStart: 10s", 3},
		{"policy: least_request, slowStart: 1s", 3},
	} {
		old := cp.Accepted(web.Node(), "Cluster")
		cp.PutYAML("TrafficPolicy", "orders", fmt.Sprintf(`apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: orders}
spec:
  targetRef: {kind: Service, name: orders}
  loadBalancer: {%s}
`, c.policy))
		cp.AwaitChange(web.Node(), "Cluster", old)
		// What to hash comes with the routes, which may be a moment later.
		mesh.Await(t, 10*time.Second, c.policy, func() error {
			reached := map[string]int{}
			for range requests {
				a, err := mesh.Call(web.Outbound, "orders", "/")
				if err != nil || a.Status != 200 {
					t.Fatalf("%s: %v %d %s", c.policy, err, a.Status, a.Body)
				}
				reached[a.Header.Get(mesh.InstanceHeader)]++
			}
			if c.reach > 0 && len(reached) != c.reach {
				return fmt.Errorf("%d requests reached %v, want %d instances", requests, reached, c.reach)
			}
			return nil
		})
	}
}
