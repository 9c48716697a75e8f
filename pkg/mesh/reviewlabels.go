// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// ReasonNoSuchLabels is the reason of conditions about labels that no instance has.
const ReasonNoSuchLabels = "NoSuchLabels"

// maxShownLabels bounds the labels that a message lists.
const maxShownLabels = 8

// labels finds the labels of a backend that no instance of its service has now.
func (s *Status) labels(x *Reviewer, field, service string, labels map[string]string) {
	if len(labels) == 0 || x.m.Services[service] == nil {
		return
	}
	message := x.noSuchLabels(service, labels)
	if message == "" {
		return
	}
	s.noSuchLabels(field, message+"; "+x.withoutSubset(service, labels))
}

func (s *Status) noSuchLabels(field, message string) {
	s.Conditions = append(s.Conditions, Condition{Type: ConditionResolvedRefs, Reason: ReasonNoSuchLabels, Field: field, Message: message})
}

// subsetKeys finds keys and labels of a policy's subsets that no instance has now.
func (s *Status) subsetKeys(x *Reviewer, p *TrafficPolicy) {
	sub, service := p.Spec.Subsets, p.Spec.TargetRef.Name
	if sub == nil || len(x.m.Instances[service]) == 0 {
		return
	}
	there := x.labelKeys(service)
	for i := range sub.Selectors {
		for j, k := range sub.Selectors[i].Keys {
			if slices.Contains(there, k) {
				continue
			}
			message := fmt.Sprintf("no instance of service %q has the label %s now: %s", service, plainOrQuoted(k), listed(there, "there are the labels "))
			if len(there) == 0 {
				message = fmt.Sprintf("no instance of service %q has any label now", service)
			}
			s.noSuchLabels(index(index("spec.subsets.selectors", i)+".keys", j), message+meant(k, there))
		}
	}
	if message := x.noSuchLabels(service, sub.DefaultSubset); len(sub.DefaultSubset) > 0 && message != "" {
		s.noSuchLabels("spec.subsets.defaultSubset", message+"; requests that fall back to it get 503")
	}
}

// NoSuchLabels says that no instance of a service has these labels, which labels there are
// and which of them is nearest; empty where an instance has them.
func (m *Model) NoSuchLabels(service string, labels map[string]string) string {
	list := m.Instances[service]
	if slices.ContainsFunc(list, func(i *Instance) bool { return i.HasLabels(labels) }) {
		return ""
	}
	if len(list) == 0 {
		return fmt.Sprintf("service %q has no instance now, and so none with %s", service, LabelText(labels))
	}
	message := fmt.Sprintf("no instance of service %q has %s now: ", service, LabelText(labels))
	keys := labelKeys(list)
	for _, k := range slices.Sorted(maps.Keys(labels)) { // the first that is nobody's is what is wrong
		if !slices.Contains(keys, k) {
			if len(keys) == 0 {
				return message + "they have no labels at all"
			}
			return message + "none has a label " + plainOrQuoted(k) + listed(keys, ", there are the labels ") + meant(k, keys)
		}
		values := labelValues(list, k)
		if !slices.Contains(values, labels[k]) {
			pairs := make([]string, len(values))
			for i, v := range values {
				pairs[i] = LabelText(map[string]string{k: v})
			}
			near := Nearest(labels[k], values)
			if near != "" {
				near = "; did you mean " + LabelText(map[string]string{k: near}) + "?"
			}
			return message + listed(pairs, "there are ") + near
		}
	}
	// Each is somebody's, and all together nobody's.
	return message + listed(combinations(list, labels), "together there are ")
}

// withoutSubset says what becomes of requests whose subset has no instance.
func (x *Reviewer) withoutSubset(service string, labels map[string]string) string {
	if p := x.policyOf(service); p != nil && p.Spec.Subsets != nil {
		keys := KeySet(slices.Collect(maps.Keys(labels)))
		for i := range p.Spec.Subsets.Selectors {
			x := &p.Spec.Subsets.Selectors[i]
			if KeySet(x.Keys) == keys && x.FallbackPolicy != "" && x.FallbackPolicy != SubsetNoFallback {
				return fmt.Sprintf("its requests go where fallbackPolicy %s of %s says", x.FallbackPolicy, p.Key())
			}
		}
	}
	return "its requests get 503"
}

