// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"maps"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// subset are the instances with the labels of a share, or those that the policy's fallback
// means where there are none; it says who is left out, and of the fallback.
func (x *Explanation) subset(policy *mesh.TrafficPolicy, all []*mesh.Instance, c encode.Share) []*mesh.Instance {
	labels := c.Labels
	in := withLabels(all, labels)
	if len(in) == 0 && policy != nil && policy.Spec.Subsets != nil {
		s := policy.Spec.Subsets
		for i := range s.Selectors {
			sel := &s.Selectors[i]
			if mesh.KeySet(sel.Keys) != mesh.KeySet(slices.Collect(maps.Keys(labels))) {
				continue
			}
			switch sel.FallbackPolicy {
			case mesh.SubsetAnyEndpoint:
				labels = nil
			case mesh.SubsetDefaultSubset:
				labels = s.DefaultSubset
			case mesh.SubsetKeysSubset:
				labels = maps.Clone(labels)
				maps.DeleteFunc(labels, func(k, _ string) bool { return !slices.Contains(sel.FallbackKeysSubset, k) })
			default:
				continue
			}
			in = withLabels(all, labels)
			what := "any instance"
			if len(labels) > 0 {
				what = "those with " + mesh.LabelText(labels)
			}
			x.step("subset", mesh.LabelText(c.Labels), fmt.Sprintf("no instance: %s by its fallbackPolicy %s", what, sel.FallbackPolicy), policy.Key().String())
		}
	}
	for _, i := range all {
		if !slices.Contains(in, i) {
			x.Endpoints = append(x.Endpoints, Step{"endpoint", fmt.Sprintf("%s:%d", i.Address, i.Port), "left out: it has not " + mesh.LabelText(labels), i.Service + "/" + i.ID})
		}
	}
	return in
}

func withLabels(list []*mesh.Instance, labels map[string]string) []*mesh.Instance {
	var out []*mesh.Instance
	for _, i := range list {
		if i.HasLabels(labels) {
			out = append(out, i)
		}
	}
	return out
}
