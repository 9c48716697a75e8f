// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding/json"
	"fmt"
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

// Review looks at an object among the others of a model. It never refuses: a
// backend may register later, and of two objects in conflict the older one is in
// force. What it finds is the object's status.
func Review(m *Model, o Object) Status {
	s := Status{Accepted: true}
	switch x := o.(type) {
	case *HTTPRoute:
		s.httpRoute(m, x)
	case *GRPCRoute:
		s.grpcRoute(m, x)
	case *TLSRoute:
		s.tlsRoute(m, x)
	case *TCPRoute:
		s.tcpRoute(m, x)
	case *TrafficPolicy:
		s.service(m, "spec.targetRef.name", x.Spec.TargetRef.Name)
		if fb := x.Spec.Fallback; fb != nil && fb.Service != "" {
			s.service(m, "spec.fallback.service", fb.Service)
		}
		s.subsetKeys(m, x)
		for _, other := range Ordered[*TrafficPolicy](m, KindTrafficPolicy) {
			if other.Spec.TargetRef.Name == x.Spec.TargetRef.Name {
				s.older(o, other, "spec.targetRef")
				s.younger(o, other, "spec.targetRef")
			}
		}
	case *Telemetry:
		if x.Spec.TargetRef != nil {
			s.service(m, "spec.targetRef.name", x.Spec.TargetRef.Name)
		}
		for _, other := range Ordered[*Telemetry](m, KindTelemetry) {
			if other.scope() == x.scope() {
				s.older(o, other, "spec.targetRef")
				s.younger(o, other, "spec.targetRef")
			}
		}
	case *Tap:
		s.service(m, "spec.targetRef.name", x.Spec.TargetRef.Name)
	}
	if s.Accepted {
		s.Conditions = append([]Condition{{Type: ConditionAccepted, Status: true, Reason: "Accepted"}}, s.Conditions...)
	}
	return s
}

// older marks an object whose whole effect an older one already has.
func (s *Status) older(o, other Object, field string) {
	if !s.Accepted || other.Key() == o.Key() || compareAge(other.Head(), o.Head()) >= 0 {
		return
	}
	s.Accepted = false
	s.Conditions = append(s.Conditions, Condition{
		Type: ConditionAccepted, Reason: "Conflicted", Field: field,
		Message: fmt.Sprintf("%s has the same target and is older: it stays in force", other.Key()),
	})
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
