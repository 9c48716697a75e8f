// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// maxSubsetKeys bounds the sets of keys of a service, as clients do.
const maxSubsetKeys = 64

// subsetKeys are the sets of keys of each service: first those of its policy, then those
// that routes' backends name, the oldest route's first, up to the limit. So nobody's route
// takes a service's cluster out of force, nor what an older one chooses by.
func subsetKeys(routes []*source, policies map[string]*mesh.TrafficPolicy) map[string][]string {
	out := map[string][]string{}
	add := func(service string, keys []string) {
		if set := mesh.KeySet(keys); len(out[service]) < maxSubsetKeys && !slices.Contains(out[service], set) {
			out[service] = append(out[service], set)
		}
	}
	for service, p := range policies {
		if s := p.Spec.Subsets; s != nil {
			for i := range s.Selectors {
				add(service, s.Selectors[i].Keys)
			}
			if len(s.DefaultSubset) > 0 { // without selectors there are no subsets at all
				add(service, slices.Collect(maps.Keys(s.DefaultSubset)))
			}
		}
	}
	for _, r := range routes {
		for i := range r.Spec.Rules {
			for _, b := range r.Spec.Rules[i].BackendRefs {
				if len(b.Labels) > 0 {
					add(b.Name, slices.Collect(maps.Keys(b.Labels)))
				}
			}
		}
	}
	for _, sets := range out {
		slices.Sort(sets)
	}
	return out
}

// SubsetKeys are the sets of keys by which a service's instances are divided: those of its
// policy and those that backends name, and those kept, each as mesh.KeySet writes it,
// sorted. Nobody changes them.
func (x *Index) SubsetKeys(service string) []string {
	own, former := x.subsets[service], x.former[service]
	former = former[:min(len(former), maxSubsetKeys-len(own))]
	if len(former) == 0 {
		return own
	}
	return slices.Sorted(slices.Values(slices.Concat(own, former)))
}

// Sets are the sets of keys that routes and policies name, by service. Nobody changes them.
func (x *Index) Sets() map[string][]string { return x.subsets }

// Keep divides services by further sets of keys, none of which is of Sets, as far as there is
// room: those of routes that proxies still have.
func (x *Index) Keep(sets map[string][]string) { x.former = sets }

// undivided is the first backend of a rule whose labels choose by keys that its service is
// not divided by, as it is by too many others; nil: there is none.
func (x *Index) undivided(rule *mesh.HTTPRule) *mesh.HTTPBackendRef {
	for i := range rule.BackendRefs {
		b := &rule.BackendRefs[i]
		if b.Share() > 0 && len(b.Labels) > 0 && !slices.Contains(x.subsets[b.Name], mesh.KeySet(slices.Collect(maps.Keys(b.Labels)))) {
			return b
		}
	}
	return nil
}

// LabelKeys are all keys of those sets, sorted: what endpoints say of themselves.
func (x *Index) LabelKeys(service string) []string {
	var out []string
	for _, set := range x.SubsetKeys(service) {
		out = append(out, keysOf(set)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func keysOf(set string) []string { return strings.Split(strings.TrimSuffix(set, "\x00"), "\x00") }

// divide gives a cluster its subsets. A selector without a policy has no fallback: who asks
// for a subset gets it or nothing; and who asks for none gets any instance, so that labels
// change nothing for routes without them.
func divide(c *clusterv3.Cluster, sets []string, s *mesh.Subsets) error {
	if s == nil {
		s = &mesh.Subsets{}
	}
	if len(sets) == 0 {
		return nil
	}
	out := &clusterv3.Cluster_LbSubsetConfig{FallbackPolicy: clusterv3.Cluster_LbSubsetConfig_ANY_ENDPOINT}
	switch s.FallbackPolicy {
	case mesh.SubsetNoFallback:
		out.FallbackPolicy = clusterv3.Cluster_LbSubsetConfig_NO_FALLBACK
	case mesh.SubsetDefaultSubset:
		out.FallbackPolicy = clusterv3.Cluster_LbSubsetConfig_DEFAULT_SUBSET
	}
	if len(s.DefaultSubset) > 0 {
		out.DefaultSubset = labelStruct(s.DefaultSubset)
	}
	for _, set := range sets {
		sel := &clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector{Keys: keysOf(set), FallbackPolicy: clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_NO_FALLBACK}
		for i := range s.Selectors {
			if x := &s.Selectors[i]; mesh.KeySet(x.Keys) == set {
				sel.FallbackPolicy = selectorFallbacks[x.FallbackPolicy]
				sel.FallbackKeysSubset = x.FallbackKeysSubset
			}
		}
		out.SubsetSelectors = append(out.SubsetSelectors, sel)
	}
	if c.LoadBalancingPolicy == nil {
		c.LbSubsetConfig = out
		return nil
	}
	// A typed policy is within one of subsets, whose message has the same fields.
	raw, err := proto.Marshal(out)
	var typed subsetv3.Subset
	if err == nil {
		err = proto.Unmarshal(raw, &typed)
	}
	if err != nil {
		return fmt.Errorf("subsets: %w", err)
	}
	typed.SubsetLbPolicy = c.LoadBalancingPolicy
	c.LoadBalancingPolicy, err = policyList(&typed)
	return err
}

var selectorFallbacks = map[string]clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_LbSubsetSelectorFallbackPolicy{
	"":                       clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_NO_FALLBACK,
	mesh.SubsetNoFallback:    clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_NO_FALLBACK,
	mesh.SubsetAnyEndpoint:   clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_ANY_ENDPOINT,
	mesh.SubsetDefaultSubset: clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_DEFAULT_SUBSET,
	mesh.SubsetKeysSubset:    clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_KEYS_SUBSET,
}

func labelStruct(labels map[string]string) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(labels))}
	for k, v := range labels {
		s.Fields[k] = structpb.NewStringValue(v)
	}
	return s
}

// labelMatch is what a route says of the labels of its backend; nil where it says nothing.
func labelMatch(labels map[string]string) *corev3.Metadata {
	if len(labels) == 0 {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{resource.LBNamespace: labelStruct(labels)}}
}

// label makes an endpoint say its values of the keys.
func label(e *endpointv3.LbEndpoint, in *mesh.Instance, keys []string) {
	labels := map[string]string{}
	for _, k := range keys {
		if v, ok := in.Label(k); ok {
			labels[k] = v
		}
	}
	if len(labels) > 0 {
		e.Metadata.FilterMetadata[resource.LBNamespace] = labelStruct(labels)
	}
}

// labelled reports whether a rule sends only to some instances of a backend.
func labelled(rule *mesh.HTTPRule) bool {
	return slices.ContainsFunc(rule.BackendRefs, func(b mesh.HTTPBackendRef) bool { return b.Share() > 0 && len(b.Labels) > 0 })
}

// labelsOf reads a route's metadata_match as this package has written it.
func labelsOf(m *corev3.Metadata) map[string]string {
	fields := m.GetFilterMetadata()[resource.LBNamespace].GetFields()
	if len(fields) == 0 {
		return nil
	}
	out := make(map[string]string, len(fields))
	for k, v := range fields {
		out[k] = v.GetStringValue()
	}
	return out
}