// labelKeys are the keys of the instances' labels, sorted.
func labelKeys(list []*Instance) []string {
	keys := map[string]bool{}
	for _, i := range list {
		for k := range i.Labels() {
			keys[k] = true
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// Labels are all labels of the instance, by key: a copy.
func (i *Instance) Labels() map[string]string {
	out := make(map[string]string, len(i.Metadata)+2)
	for _, k := range []string{LabelVersion, LabelZone} {
		if v, ok := i.Label(k); ok {
			out[k] = v
		}
	}
	maps.Copy(out, i.Metadata)
	return out
}

func labelValues(list []*Instance, key string) []string {
	values := map[string]bool{}
	for _, i := range list {
		if v, ok := i.Label(key); ok {
			values[v] = true
		}
	}
	return slices.Sorted(maps.Keys(values))
}

// combinations are the labels that instances have of the keys together, as texts.
func combinations(list []*Instance, labels map[string]string) []string {
	out := map[string]bool{}
	for _, i := range list {
		some := map[string]string{}
		for k := range labels {
			if v, ok := i.Label(k); ok {
				some[k] = v
			}
		}
		if len(some) > 0 {
			out["("+LabelText(some)+")"] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// listed is a list for a message, cut where it would be long.
func listed(all []string, before string) string {
	text := make([]string, 0, maxShownLabels)
	for _, s := range all[:min(len(all), maxShownLabels)] {
		text = append(text, clip(s))
	}
	if more := len(all) - len(text); more > 0 {
		return before + strings.Join(text, ", ") + fmt.Sprintf(" and %d more", more)
	}
	return before + strings.Join(text, ", ")
}

func meant(word string, others []string) string {
	if near := Nearest(word, others); near != "" {
		return "; did you mean " + plainOrQuoted(near) + "?"
	}
	return ""
}

// Nearest is the word that another was probably meant to be: the one of the fewest edits, if
// those are a half of it or less, and three at most; empty: there is none.
func Nearest(word string, others []string) string {
	best, bestCost := "", 4
	for _, o := range others {
		cost := editDistance(strings.ToLower(word), strings.ToLower(o), bestCost)
		if cost < bestCost && 2*cost <= max(len(word), len(o)) {
			best, bestCost = o, cost
		}
	}
	return best
}

// LabelText is labels as people are shown them: "a=b, c=d". Different labels have different
// texts, as sessions are bound to them: what could be mistaken is quoted.
func LabelText(labels map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, plainOrQuoted(k)+"="+plainOrQuoted(labels[k]))
	}
	return strings.Join(out, ", ")
}

func plainOrQuoted(s string) string {
	if strings.ContainsAny(s, `,="\`) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// LabelFault is a condition of an object about labels that no instance has now.
type LabelFault struct {
	Object  Key
	Service string // whose instances are meant
	Condition
}

// LabelFaults are those of all routes and policies, by object and field.
func LabelFaults(m *Model) []LabelFault {
	var out []LabelFault
	var s Status
	x := NewReviewer(m)
	take := func(o Object, service string) {
		for _, c := range s.Conditions {
			out = append(out, LabelFault{o.Key(), service, c})
		}
		s.Conditions = nil
	}
	backend := func(o Object, rule, at int, name string, share uint32, labels map[string]string) {
		if share > 0 && len(labels) > 0 {
			s.labels(x, index(index("spec.rules", rule)+".backendRefs", at)+".labels", name, labels)
			take(o, name)
		}
	}
	for _, o := range m.Objects[KindHTTPRoute] {
		if r, ok := o.(*HTTPRoute); ok {
			for i := range r.Spec.Rules {
				for j := range r.Spec.Rules[i].BackendRefs {
					b := &r.Spec.Rules[i].BackendRefs[j]
					backend(o, i, j, b.Name, b.Share(), b.Labels)
				}
			}
		}
	}
	for _, o := range m.Objects[KindGRPCRoute] {
		if r, ok := o.(*GRPCRoute); ok {
			for i := range r.Spec.Rules {
				for j := range r.Spec.Rules[i].BackendRefs {
					b := &r.Spec.Rules[i].BackendRefs[j]
					backend(o, i, j, b.Name, (&HTTPBackendRef{Weight: b.Weight}).Share(), b.Labels)
				}
			}
		}
	}
	for _, o := range m.Objects[KindTrafficPolicy] {
		if p, ok := o.(*TrafficPolicy); ok {
			s.subsetKeys(x, p)
			take(o, p.Spec.TargetRef.Name)
		}
	}
	slices.SortFunc(out, func(a, b LabelFault) int {
		return cmp.Or(cmp.Compare(a.Object.String(), b.Object.String()), cmp.Compare(a.Field, b.Field))
	})
	return out
}
