// SPDX-License-Identifier: Apache-2.0

package proxy

import "github.com/outrigger-mesh/outrigger/pkg/xds/resource"

// statusCounts counts responses by status, each from when it is met: a cluster
// answers with a handful of them, and with fewer than a thousand at worst. The
// zero value is empty. It belongs to one loop.
type statusCounts []statusCount

type statusCount struct {
	status int
	n      uint64
}

// add counts n responses. What is met often comes to be found first.
func (c *statusCounts) add(status int, n uint64) {
	list := *c
	for i := range list {
		if list[i].status != status {
			continue
		}
		list[i].n += n
		if i > 0 && list[i].n > list[i-1].n {
			list[i], list[i-1] = list[i-1], list[i]
		}
		return
	}
	*c = append(list, statusCount{status, n})
}

// merge adds all of o.
func (c *statusCounts) merge(o statusCounts) {
	for _, s := range o {
		c.add(s.status, s.n)
	}
}

// configCounts are the counters of cluster_manager and listener_manager.
type configCounts struct {
	clusterAdded, clusterModified, clusterRemoved                    uint64
	listenerAdded, listenerModified, listenerRemoved, listenerFailed uint64
}

// cluster counts a cluster that was stored over prev. New endpoints alone are no
// modification.
func (c *configCounts) cluster(prev *clusterSpec, res *resource.Cluster) {
	switch {
	case prev == nil:
		c.clusterAdded++
	case prev.given != res:
		c.clusterModified++
	}
}

// listener counts what became of a listener's configuration.
func (c *configCounts) listener(was, res *resource.Listener, err error) {
	switch {
	case err != nil:
		c.listenerFailed++
	case was == nil:
		c.listenerAdded++
	case was != res:
		c.listenerModified++
	}
}

// resource is the listener's configuration; nil of nil.
func (l *listener) resource() *resource.Listener {
	if l == nil {
		return nil
	}
	return l.config.Load().res
}

func (p *Proxy) configSamples(s *sampler) {
	p.mu.Lock()
	c := p.counts
	p.mu.Unlock()
	s.add("cluster_manager.cluster_added", "Clusters added.", counter, c.clusterAdded)
	s.add("cluster_manager.cluster_modified", "Clusters changed, but for their endpoints.", counter, c.clusterModified)
	s.add("cluster_manager.cluster_removed", "Clusters removed.", counter, c.clusterRemoved)
	s.add("listener_manager.listener_added", "Listeners added.", counter, c.listenerAdded)
	s.add("listener_manager.listener_modified", "Listeners changed.", counter, c.listenerModified)
	s.add("listener_manager.listener_removed", "Listeners removed.", counter, c.listenerRemoved)
	s.add("listener_manager.listener_create_failure", "Listeners that could not be opened or updated.", counter, c.listenerFailed)
}
