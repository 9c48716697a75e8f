// SPDX-License-Identifier: Apache-2.0

package mesh

import "slices"

// Concerns are the services that an object is about: itself, its target or parents, and
// those that it sends to, sorted. Of what is for the whole mesh there are none.
func Concerns(o Object) []string {
	var out []string
	add := func(names ...string) { out = append(out, names...) }
	rules := func(list []HTTPRule) {
		for i := range list {
			for _, b := range list[i].BackendRefs {
				add(b.Name)
			}
			for _, f := range list[i].Filters {
				if f.RequestMirror != nil {
					add(f.RequestMirror.BackendRef.Name)
				}
			}
		}
	}
	streams := func(list []StreamRule) {
		for i := range list {
			for _, b := range list[i].BackendRefs {
				add(b.Name)
			}
		}
	}
	if r, ok := o.(Route); ok {
		for _, p := range r.Parents() {
			add(p.Name)
		}
	}
	switch x := o.(type) {
	case *Service:
		add(x.Metadata.Name)
	case *HTTPRoute:
		rules(x.Spec.Rules)
	case *GRPCRoute:
		rules(x.HTTP().Spec.Rules)
	case *TLSRoute:
		streams(x.Spec.Rules)
	case *TCPRoute:
		streams(x.Spec.Rules)
	case *TrafficPolicy:
		add(x.Spec.TargetRef.Name)
		if fb := x.Spec.Fallback; fb != nil && fb.Service != "" {
			add(fb.Service)
		}
	case *Telemetry:
		if x.Spec.TargetRef != nil {
			add(x.Spec.TargetRef.Name)
		}
	case *Tap:
		add(x.Spec.TargetRef.Name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
