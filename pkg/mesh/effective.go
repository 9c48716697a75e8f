// SPDX-License-Identifier: Apache-2.0

package mesh

// PolicyOf is the policy in force for a service, or nil: the oldest wins.
func (m *Model) PolicyOf(service string) *TrafficPolicy {
	var best *TrafficPolicy
	for _, o := range m.Objects[KindTrafficPolicy] {
		p, ok := o.(*TrafficPolicy)
		if ok && p.Spec.TargetRef.Name == service && (best == nil || compareAge(p.Head(), best.Head()) < 0) {
			best = p
		}
	}
	return best
}

// PoliciesOf lists the policies of a service, the oldest first: that one alone is in
// force.
func (m *Model) PoliciesOf(service string) []*TrafficPolicy {
	var out []*TrafficPolicy
	for _, p := range Ordered[*TrafficPolicy](m, KindTrafficPolicy) {
		if p.Spec.TargetRef.Name == service {
			out = append(out, p)
		}
	}
	return out
}

// TelemetryOf is what is in force for a service: its own Telemetry laid over the
// mesh-wide one, part by part. A part that nobody says is nil.
func (m *Model) TelemetryOf(service string) TelemetrySpec {
	var out TelemetrySpec
	whole, own := m.telemetry(""), m.telemetry(service)
	for _, t := range []*Telemetry{whole, own} {
		if t == nil {
			continue
		}
		if t.Spec.AccessLog != nil {
			out.AccessLog = t.Spec.AccessLog
		}
		if tr := t.Spec.Tracing; tr != nil {
			out.Tracing = out.Tracing.overlaid(tr)
		}
	}
	return out
}

func (t *Tracing) overlaid(by *Tracing) *Tracing {
	var out Tracing
	if t != nil {
		out = *t
	}
	if by.Sampling != nil {
		out.Sampling = by.Sampling
	}
	if by.Propagation != nil {
		out.Propagation = by.Propagation
	}
	if by.Exporters != nil {
		out.Exporters = by.Exporters
	}
	return &out
}

// telemetry is the oldest one of a scope; the empty scope is the whole mesh.
func (m *Model) telemetry(scope string) *Telemetry {
	var best *Telemetry
	for _, o := range m.Objects[KindTelemetry] {
		t, ok := o.(*Telemetry)
		if ok && t.scope() == scope && (best == nil || compareAge(t.Head(), best.Head()) < 0) {
			best = t
		}
	}
	return best
}

func (t *Telemetry) scope() string {
	if t.Spec.TargetRef == nil {
		return ""
	}
	return t.Spec.TargetRef.Name
}
