// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"slices"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
)

func TestExplainShowsEachPartOfAFallback(t *testing.T) {
	s := newState()
	s.put(t, explained)
	s.apply(instance("payments", "a", anywhere), instance("archive", "z", anywhere))
	policy := func(fallback string) {
		s.put(t, "{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: p}, spec: {targetRef: {kind: Service, name: payments}, fallback: "+fallback+"}}")
	}
	step := func(name, reason string) controlplane.Step {
		return controlplane.Step{Stage: "fallback", Name: name, Reason: reason, Object: "TrafficPolicy/p"}
	}
	web := controlplane.GroupOfService("web")
	const asked, none, kept = "asked where the service does not answer", "left out: there is no such service", "the last good answer, where one is kept"
	for _, c := range []struct {
		name, fallback, method string
		sender                 controlplane.Group
		want                   []controlplane.Step
	}{
		{"all parts, in their order", "{service: archive, cached: {}, status: 299}", "GET", web,
			[]controlplane.Step{step("archive", asked), step("cached", kept), step("299", "the policy's own answer")}},
		{"no service of that name", "{service: nobody}", "GET", web, []controlplane.Step{step("nobody", none)}},
		{"nothing is kept of a POST", "{cached: {}}", "POST", web, []controlplane.Step{step("cached", "nothing for POST: answers to GET alone are kept")}},
		{"an empty one", "{}", "GET", web, []controlplane.Step{step("200", "the policy's own answer")}},
		{"an Envoy has none", "{status: 299}", "GET", controlplane.GroupOfService(""), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy(c.fallback)
			got := controlplane.Explain(s.Model(), c.sender, query(t, c.method, "http://payments/v1")).Steps
			got = slices.DeleteFunc(got, func(st controlplane.Step) bool { return st.Stage != "fallback" })
			if !slices.Equal(got, c.want) {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
}
