// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// Check builds what an object becomes, as publishing it would, and answers
// mesh.Errors if it cannot be published. m is the model with the object in it.
// Nothing is published.
func Check(m *mesh.Model, o mesh.Object, now time.Time) error {
	in := input{index: encode.NewIndex(m), group: Group{Kind: KindMesh}, now: now}
	var recipes []recipe
	add := func(list []recipe, name string) {
		for _, r := range list {
			if r.name == name {
				recipes = append(recipes, r)
			}
		}
	}
	switch x := o.(type) {
	case *mesh.Service:
		add(endpoints(in), encode.OutboundCluster(x.Metadata.Name))
		recipes = append(recipes, routes(in)...)
		in.group = probe(x.Metadata.Name)
		recipes = append(recipes, listeners(in)...)
	case *mesh.HTTPRoute, *mesh.GRPCRoute:
		recipes = routes(in)
	case *mesh.TLSRoute, *mesh.TCPRoute:
		recipes = routes(in)
		in.group = probe("any")
		recipes = append(recipes, listeners(in)...)
	case *mesh.TrafficPolicy:
		if end := x.PermissiveUntil(); end.Sub(now) > mesh.MaxPermissive {
			return mesh.Errors{fault(o, "spec.tls.until: is more than 90 days away")}
		}
		add(clusters(in), encode.OutboundCluster(x.Spec.TargetRef.Name))
		recipes = append(recipes, routes(in)...)
	case *mesh.Telemetry:
		service := "any"
		if x.Spec.TargetRef != nil {
			service = x.Spec.TargetRef.Name
		}
		in.group = probe(service)
		recipes = listeners(in)
	case *mesh.Tap:
		in.group = probe(x.Spec.TargetRef.Name)
		recipes = listeners(in)
	}
	var errs mesh.Errors
	for _, r := range recipes {
		_, problems, err := r.make()
		for _, p := range problems {
			if p.Object == o.Key() {
				errs = append(errs, fault(o, p.Reason))
			}
		}
		if err != nil {
			errs = append(errs, fault(o, err.Error()))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// probe is a sidecar of a service that does not need to exist.
func probe(service string) Group {
	return Group{Kind: KindSidecar, Service: service, Inbound: "127.0.0.1:15006", Outbound: defaultOutbound, App: "127.0.0.1:8080"}
}

// fault splits "spec.rules[0]: why" into field and reason.
func fault(o mesh.Object, reason string) *mesh.FieldError {
	e := &mesh.FieldError{Object: o.Key().String(), Reason: reason}
	if field, rest, ok := strings.Cut(reason, ": "); ok && strings.HasPrefix(field, "spec.") {
		e.Path, e.Reason = field, rest
	}
	return e
}
