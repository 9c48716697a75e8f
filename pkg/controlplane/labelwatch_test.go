// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// version is a change that registers an instance of a version.
func version(id, version string) mesh.Change {
	return mesh.Change{PutInstance: &mesh.Instance{Service: "orders", ID: id, Address: "10.0.0.1", Port: 80, Version: version}}
}

func TestLabelsThatNoInstanceHasAnyMoreAreTold(t *testing.T) {
	heard := make(chan string, 10)
	s := newState()
	startPlane(t, s, controlplane.Config{WarnAfter: 20 * time.Millisecond, OnLabels: func(f mesh.LabelFault, cleared bool) {
		text := f.Object.String() + " " + f.Field + ": " + f.Message
		if cleared {
			text = "over: " + text
		}
		heard <- text
	}})
	hears := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if !strings.HasPrefix(got, want) {
				t.Errorf("heard %s, want %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("nothing is heard, want %s", want)
		}
	}
	s.put(t, labelled("r", "2024-01-01T00:00:00Z", "version")) // of a service that nobody knows: nothing
	s.apply(version("a", "x"))                                 // in order: nothing
	s.put(t, strings.ReplaceAll(labelled("typo", "2024-01-01T00:00:00Z", "version"), "version: x", "version: xx"))
	const typo = `HTTPRoute/typo spec.rules[0].backendRefs[0].labels: no instance of service "orders" has version=xx now: there are version=x; did you mean version=x?`
	hears(typo)
	s.apply(version("b", "xx"))
	hears("over: " + typo)
	s.apply(mesh.Change{DeleteInstance: mesh.InstanceKey{Service: "orders", ID: "a"}})
	hears(`HTTPRoute/r spec.rules[0].backendRefs[0].labels: no instance of service "orders" has version=x now: there are version=xx`)
	s.apply(mesh.Change{Delete: mesh.Key{Kind: mesh.KindHTTPRoute, Name: "r"}}) // its deletion says it
	s.apply(version("b", "y"))
	hears(`HTTPRoute/typo`)
	if len(heard) > 0 {
		t.Errorf("heard %s as well", <-heard)
	}
}

func TestExplainNamesTheSubsetThatIsEmpty(t *testing.T) {
	s := newState()
	s.apply(version("a", "x"))
	s.put(t, strings.ReplaceAll(labelled("typo", "2024-01-01T00:00:00Z", "version"), "version: x", "version: xx"))
	got := controlplane.Explain(s.Model(), controlplane.GroupOfService("web"), query(t, "GET", "http://orders/version")).Outcome
	if want := `503 UH: no instance of service "orders" has version=xx now: there are version=x; did you mean version=x?`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
