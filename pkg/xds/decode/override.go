// SPDX-License-Identifier: Apache-2.0

package decode

import (
	overridev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/override_host/v3"
	randomsubsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random_subsetting/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// maxNamedSources bounds the headers that are looked at for each attempt.
const maxNamedSources = 8

// namedHosts reads override_host, and the policy for requests that name no endpoint.
func (j *job) namedHosts(a *anypb.Any, lb *resource.LoadBalancing, p *place, depth int) {
	var m overridev3.OverrideHost
	if !j.unpack(a, &m, p) {
		return
	}
	j.only(lb.Named != nil, p, "must not be within another policy of its type")
	named := &resource.NamedHosts{}
	for i, s := range m.GetOverrideHostSources() {
		at := p.item("override_host_sources", i)
		if s.GetMetadata() != nil {
			j.fail(at.field("metadata"), "not supported: requests have no dynamic metadata; use a header")
			continue
		}
		named.Headers = append(named.Headers, j.matchedName(s.GetHeader(), at.field("header")))
	}
	j.only(len(named.Headers) > maxNamedSources, p.field("override_host_sources"), "has more than 8 sources")
	j.only(m.GetSelectedHostKey() != nil, p.field("selected_host_key"), notSupported)
	lb.Named = named
	j.policies(m.GetFallbackPolicy(), lb, p.field("fallback_policy"), depth+1)
}

// randomSubset reads random_subsetting, and the policy within the subset.
func (j *job) randomSubset(a *anypb.Any, lb *resource.LoadBalancing, p *place, depth int) {
	var m randomsubsetv3.RandomSubsetting
	if !j.unpack(a, &m, p) {
		return
	}
	if m.GetSubsetSize() == nil {
		j.fail(p.field("subset_size"), "is missing")
	}
	j.only(lb.SubsetSize != 0, p, "must not be within another policy of its type")
	lb.SubsetSize = m.GetSubsetSize().GetValue()
	j.policies(m.GetChildPolicy(), lb, p.field("child_policy"), depth+1)
}
