// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"cmp"
	"encoding/json"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	// maxSelectors and maxSelectorKeys bound what an endpoint costs when subsets
	// are made.
	maxSelectors    = 64
	maxSelectorKeys = 16
	maxOverrides    = 16
	// maxMatchLabels, twice, is what pkg/lb looks at: of a route, and of an entry of its
	// fallback list over it.
	maxMatchLabels = 32
)

// legacySubsets reads lb_subset_config. Without selectors there are no subsets, as
// in Envoy.
func (j *job) legacySubsets(m *clusterv3.Cluster, lb *resource.LoadBalancing, p *place) {
	o := m.GetLbSubsetConfig()
	if o == nil {
		return
	}
	j.only(m.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED, p, "cannot be combined with lb_policy CLUSTER_PROVIDED")
	raw, err := proto.Marshal(o)
	var same subsetv3.Subset // the typed policy has the same fields under the same numbers
	if err == nil {
		err = proto.Unmarshal(raw, &same)
	}
	if err != nil {
		j.fail(p, "%v", cleanError(err))
		return
	}
	lb.Subsets = j.subsets(&same, p)
}

// subsetPolicy reads the typed policy with the one that picks within a subset.
func (j *job) subsetPolicy(a *anypb.Any, lb *resource.LoadBalancing, p *place, depth int) {
	var m subsetv3.Subset
	if !j.unpack(a, &m, p) {
		return
	}
	if lb.Subsets != nil {
		j.fail(p, "must not be within another subset policy")
		return
	}
	lb.Subsets = j.subsets(&m, p)
	if m.GetSubsetLbPolicy() == nil {
		return // unpack has said so
	}
	mine := lb.Subsets
	j.policies(m.GetSubsetLbPolicy(), lb, p.field("subset_lb_policy"), depth+1)
	lb.Subsets = mine
}

func (j *job) subsets(m *subsetv3.Subset, p *place) *resource.Subsets {
	s := &resource.Subsets{
		LocalityWeightAware: m.GetLocalityWeightAware(),
		ScaleLocalityWeight: m.GetScaleLocalityWeight(),
		PanicModeAny:        m.GetPanicModeAny(),
		ListAsAny:           m.GetListAsAny(),
		FallbackList:        m.GetMetadataFallbackPolicy() == subsetv3.Subset_FALLBACK_LIST,
		RedundantKeys:       m.GetAllowRedundantKeys(),
		Default:             labelsOf(m.GetDefaultSubset().GetFields()),
	}
	switch m.GetFallbackPolicy() {
	case subsetv3.Subset_ANY_ENDPOINT:
		s.Fallback = resource.SubsetAny
	case subsetv3.Subset_DEFAULT_SUBSET:
		s.Fallback = resource.SubsetDefault
	}
	list := m.GetSubsetSelectors()
	if len(list) > maxSelectors {
		j.fail(p.field("subset_selectors"), "has %d selectors, at most %d are accepted", len(list), maxSelectors)
		return nil
	}
	for i, o := range list {
		at := p.item("subset_selectors", i)
		sel := j.subsetSelector(o, at)
		for k := range s.Selectors {
			if slices.Equal(s.Selectors[k].Keys, sel.Keys) {
				j.fail(at.field("keys"), "are those of subset_selectors[%d]", k)
			}
		}
		s.Selectors = append(s.Selectors, sel)
	}
	if len(s.Selectors) == 0 {
		return nil
	}
	return s
}

