// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// A path is normalised before it is routed, and forwarded as it was routed: what
// the control plane builds says so. What is escaped may mean something else.
func TestPathsAreNormalisedByDefault(t *testing.T) {
	m := mesh.New(t)
	m.Instance("orders", "orders-1")
	caller := m.Caller("caller")
	m.AwaitAnswers(caller, "orders", "orders-1")
	type answer struct{ status, bytes int } // 7 bytes are those of /bytes, 2 those of /
	for path, want := range map[string]answer{
		"/bytes?n=7":            {200, 7},
		"/a/../bytes?n=7":       {200, 7},
		"/a/%2e%2E//bytes?n=7":  {200, 7},
		"///./bytes?n=7":        {200, 7},
		"/bytes%2F..?n=7":       {200, 2},
		"/a%2Fb/../bytes/.?n=7": {200, 2}, // of /bytes/
		"/../../../%00":         {400, 0},
	} {
		a, err := mesh.Call(caller.Outbound, "orders", path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if got := (answer{a.Status, len(a.Body)}); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
}
