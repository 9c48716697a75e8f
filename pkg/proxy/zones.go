// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// zones keeps all clusters told of the members of the local cluster
// (local_cluster_name), for routing by zone. Off the loops only.
type zones struct {
	mu   sync.Mutex
	view *lb.View // of the local cluster, that zones were made of
	now  *lb.Zones
}

// refreshZones gives the clusters the zones as they are now. Apply calls it when
// there may be new clusters, and the maintenance tick where the health of the local
// cluster may have changed.
func (p *Proxy) refreshZones(clusters bool) {
	if p.options.LocalCluster == "" {
		return
	}
	p.zones.mu.Lock()
	defer p.zones.mu.Unlock()
	list := *p.clusters.Load()
	var view *lb.View
	for _, c := range list {
		if s := c.spec.Load(); s != nil && c.name == p.options.LocalCluster {
			view = s.lb.View()
		}
	}
	if view == nil || view == p.zones.view && !clusters {
		return
	}
	if view != p.zones.view {
		p.zones.view = view
		if z := lb.NewZones(p.options.Locality, view); !z.Equal(p.zones.now) {
			p.zones.now, clusters = z, true
		}
	}
	if !clusters {
		return
	}
	for _, c := range list {
		if s := c.spec.Load(); s != nil {
			s.lb.SetZones(p.zones.now)
		}
	}
}

// zones shows how a cluster is routed to by zone, where there is a local cluster.
func (s *sampler) zones(spec *clusterSpec) {
	st := spec.lb.View().ZoneStats()
	if !st.On {
		return
	}
	s.add("lb_recalculate_zone_structures", "Times that routes by zone were worked out.", counter, st.Recalculated)
	s.add("lb_zone_cluster_too_small", "Times that there was no routing by zone as the cluster has too few endpoints.", counter, st.TooSmall)
	s.add("lb_local_cluster_not_ok", "Times that there was no routing by zone as the local cluster has no member in this zone, or too few that are healthy.", counter, st.LocalNotOK)
}
