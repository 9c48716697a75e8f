// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"encoding/binary"
	"math/bits"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// MaxCriteria is the most labels that criteria have; others are not looked at.
const MaxCriteria = 64

// Criteria are the labels that a route asks of endpoints, with the key of their
// subset made in advance. They are immutable and shared by all loops.
type Criteria struct {
	labels []resource.Label
	key    string
	// Of those with a fallback list: the criteria without it, and with each of its
	// entries.
	plain     *Criteria
	overrides []*Criteria
}

// NewCriteria makes the criteria of a route; nil for nil.
func NewCriteria(m *resource.MetadataMatch) *Criteria {
	if m == nil {
		return nil
	}
	c := newCriteria(m.Labels)
	for i, l := range m.Labels {
		if l.Key != resource.FallbackListKey {
			continue
		}
		rest := append(append([]resource.Label(nil), m.Labels[:i]...), m.Labels[i+1:]...)
		c.plain = newCriteria(rest)
		for _, o := range m.Overrides {
			c.overrides = append(c.overrides, newCriteria(resource.MergeLabels(rest, o)))
		}
	}
	return c
}

func newCriteria(labels []resource.Label) *Criteria {
	labels = labels[:min(len(labels), MaxCriteria)]
	c := &Criteria{labels: labels}
	c.key = string(c.appendKey(nil, c.all()))
	return c
}

// mask says which of the labels count.
type mask uint64

func (c *Criteria) all() mask {
	if len(c.labels) == 0 {
		return 0
	}
	return ^mask(0) >> (64 - len(c.labels))
}

// appendKey appends the key of the subset of some of the labels.
func (c *Criteria) appendKey(b []byte, m mask) []byte {
	for ; m != 0; m &= m - 1 {
		l := &c.labels[bits.TrailingZeros64(uint64(m))]
		b = appendLabel(b, l.Key, l.Value)
	}
	return b
}

// appendLabel appends what tells a label from all others, whatever it contains.
func appendLabel(b []byte, key, value string) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

// only leaves of m the labels of the keys, which ascend as labels do; ok reports
// whether there is one for each.
func (c *Criteria) only(m mask, keys []string) (some mask, ok bool) {
	k := 0
	for ; m != 0 && k < len(keys); m &= m - 1 {
		i := bits.TrailingZeros64(uint64(m))
		for k < len(keys) && keys[k] < c.labels[i].Key {
			k++
		}
		if k < len(keys) && keys[k] == c.labels[i].Key {
			some |= 1 << i
			k++
		}
	}
	return some, bits.OnesCount64(uint64(some)) == len(keys)
}

// selector finds the selector whose keys are exactly the labels'; nil for none.
func (c *Criteria) selector(list []resource.SubsetSelector, m mask) *resource.SubsetSelector {
	n := bits.OnesCount64(uint64(m))
	for i := range list {
		if len(list[i].Keys) != n {
			continue
		}
		if _, ok := c.only(m, list[i].Keys); ok {
			return &list[i]
		}
	}
	return nil
}
