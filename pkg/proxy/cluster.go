// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"hash/fnv"
	"io"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/health"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// cluster is the place of a cluster by name, process-wide: routes point to it
// whether the cluster is there or not, and an update is one store of spec.
type cluster struct {
	name string
	spec atomic.Pointer[clusterSpec]  // nil: not configured (NC)
	tls  atomic.Pointer[[]*transport] // nil: plaintext; see transports
	// members are those of an aggregate cluster, in their order; nil: it is none.
	members atomic.Pointer[[]*cluster]
	// settings of TLS that it has now or had lately, so that what comes back is the same
	// pointer; off the loops only.
	settings []*resource.UpstreamTLS
	// lastUse is the monotonic time of the last merge of a worker's counts: the
	// maintenance goroutine looks at clusters in use only.
	lastUse atomic.Int64
	used    atomic.Bool  // it has had a connection
	watch   clusterWatch // of the merge tick
	awake   atomic.Bool  // in proxy.awake
	below   *cluster     // in the stack there; of who made it awake, then of the tick
}

// clusterSpec is a cluster's settings with the state that must be exact over
// workers. The state is carried over from spec to spec.
type clusterSpec struct {
	given    *resource.Cluster // by configuration
	res      *resource.Cluster // what is given, with the runtime's values
	assigned *resource.Assignment
	lb       *lb.Cluster
	limits   *breaker.Limits  // of the default routing priority, with those of the high one
	circuit  *breaker.Circuit // nil: no breaker configured
	outlier  *breaker.Outlier // nil: no outlier detection
	health   *health.Cluster  // nil: no active health checks
	changes  uint64           // of the members, so far
	bind     netip.Addr       // source address, invalid for any
}

// newSpec makes the spec that follows prev (nil for the first).
func newSpec(prev *clusterSpec, res *resource.Cluster, a *resource.Assignment, log *breaker.EventLog, seed uint64) *clusterSpec {
	s := &clusterSpec{res: res, assigned: a}
	s.bind, _ = netip.ParseAddr(res.BindAddress) // checked by decode
	if prev == nil {
		s.lb = new(lb.Cluster)
		s.limits = breaker.NewLimits(res.Default)
		s.limits.SetHigh(&res.High)
	} else {
		s.lb, s.limits, s.circuit, s.outlier, s.health, s.changes = prev.lb, prev.limits, prev.circuit, prev.outlier, prev.health, prev.changes
		if prev.res != res {
			s.limits.Update(res.Default)
			s.limits.SetHigh(&res.High)
		}
	}
	if prev == nil || prev.res != res || prev.assigned != a {
		before := s.lb.View()
		s.lb.Update(res, a)
		if before == nil || !slices.Equal(before.Hosts(), s.lb.View().Hosts()) {
			s.changes++
		}
	}
	s.updateBreaker(res)
	s.updateOutlier(res, log, seed)
	return s
}

func (s *clusterSpec) updateBreaker(res *resource.Cluster) {
	switch {
	case res.Breaker == nil || !res.Breaker.Enabled:
		s.circuit = nil
	case s.circuit == nil:
		s.circuit = breaker.NewCircuit(res.Name, res.Breaker)
		s.circuit.Watch(s.limits)
	default:
		s.circuit.Update(res.Breaker)
	}
}

func (s *clusterSpec) updateOutlier(res *resource.Cluster, log *breaker.EventLog, seed uint64) {
	switch {
	case res.Outlier == nil:
		if s.outlier != nil {
			s.outlier.Update(nil) // takes back what is ejected
		}
		s.outlier = nil
	case s.outlier == nil:
		hosts := s.lb
		s.outlier = breaker.NewOutlier(res.Name, res.Outlier, breaker.Members{
			Each: func(f func(breaker.Host)) {
				for _, h := range hosts.View().Hosts() {
					f(h)
				}
			},
			Changed: hosts.HealthChanged,
		}, log, seed)
	default:
		s.outlier.Update(res.Outlier)
	}
}

// priority picks the limits of a routing priority.
func (s *clusterSpec) priority(high bool) *breaker.Limits {
	if high {
		return s.limits.High()
	}
	return s.limits
}

// dialsAs reports whether a connection from that address may be one to the cluster's
// endpoints.
func (s *clusterSpec) dialsAs(from netip.AddrPort) bool {
	return !s.bind.IsValid() || s.bind.IsUnspecified() || s.bind.Unmap() == from.Addr().Unmap()
}

// dialOptions are what connections to the cluster's endpoints are made with.
func (s *clusterSpec) dialOptions() reactor.DialOptions {
	var o reactor.DialOptions
	if s.res.TCPKeepAlive {
		o.KeepAlive.Idle = s.res.KeepAliveTime
		if o.KeepAlive.Idle == 0 {
			o.KeepAlive.Idle = 2 * time.Hour
		}
	}
	if s.bind.IsValid() {
		o.Local = reactor.TCPAddr(netip.AddrPortFrom(s.bind, 0))
	}
	return o
}

// hashOf tells names apart where random numbers are drawn.
func hashOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name) // it never fails
	return h.Sum64()
}
