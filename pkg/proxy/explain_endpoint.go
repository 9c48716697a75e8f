// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// endpointReason says why an endpoint gets requests or gets none, and whether it gets
// some: its health by each judge, its priority, and what its weight is.
func endpointReason(spec *clusterSpec, v *lb.View, h *lb.Host, now int64) (reason string, gets bool) {
	s := hostStatus(h)
	reason = strings.ReplaceAll(strings.TrimPrefix(s.Health.flags(), "/"), "/", ", ")
	p := v.PriorityOf(h)
	panics := p != nil && p.Panic
	switch {
	case p == nil:
		reason += ": left out, as it is in no priority"
	case panics && !h.Healthy():
		gets, reason = true, reason+": tried all the same, as too few are healthy (panic)"
	case panics:
		gets = true
	case h.Degraded() && p.DegradedLoad > 0:
		gets, reason = true, reason+": gets what healthy ones cannot bear"
	case h.Degraded():
		reason += ": left out while enough are healthy"
	case !h.Healthy():
		reason += ": left out while others are healthy"
	case p.HealthyLoad == 0:
		reason += ": left out while priorities before its own have enough healthy ones"
	default:
		gets = true
	}
	if len(v.Priorities()) > 1 && p != nil {
		reason += fmt.Sprintf(", priority %d with %d %% of the requests", p.Level, p.HealthyLoad+p.DegradedLoad)
	}
	if spec.outlier != nil {
		if e, ok := spec.outlier.Ejection(h); ok {
			left := max(0, time.Duration(e.Until-now))
			reason += fmt.Sprintf(", ejected (%s) for another %v, %d times so far", e.Type, left.Round(100*time.Millisecond), e.Times)
		}
	}
	if spec.health != nil {
		if said := spec.health.Explain(h); said != "" {
			reason += ", " + said
		}
	}
	if h.Weight() > 1 {
		reason += fmt.Sprintf(", weight %d", h.Weight())
	}
	if percent, slow := v.SlowStart(h); slow {
		reason += fmt.Sprintf(", slow start: %.3g %% of its weight", percent)
	}
	if l := h.Locality(); l.Zone != "" {
		reason += ", zone " + l.Zone
	}
	return fmt.Sprintf("%s, %d requests under way", reason, max(h.Active.Load(), 0)), gets
}
