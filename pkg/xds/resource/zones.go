// SPDX-License-Identifier: Apache-2.0

package resource

// ZoneAware says how requests stay in the zone of this proxy, where the bootstrap
// names a local cluster.
type ZoneAware struct {
	Enabled        float64 // percent of the requests; default 100
	MinClusterSize uint64  // healthy endpoints of priority 0; default 6
	ForceLocal     bool    // all requests, where the zone has ForceMinSize healthy endpoints
	ForceMinSize   uint32  // default 1
	ByWeight       bool    // capacity by the endpoints' weights, not by their number
}

// DefaultZoneAware holds for clusters that say nothing.
var DefaultZoneAware = ZoneAware{Enabled: 100, MinClusterSize: 6, ForceMinSize: 1}
