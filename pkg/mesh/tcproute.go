// SPDX-License-Identifier: Apache-2.0

package mesh

// TCPRoute is the Gateway API's kind of that name, attached to a Service: where
// connections to a port of protocol tcp, or tls, go. Without one they go to the
// service itself. Source: gateway.networking.k8s.io TCPRoute, GAMMA for parentRefs.
type TCPRoute struct {
	Header
	Spec TCPRouteSpec `json:"spec" rule:"required" doc:"Parents and the rule."`
}

// TCPRouteSpec is the route's body. Nothing tells connections apart, so there is one rule.
type TCPRouteSpec struct {
	ParentRefs []ParentRef  `json:"parentRefs" rule:"required,minitems=1,maxitems=32" doc:"Services whose connections the route handles."`
	Rules      []StreamRule `json:"rules" rule:"required,minitems=1,maxitems=1" doc:"One rule."`
}

// StreamRule sends connections to its backends.
type StreamRule struct {
	Name        string             `json:"name,omitempty" rule:"maxlen=253" doc:"Name of the rule."`
	BackendRefs []StreamBackendRef `json:"backendRefs" rule:"required,minitems=1,maxitems=16" doc:"Where connections go, by weight."`
}

// StreamBackendRef is one destination with its share of the connections.
type StreamBackendRef struct {
	Group     string  `json:"group,omitempty" rule:"enum=outrigger.io" doc:"Group of the backend; outrigger.io."`
	Kind      string  `json:"kind,omitempty" rule:"enum=Service" doc:"Kind of the backend; Service."`
	Name      string  `json:"name" rule:"required,maxlen=253" doc:"Name of the service."`
	Namespace string  `json:"namespace,omitempty" rule:"enum=default" doc:"Only \"default\"."`
	Port      uint16  `json:"port,omitempty" rule:"min=1" doc:"Port of the service; informative, instances say their own."`
	Weight    *uint32 `json:"weight,omitempty" rule:"max=1000000" doc:"Share relative to the others; 1 when empty, 0 takes no connections."`
}

// Share is the weight with its default.
func (b *StreamBackendRef) Share() uint32 {
	if b.Weight == nil {
		return 1
	}
	return *b.Weight
}

// Parents lists the services that the route is attached to.
func (r *TCPRoute) Parents() []ParentRef { return r.Spec.ParentRefs }

func (r *TCPRoute) check(f *faults) {
	checkObjectName(f, r.Metadata.Name)
	checkParents(f, r.Spec.ParentRefs)
	checkStreamRules(f, r.Spec.Rules)
}

func checkStreamRules(f *faults, rules []StreamRule) {
	for i := range rules {
		at := index("spec.rules", i) + ".backendRefs"
		seen, total := map[string]bool{}, uint64(0)
		for j := range rules[i].BackendRefs {
			b := &rules[i].BackendRefs[j]
			checkServiceName(f, index(at, j)+".name", b.Name)
			if seen[b.Name] {
				f.add(index(at, j)+".name", "backend %q is listed twice", clip(b.Name))
			}
			seen[b.Name] = true
			total += uint64(b.Share())
		}
		if total == 0 && len(rules[i].BackendRefs) > 0 {
			f.add(at, "every weight is 0: no backend takes connections")
		}
	}
}
