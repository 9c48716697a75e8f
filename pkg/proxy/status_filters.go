// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
)

// filterCounts appends what the filters have counted on w. On w's loop.
func (p *Proxy) filterCounts(w *worker, dst []filter.Count) []filter.Count {
	if p.options.Filters == nil {
		return dst
	}
	for _, s := range p.options.Filters.All() {
		if s.Counts != nil {
			dst = s.Counts(w.index, dst)
		}
	}
	return dst
}

// filters adds up and shows the counters of filters: cluster.<name>.<family>,
// then what the tags hold.
func (s *sampler) filters(list []filter.Count) {
	type place struct{ scope, name string }
	at := map[place]int{}
	scopes := map[string]*metrics.Scope{}
	for i := range list {
		c := &list[i]
		prefix, tags := statName(c.Scope), []metrics.Tag(nil)
		family := c.Family
		if c.Scope == "" {
			name := statName(c.Cluster)
			prefix, family = "cluster."+name+"."+c.Family, "cluster."+c.Family
			tags = append(tags, metrics.Tag{Name: "envoy_cluster_name", Value: name})
		}
		for _, t := range c.Tags {
			tags = append(tags, metrics.Tag(t))
			if c.Scope == "" {
				prefix += "." + strings.ReplaceAll(t.Value, ":", "_")
			}
		}
		if j, ok := at[place{prefix, c.Name}]; ok {
			s.all[j].Value += c.Value
			continue
		}
		if scopes[prefix] == nil {
			scopes[prefix] = metrics.NewScope(prefix, family, tags...)
		}
		at[place{prefix, c.Name}] = len(s.all)
		s.in(scopes[prefix])
		kind := counter
		if c.Gauge {
			kind = gauge
		}
		s.add(c.Name, c.Help, kind, c.Value)
	}
	s.in(nil)
}
