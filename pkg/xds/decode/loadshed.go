// SPDX-License-Identifier: Apache-2.0

package decode

import (
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// loadShedPoints reads the load-shed points of an overload manager, whose place is p.
func (j *job) loadShedPoints(list []*overloadv3.LoadShedPoint, monitors map[string]bool, p *place) (out []resource.LoadShedPoint) {
	var seen [resource.LoadShedPoints]bool
	for i, m := range list {
		at := p.item("loadshed_points", i)
		kind, ok := resource.LoadShedPointByName(m.GetName())
		if !ok {
			j.fail(at.field("name"), "unsupported load-shed point %q", clip(m.GetName(), 100))
			continue
		}
		j.only(seen[kind], at.field("name"), "is that of another point")
		seen[kind] = true
		out = append(out, resource.LoadShedPoint{Kind: kind, Triggers: j.overloadTriggers(m.GetTriggers(), monitors, at)})
	}
	return out
}
