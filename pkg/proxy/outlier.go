// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// seenHosts are a worker's counts of a cluster's hosts for outlier detection. They
// are kept only where something asks for them.
type seenHosts struct {
	by      *breaker.Outlier // whose tallies these are
	tallies map[*lb.Host]*breaker.Tally
}

// tally is the worker's own of the host where rates are measured, else nil.
func (on *clusterOn) tally(h *lb.Host) *breaker.Tally {
	if o := on.spec.outlier; o == nil || !o.Measures() {
		return nil
	}
	return on.tallyOf(h)
}

// tallyOf is the worker's own of the host, nil once the host has left. It is for
// clusters with outlier detection.
func (on *clusterOn) tallyOf(h *lb.Host) *breaker.Tally {
	o, s := on.spec.outlier, &on.seen
	if s.by != o {
		*s = seenHosts{by: o, tallies: map[*lb.Host]*breaker.Tally{}}
	}
	t := s.tallies[h]
	if t == nil && !h.Gone() {
		t = o.Tally(h)
		s.tallies[h] = t
	}
	return t
}

// forget drops the hosts that have left the cluster.
func (s *seenHosts) forget() {
	for h := range s.tallies {
		if h.Gone() {
			delete(s.tallies, h)
		}
	}
}