func (j *job) subsetSelector(m *subsetv3.Subset_LbSubsetSelector, p *place) resource.SubsetSelector {
	s := resource.SubsetSelector{
		Keys: sortedOnce(m.GetKeys()), SingleHost: m.GetSingleHostPerSubset(), FallbackKeys: sortedOnce(m.GetFallbackKeysSubset()),
	}
	if n := len(s.Keys); n == 0 || n > maxSelectorKeys {
		j.fail(p.field("keys"), "must be 1 to %d, are %d", maxSelectorKeys, n)
	}
	switch m.GetFallbackPolicy() {
	case subsetv3.Subset_LbSubsetSelector_NOT_DEFINED:
		s.Fallback = resource.SubsetInherit
	case subsetv3.Subset_LbSubsetSelector_ANY_ENDPOINT:
		s.Fallback = resource.SubsetAny
	case subsetv3.Subset_LbSubsetSelector_DEFAULT_SUBSET:
		s.Fallback = resource.SubsetDefault
	case subsetv3.Subset_LbSubsetSelector_KEYS_SUBSET:
		s.Fallback = resource.SubsetKeys
	}
	at := p.field("fallback_keys_subset")
	if s.Fallback != resource.SubsetKeys {
		j.only(len(s.FallbackKeys) > 0, at, "needs fallback_policy KEYS_SUBSET")
		return s
	}
	other := func(k string) bool { return !slices.Contains(s.Keys, k) }
	j.only(len(s.FallbackKeys) == 0, at, "is empty, and fallback_policy is KEYS_SUBSET")
	j.only(slices.ContainsFunc(s.FallbackKeys, other), at, "must be a part of keys")
	j.only(len(s.FallbackKeys) == len(s.Keys), at, "must not be all of keys: that would lead to the same subset")
	return s
}

func sortedOnce(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	return slices.Compact(out)
}

// metadataMatch reads metadata_match over what the level above says.
func (j *job) metadataMatch(m *corev3.Metadata, outer *resource.MetadataMatch, p *place) *resource.MetadataMatch {
	st := m.GetFilterMetadata()[resource.LBNamespace]
	if st == nil {
		return outer
	}
	out := &resource.MetadataMatch{}
	if outer != nil {
		out.Labels, out.Overrides = outer.Labels, outer.Overrides
	}
	out.Labels = resource.MergeLabels(out.Labels, labelsOf(st.GetFields()))
	j.only(len(out.Labels) > maxMatchLabels, p.entry("filter_metadata", resource.LBNamespace), "has more than 32 keys, with those of the level above")
	list, ok := st.GetFields()[resource.FallbackListKey]
	if !ok {
		return out
	}
	at := p.entry("filter_metadata", resource.LBNamespace).field(resource.FallbackListKey)
	values := list.GetListValue().GetValues()
	if len(values) > maxOverrides {
		j.fail(at, "has %d entries, at most %d are accepted", len(values), maxOverrides)
		return out
	}
	out.Overrides = nil
	for _, v := range values {
		labels := labelsOf(v.GetStructValue().GetFields())
		j.only(len(labels) > maxMatchLabels, at, "has an entry of more than 32 keys")
		out.Overrides = append(out.Overrides, labels)
	}
	return out
}

func labelsOf(fields map[string]*structpb.Value) []resource.Label {
	var out []resource.Label
	for k, v := range fields {
		out = append(out, resource.Label{Key: k, Value: canonical(v)})
	}
	slices.SortFunc(out, func(a, b resource.Label) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// otherLabels are the values that are no text; nil where there are none.
func otherLabels(fields map[string]*structpb.Value) map[string]resource.OtherLabel {
	var out map[string]resource.OtherLabel
	for k, v := range fields {
		o := resource.OtherLabel{}
		switch l := v.GetKind().(type) {
		case *structpb.Value_StringValue:
			continue
		case *structpb.Value_ListValue:
			o.List = true
			for _, item := range l.ListValue.GetValues() {
				o.Items = append(o.Items, canonical(item))
			}
		}
		if out == nil {
			out = map[string]resource.OtherLabel{}
		}
		o.Whole = canonical(v)
		out[k] = o
	}
	return out
}

// canonical is the value as resource.Label has it.
func canonical(v *structpb.Value) string {
	if s, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		return `"` + s.StringValue
	}
	text, err := json.Marshal(v.AsInterface()) // sorts keys
	if err != nil {
		return "?" + v.String() // NaN and infinities, which are no JSON
	}
	return string(text)
}
