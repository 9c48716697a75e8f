// SPDX-License-Identifier: Apache-2.0

package store

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

func TestBothObjectsOfAConflictAreToldInEvents(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	policy := func(name, target string) mesh.Object {
		return parse(t, `{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: `+name+`}, spec: {targetRef: {kind: Service, name: `+target+`}}}`)
	}
	put := func(o mesh.Object) PutResult {
		t.Helper()
		r, err := s.PutObject(t.Context(), o, registry.Match{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	seen := uint64(0)
	told := func(want ...string) {
		t.Helper()
		var got []string
		list, _, _ := s.Events().After(seen, 100)
		for _, e := range list {
			seen = e.Sequence
			if e.Type == EventWarning || e.Type == EventRestored {
				got = append(got, e.Type+" "+e.Kind+"/"+e.Name+" "+e.Message)
			}
		}
		if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
			t.Errorf("got\n%s\nwant\n%s", a, b)
		}
	}
	const first = "spec.targetRef: TrafficPolicy/b has the same target and is younger: it is not in force"
	const second = "spec.targetRef: TrafficPolicy/a has the same target and is older: it stays in force"
	put(policy("a", "orders"))
	told()
	// The second one's answer has it, too.
	if r := put(policy("b", "orders")); r.Status.Accepted || len(r.Status.Warnings()) != 2 {
		t.Errorf("status: %+v", r.Status)
	}
	told("warning TrafficPolicy/b "+second, "warning TrafficPolicy/a "+first)
	put(policy("b", "orders")) // unchanged
	told()
	put(policy("b", "payments"))
	told("restored TrafficPolicy/b it is over: "+second, "restored TrafficPolicy/a it is over: "+first)
	put(policy("b", "orders"))
	seen = s.Events().Last()
	if _, err := s.DeleteObject(t.Context(), mesh.Key{Kind: mesh.KindTrafficPolicy, Name: "a"}, registry.Match{}); err != nil {
		t.Fatal(err)
	}
	told("restored TrafficPolicy/b it is over: " + second)
	if _, err := s.CheckObject(t.Context(), policy("c", "orders"), registry.Match{}); err != nil {
		t.Fatal(err)
	}
	told()
}
