// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"cmp"
	"slices"
)

// Subsets says how a cluster's endpoints are divided by the values of their
// metadata in the namespace envoy.lb.
type Subsets struct {
	Selectors []SubsetSelector // at least one
	Fallback  SubsetFallback   // default SubsetNoFallback
	Default   []Label          // default_subset, by key

	LocalityWeightAware bool
	ScaleLocalityWeight bool
	PanicModeAny        bool // any endpoint where the fallback has none
	ListAsAny           bool // each element of a list is a value
	FallbackList        bool // metadata_fallback_policy FALLBACK_LIST
	RedundantKeys       bool // allow_redundant_keys
}

// SubsetSelector makes a subset of each combination of values of its keys.
type SubsetSelector struct {
	Keys         []string // ascending, each once
	SingleHost   bool     // single_host_per_subset
	Fallback     SubsetFallback
	FallbackKeys []string // ascending, of SubsetKeys
}

// SubsetFallback is what becomes of requests that no subset is there for.
type SubsetFallback uint8

// The fallbacks.
const (
	SubsetNoFallback SubsetFallback = iota // no endpoint
	SubsetAny
	SubsetDefault
	SubsetKeys    // the same with fewer keys; of selectors only
	SubsetInherit // the cluster's; of selectors only
)

// Label is a key of metadata with a value in canonical text, which is equal for
// equal values only: text follows a quotation mark, other kinds are JSON with
// sorted keys.
type Label struct{ Key, Value string }

// TextLabel is a label whose value is text.
func TextLabel(key, text string) Label { return Label{key, `"` + text} }

// MetadataMatch is what endpoints must have in their metadata to get requests.
type MetadataMatch struct {
	Labels []Label // ascending by key, each key once
	// Overrides is the key fallback_list: labels that take the place of those of
	// their keys, one list after the other, until an endpoint is found.
	Overrides [][]Label
}

// FallbackListKey is the key of MetadataMatch.Overrides.
const FallbackListKey = "fallback_list"

// MergeLabels joins labels; those of over win.
func MergeLabels(under, over []Label) []Label {
	out := slices.Clone(over)
	for _, l := range under {
		if !slices.ContainsFunc(over, func(o Label) bool { return o.Key == l.Key }) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b Label) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// OtherLabel is a value in the namespace envoy.lb of an endpoint that is no text,
// which Metadata does not have.
type OtherLabel struct {
	Whole string   // the value as a label's
	Items []string // of a list: its elements'
	List  bool
}

// LBNamespace is the metadata that balancing goes by.
const LBNamespace = "envoy.lb"

// LBValue returns the endpoint's value of a key as a label has it; items are the
// elements where it is a list.
func (e *Endpoint) LBValue(key string) (whole string, items []string, list, ok bool) {
	if text, ok := e.Metadata[LBNamespace][key]; ok {
		return `"` + text, nil, false, true
	}
	o, ok := e.OtherLabels[key]
	return o.Whole, o.Items, o.List, ok
}

// HasLabel reports whether the endpoint has a label; any says that an element of a list is
// enough (list_as_any). It does not allocate.
func (e *Endpoint) HasLabel(l Label, any bool) bool {
	if text, ok := e.Metadata[LBNamespace][l.Key]; ok {
		return len(l.Value) == len(text)+1 && l.Value[0] == '"' && l.Value[1:] == text
	}
	o, ok := e.OtherLabels[l.Key]
	return ok && (o.Whole == l.Value || any && slices.Contains(o.Items, l.Value))
}
