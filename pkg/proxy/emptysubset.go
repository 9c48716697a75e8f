// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// maxSubsetText bounds the labels that details name, in bytes.
const maxSubsetText = 256

// criteria are what a route asks of endpoints, with what is said where none has it, made
// before it is needed: the details of Envoy's failure, and the labels behind them.
type criteria struct {
	lb      *lb.Criteria // nil: it asks nothing
	text    string       // the labels as people are shown them
	keys    []string     // of the labels
	nowhere *failure     // of requests whose subset has no endpoint; nil with lb
}

// noCriteria ask nothing. Nobody changes them.
var noCriteria criteria

func newCriteria(m *resource.MetadataMatch) criteria {
	if m == nil {
		return criteria{}
	}
	c := criteria{lb: lb.NewCriteria(m), text: labelText(m)}
	for _, l := range m.Labels {
		c.keys = append(c.keys, l.Key)
	}
	f := failureNoHealthy
	f.Details += "{empty_subset:" + strings.Map(unspaced, c.text) + "}"
	c.nowhere = &f
	return c
}

// labelText is "a=b,c=d", cut where it is long.
func labelText(m *resource.MetadataMatch) string {
	var b strings.Builder
	for _, l := range m.Labels {
		if l.Key == resource.FallbackListKey {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(",")
		}
		b.WriteString(l.Key + "=" + strings.TrimPrefix(l.Value, `"`))
		if b.Len() > maxSubsetText {
			return strings.ToValidUTF8(b.String()[:maxSubsetText], "") + "…"
		}
	}
	return b.String()
}

// has says which values an endpoint has of the keys, for explanations.
func (c *criteria) has(h *lb.Host) string {
	var out []string
	for _, k := range c.keys {
		if v, ok := h.Metadata()[resource.LBNamespace][k]; ok {
			out = append(out, k+"="+v)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ", it has " + strings.Join(out, ",")
}

// unspaced keeps details one word, as Envoy does.
func unspaced(r rune) rune {
	if r <= ' ' || r >= 0x7f && r <= 0xa0 {
		return '_'
	}
	return r
}

// noHealthy is the failure of a request that no endpoint could be picked for.
func (x *exchange) noHealthy() *failure {
	if c := x.criteria(); c.nowhere != nil && x.on.req.Subset == lb.SubsetMissing && x.on.spec.res.LB.Subsets != nil {
		return c.nowhere
	}
	return &failureNoHealthy
}
