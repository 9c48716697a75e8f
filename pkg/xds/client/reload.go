// SPDX-License-Identifier: Apache-2.0

package client

import (
	"reflect"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// Reloaded is what a Reload came to.
type Reloaded struct {
	Added, Changed, Removed int // static resources
	// Fixed are fields of the bootstrap that differ from those in use, and stay as they
	// were: they are read at the start only.
	Fixed []string
}

// Reload puts the static resources of another bootstrap into service, in the place of
// those of the one in use. One that has not changed stays what it is. All else of the
// bootstrap stays as it was at the start; what differs of it is returned. Reload may be
// called by any goroutine, but not from Publish; the resources must not change any more.
func (c *Client) Reload(b *decode.BootstrapConfig) Reloaded {
	c.mu.Lock()
	old := c.cfg.Bootstrap
	r := Reloaded{Fixed: fixedParts(old, b)}
	next := *old
	lists := [...]struct {
		was []*decode.Resource
		is  []*decode.Resource
		out *[]*decode.Resource
	}{
		{old.Clusters, b.Clusters, &next.Clusters},
		{old.Listeners, b.Listeners, &next.Listeners},
		{old.Secrets, b.Secrets, &next.Secrets},
	}
	now := time.Now()
	for _, l := range lists {
		*l.out = c.reloadList(l.was, l.is, now, &r)
	}
	next.Raw = b.Raw
	c.cfg.Bootstrap = &next
	c.dec.OnlyManagers(next.Clusters)
	c.rewant = true
	c.mu.Unlock()
	select {
	case c.given <- struct{}{}:
	default: // it has not looked since the last time
	}
	return r
}

func (c *Client) reloadList(was, is []*decode.Resource, now time.Time, r *Reloaded) []*decode.Resource {
	old := make(map[string]*decode.Resource, len(was))
	for _, w := range was {
		old[w.Name] = w
	}
	out := make([]*decode.Resource, len(is))
	for i, n := range is {
		w := old[n.Name]
		delete(old, n.Name)
		switch {
		case w == nil:
			r.Added++
		case reflect.DeepEqual(w, n):
			out[i] = w
			continue
		default:
			r.Changed++
		}
		out[i] = n
		c.store.put(&entry{kind: n.Kind, name: n.Name, res: n, updated: now, static: true})
	}
	for _, w := range old {
		r.Removed++
		c.store.drop(w.Kind, w.Name)
	}
	return out
}

// fixedParts names what differs between two bootstraps beside their static resources.
func fixedParts(a, b *decode.BootstrapConfig) (names []string) {
	for _, f := range []struct {
		name string
		a, b any
	}{
		{"node", a.Node, b.Node},
		{"dynamic_resources.ads_config", a.ADS, b.ADS},
		{"dynamic_resources.lds_config", a.LDS, b.LDS},
		{"dynamic_resources.cds_config", a.CDS, b.CDS},
		{"layered_runtime", a.Runtime, b.Runtime},
		{"cluster_manager.local_cluster_name", a.LocalCluster, b.LocalCluster},
		{"cluster_manager.outlier_detection.event_log_path", a.EjectionLog, b.EjectionLog},
		{"admin", a.Admin, b.Admin},
		{"stats_flush_interval", a.StatsFlush, b.StatsFlush},
	} {
		if !reflect.DeepEqual(f.a, f.b) {
			names = append(names, f.name)
		}
	}
	return names
}
