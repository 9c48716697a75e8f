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
	// untold: clusters have joined that do not know them, or they have changed.
	untold bool
}

// refreshZones gives the clusters the zones as they are now. Apply calls it with the
// clusters that are new, and the maintenance tick with none, as the health of the local
// cluster may have changed.
func (p *Proxy) refreshZones(joined []*cluster) {
	if p.options.LocalCluster == "" {
		return
	}
	z := &p.zones
	z.mu.Lock()
	defer z.mu.Unlock()
	var view *lb.View
	if c := (*p.workers[0].byName.Load())[p.options.LocalCluster]; c != nil {
		if s := c.spec.Load(); s != nil {
			view = s.lb.View()
		}
	}
	if view == nil {
		z.untold = true // those that join now
		return
	}
	if view != z.view {
		z.view = view
		if now := lb.NewZones(p.options.Locality, view); !now.Equal(z.now) {
			z.now, z.untold = now, true
		}
	}
	if z.untold {
		joined, z.untold = *p.clusters.Load(), false
	}
	for _, c := range joined {
		if s := c.spec.Load(); s != nil {
			s.lb.SetZones(z.now)
			p.awake.wake(c)
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
