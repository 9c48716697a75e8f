// SPDX-License-Identifier: Apache-2.0

package client

import (
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// joins reports whether a cluster's endpoints are those of others (an aggregate).
func joins(e *entry) bool {
	return slices.ContainsFunc(e.res.Refs, func(r decode.Ref) bool { return r.Kind == decode.Cluster })
}

// aggregates takes those of the clusters, all of them aggregates and none in use, into use
// whose members are. Members may be aggregates of this list; those that wait for each other
// wait until the time is up, as for any cluster that never comes. It returns those that wait.
func (a *assembler) aggregates(list []*entry) []*entry {
	active := a.active[decode.Cluster]
	for more := true; more; {
		more = false
		list = slices.DeleteFunc(list, func(e *entry) bool {
			for i := range e.res.Refs {
				ref := &e.res.Refs[i]
				if ref.Kind == decode.Cluster && active[ref.Name] == nil && a.missing(need{decode.Cluster, ref.Name}, defaultHold) {
					return false
				}
			}
			active[e.name], more = e, true
			return true
		})
	}
	return list
}
