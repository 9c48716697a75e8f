// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"maps"
	"slices"
	"strings"
	"unicode"
)

// Subsets are Envoy's: instances with the same values of some labels, among which the labels
// of a backendRef choose. What backendRefs name needs no selector; a selector says what
// becomes of requests whose subset has no instance.
type Subsets struct {
	Selectors      []SubsetSelector  `json:"selectors,omitzero" rule:"maxitems=32" doc:"Sets of keys that have a fallback of their own."`
	FallbackPolicy string            `json:"fallbackPolicy,omitempty" rule:"enum=no_fallback|any_endpoint|default_subset" doc:"Where requests go that choose no subset: nowhere (503), to any instance, or to those of defaultSubset; any_endpoint when empty."`
	DefaultSubset  map[string]string `json:"defaultSubset,omitzero" rule:"maxitems=16" doc:"Labels of the instances that default_subset means."`
}

// SubsetSelector is one set of keys.
type SubsetSelector struct {
	Keys               []string `json:"keys" rule:"required,minitems=1,maxitems=16" doc:"Keys of labels. Each combination of their values that instances have is a subset."`
	FallbackPolicy     string   `json:"fallbackPolicy,omitempty" rule:"enum=no_fallback|any_endpoint|default_subset|keys_subset" doc:"Where requests go whose subset has no instance: nowhere (503), to any instance, to those of defaultSubset, or to the subset by fallbackKeysSubset; no_fallback when empty."`
	FallbackKeysSubset []string `json:"fallbackKeysSubset,omitzero" rule:"maxitems=16" doc:"Some of the keys, of keys_subset: the same labels with the others left out."`
}

// Fallbacks of subsets.
const (
	SubsetNoFallback    = "no_fallback"
	SubsetAnyEndpoint   = "any_endpoint"
	SubsetDefaultSubset = "default_subset"
	SubsetKeysSubset    = "keys_subset"
)

// Labels that every instance has unless its metadata says otherwise.
const (
	LabelVersion = "version"
	LabelZone    = "zone"
)

// reservedLabel has a meaning of its own to Envoy, in the labels of a route.
const reservedLabel = "fallback_list"

// Label is the instance's value of a key: of its metadata, else its version or zone.
func (i *Instance) Label(key string) (value string, ok bool) {
	if value, ok = i.Metadata[key]; ok {
		return value, true
	}
	switch key {
	case LabelVersion:
		value = i.Version
	case LabelZone:
		value = i.Zone
	}
	return value, value != ""
}

// HasLabels reports whether the instance has all of them.
func (i *Instance) HasLabels(labels map[string]string) bool {
	for k, v := range labels {
		if got, ok := i.Label(k); !ok || got != v {
			return false
		}
	}
	return true
}

func (s *Subsets) check(f *faults, path string) {
	needsDefault := s.FallbackPolicy == SubsetDefaultSubset
	seen := map[string]int{}
	for i := range s.Selectors {
		x, at := &s.Selectors[i], index(path+".selectors", i)
		needsDefault = needsDefault || x.FallbackPolicy == SubsetDefaultSubset
		for j, k := range x.Keys {
			checkLabelKey(f, index(at+".keys", j), k)
		}
		keys := KeySet(x.Keys)
		if other, twice := seen[keys]; twice {
			f.add(at+".keys", "are those of selectors[%d]", other)
		}
		seen[keys] = i
		x.checkFallback(f, at)
	}
	switch {
	case needsDefault && len(s.DefaultSubset) == 0:
		f.add(path+".defaultSubset", "missing: a fallbackPolicy is default_subset")
	case !needsDefault && len(s.DefaultSubset) > 0:
		f.add(path+".defaultSubset", "no fallbackPolicy is default_subset")
	}
	checkLabels(f, path+".defaultSubset", s.DefaultSubset)
}

func (x *SubsetSelector) checkFallback(f *faults, path string) {
	at := path + ".fallbackKeysSubset"
	switch {
	case x.FallbackPolicy != SubsetKeysSubset && len(x.FallbackKeysSubset) > 0:
		f.add(at, "needs fallbackPolicy keys_subset")
	case x.FallbackPolicy == SubsetKeysSubset && len(x.FallbackKeysSubset) == 0:
		f.add(at, "missing: the fallbackPolicy is keys_subset")
	case slices.ContainsFunc(x.FallbackKeysSubset, func(k string) bool { return !slices.Contains(x.Keys, k) }):
		f.add(at, "want some of the keys")
	case x.FallbackPolicy == SubsetKeysSubset && KeySet(x.FallbackKeysSubset) == KeySet(x.Keys):
		f.add(at, "want fewer than all of the keys: they lead to the same subset")
	}
}

func checkLabels(f *faults, path string, labels map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		checkLabelKey(f, path, k)
	}
}

func checkLabelKey(f *faults, path, key string) {
	switch {
	case key == reservedLabel:
		f.add(path, "%q cannot be the key of a label: Envoy gives it a meaning of its own", key)
	case key == "" || len(key) > 253:
		f.add(path, "want keys of 1 to 253 bytes")
	case strings.ContainsFunc(key, unicode.IsControl): // such as what KeySet writes between keys
		f.add(path, "%q has control characters", clip(key))
	}
}

// KeySet is equal for equal sets of keys, and sorts.
func KeySet(keys []string) string {
	sorted := slices.Compact(slices.Sorted(slices.Values(keys)))
	out := ""
	for _, k := range sorted {
		out += k + "\x00"
	}
	return out
}
