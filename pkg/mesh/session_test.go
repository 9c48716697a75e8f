// SPDX-License-Identifier: Apache-2.0

package mesh

import "testing"

func TestARuleThatKeepsNoSessionsSaysIt(t *testing.T) {
	policy := object(t, `{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: b},
  spec: {targetRef: {kind: Service, name: b}, sessionPersistence: {}}}`)
	for backends, want := range map[string]string{
		"{name: a}, {name: b}":            "true Accepted=Accepted Conflicted=NoSessions",
		"{name: a, weight: 0}, {name: b}": "true Accepted=Accepted",
		"{name: b}":                       "true Accepted=Accepted",
		"{name: a}, {name: c}":            "true Accepted=Accepted",
	} {
		r := object(t, `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r},
  spec: {parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [`+backends+`]}]}}`)
		m := Empty().Apply(Change{Put: policy}, Change{Put: r})
		for _, name := range []string{"a", "b", "c"} {
			m = m.Apply(Change{PutInstance: &Instance{Service: name, ID: "1"}})
		}
		if got := said(m, r); got != want {
			t.Errorf("%s: %s, want %s", backends, got, want)
		}
	}
}
