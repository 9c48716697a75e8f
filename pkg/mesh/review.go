// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
)

// Condition types of a Status, in the Gateway API's words.
const (
	ConditionAccepted     = "Accepted"
	ConditionResolvedRefs = "ResolvedRefs"
	ConditionConflicted   = "Conflicted"
)

// Condition is one thing that is so, or not, about an object.
type Condition struct {
	Type   string `json:"type"`
	Status bool   `json:"status"`
	Reason string `json:"reason"`
	Field  string `json:"field,omitempty"`
	// Message says it in a sentence.
	Message string `json:"message,omitempty"`
}

// Status is what the control plane says of an object.
type Status struct {
	Accepted   bool        `json:"accepted"`
	Conditions []Condition `json:"conditions,omitzero"`
}

// Warnings are the conditions that people want to hear of, as "field: message".
func (s *Status) Warnings() []string {
	var out []string
	for i := range s.Conditions {
		if w := s.Conditions[i].Warning(); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// Warning is the condition as "field: message"; empty where all is well.
func (c *Condition) Warning() string {
	switch {
	case c.Message == "":
		return ""
	case c.Field == "":
		return c.Message
	}
	return c.Field + ": " + c.Message
}

// Review is that of a Reviewer that is used once.
func Review(m *Model, o Object) Status { return NewReviewer(m).Review(o) }

func (s *Status) object(x *Reviewer, o Object) {
	switch o := o.(type) {
	case *HTTPRoute:
		s.httpRoute(x, o)
	case *GRPCRoute:
		s.grpcRoute(x, o)
	case *TLSRoute:
		s.tlsRoute(x, o)
	case *TCPRoute:
		s.tcpRoute(x, o)
	case *TrafficPolicy:
		s.service(x.m, "spec.targetRef.name", o.Spec.TargetRef.Name)
		if fb := o.Spec.Fallback; fb != nil && fb.Service != "" {
			s.service(x.m, "spec.fallback.service", fb.Service)
		}
		s.subsetKeys(x, o)
		sameTarget(s, o, slices.Values(x.policiesOf(o.Spec.TargetRef.Name)), "spec.targetRef")
	case *Telemetry:
		if o.Spec.TargetRef != nil {
			s.service(x.m, "spec.targetRef.name", o.Spec.TargetRef.Name)
		}
		sameTarget(s, o, slices.Values(x.telemetriesOf(o.scope())), "spec.targetRef")
	case *Tap:
		s.service(x.m, "spec.targetRef.name", o.Spec.TargetRef.Name)
	}
}

// sameTarget marks an object whose whole effect an older one already has, and names those
// that have no effect beside it. others have its target, the oldest first.
func sameTarget[T Object](s *Status, o Object, others iter.Seq[T], field string) {
	for other := range others {
		switch age := compareAge(other.Head(), o.Head()); {
		case !s.Accepted:
			return
		case other.Key() == o.Key():
		case age < 0:
			s.Accepted = false
			s.Conditions = append(s.Conditions, Condition{
				Type: ConditionAccepted, Reason: "Conflicted", Field: field,
				Message: fmt.Sprintf("%s has the same target and is older: it stays in force", other.Key()),
			})
		case !s.contest(field, fmt.Sprintf("%s has the same target and is younger: it is not in force", other.Key())):
			return
		}
	}
}

func (s *Status) service(m *Model, field, name string) {
	message := fmt.Sprintf("no service %q is declared and no instance of it has registered", name)
	said := slices.ContainsFunc(s.Conditions, func(c Condition) bool { return c.Message == message })
	if m.Services[name] != nil || said {
		return
	}
	s.Conditions = append(s.Conditions, Condition{Type: ConditionResolvedRefs, Reason: "BackendNotFound", Field: field, Message: message})
}

func (s *Status) port(m *Model, field, name string, port uint16) {
	svc := m.Services[name]
	if port == 0 || svc == nil || len(svc.Spec.Ports) == 0 {
		return
	}
	if !slices.ContainsFunc(svc.Spec.Ports, func(p Port) bool { return p.Port == port }) {
		s.Conditions = append(s.Conditions, Condition{
			Type: ConditionResolvedRefs, Reason: "PortNotFound", Field: field,
			Message: fmt.Sprintf("service %q lists no port %d", name, port),
		})
	}
}

// identities are the rule's matches in a form that compares.
func (r *HTTPRule) identities() []string {
	matches := r.Matches
	if len(matches) == 0 {
		matches = []HTTPMatch{{}}
	}
	out := make([]string, len(matches))
	for i, x := range matches {
		x.Path = &PathMatch{Type: x.Path.Kind(), Value: x.Path.Text()}
		text, err := json.Marshal(x)
		if err != nil {
			continue // a match of plain strings always marshals
		}
		out[i] = string(text)
	}
	return out
}
