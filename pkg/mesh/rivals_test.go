// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"strings"
	"testing"
)

func TestBothOfTwoObjectsInConflictSayIt(t *testing.T) {
	policy := func(name string, second int) Object {
		return at(object(t, `{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: `+name+`}, spec: {targetRef: {kind: Service, name: s}}}`), second)
	}
	for _, c := range []struct {
		name                string
		older, younger      Object
		ofOlder, ofYounger  string
		olderIs, youngerIsA bool
	}{
		{"policies", policy("z", 1), policy("a", 2),
			"spec.targetRef: TrafficPolicy/a has the same target and is younger: it is not in force",
			"spec.targetRef: TrafficPolicy/z has the same target and is older: it stays in force", true, false},
		{"routes", route(t, "z", "s", "/x", 1), route(t, "a", "s", "/x", 2),
			`spec.rules[0]: HTTPRoute/a spec.rules[0] has the same match and is younger: its requests come here: {"path":{"type":"PathPrefix","value":"/x"}}`,
			`spec.rules[0]: HTTPRoute/z spec.rules[0] has the same match and comes first: {"path":{"type":"PathPrefix","value":"/x"}}`, true, true},
		{"routes of other paths", route(t, "z", "s", "/x", 1), route(t, "a", "s", "/y", 2), "", "", true, true},
	} {
		m := Empty().Apply(put(service(t, "s", ""), c.older, c.younger)...)
		for o, want := range map[Object]string{c.older: c.ofOlder, c.younger: c.ofYounger} {
			s := Review(m, o)
			if got := strings.Join(s.Warnings(), "\n"); got != want {
				t.Errorf("%s, %s: got %s\nwant %s", c.name, o.Key(), got, want)
			}
			accepted := c.olderIs
			if o == c.younger {
				accepted = c.youngerIsA
			}
			if s.Accepted != accepted {
				t.Errorf("%s, %s: accepted %v", c.name, o.Key(), s.Accepted)
			}
			other := c.younger
			if o == c.younger {
				other = c.older
			}
			if got := Rivals(m, o); len(got) != 1 || got[0] != other {
				t.Errorf("%s: rivals of %s: %v", c.name, o.Key(), got)
			}
		}
	}
}

func TestConditionsOfOneObjectAreBounded(t *testing.T) {
	objects := []Object{service(t, "s", "")}
	for i := range 50 {
		objects = append(objects, at(object(t, `{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: p`+strings.Repeat("x", i)+`}, spec: {targetRef: {kind: Service, name: s}}}`), i))
	}
	m := Empty().Apply(put(objects...)...)
	s := Review(m, objects[1])
	if got := len(s.Warnings()); got != maxContested {
		t.Errorf("got %d, want %d", got, maxContested)
	}
	if got := len(Rivals(m, objects[1])); got != 32 {
		t.Errorf("rivals: got %d, want 32", got)
	}
}
