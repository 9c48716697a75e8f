// SPDX-License-Identifier: Apache-2.0

package mesh

import "testing"

func TestARuleThatKeepsAPolicysHedgingOutOfForceSaysIt(t *testing.T) {
	policy := object(t, `{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: a},
  spec: {targetRef: {kind: Service, name: a}, hedging: {perTryTimeout: 100ms}}}`)
	with := func(rule string) Object {
		return object(t, `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r},
  spec: {parentRefs: [{kind: Service, name: a}], rules: [{backendRefs: [{name: a}]`+rule+`}]}}`)
	}
	for rule, want := range map[string]string{
		"":                                 "true Accepted=Accepted",
		", timeouts: {request: 1s}":        "true Accepted=Accepted",
		", timeouts: {backendRequest: 1s}": "true Accepted=Accepted Conflicted=NotHedged",
		", retry: {attempts: 0}":           "true Accepted=Accepted Conflicted=NotHedged",
		", retry: {attempts: 1}":           "true Accepted=Accepted",
		", timeouts: {backendRequest: 0s}": "true Accepted=Accepted",
	} {
		r := with(rule)
		m := Empty().Apply(Change{Put: policy}, Change{Put: r}, Change{PutInstance: &Instance{Service: "a", ID: "1"}})
		if got := said(m, r); got != want {
			t.Errorf("%q: %s, want %s", rule, got, want)
		}
	}
}
