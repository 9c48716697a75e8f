// SPDX-License-Identifier: Apache-2.0

package mesh

// TLSRoute is the Gateway API's kind of that name (v1), attached to a Service:
// where TLS connections to a port of protocol tls go, by the server name that
// clients ask for. TLS is passed through; nothing of it is decrypted.
// Source: gateway.networking.k8s.io/v1 TLSRoute, GAMMA for parentRefs.
type TLSRoute struct {
	Header
	Spec TLSRouteSpec `json:"spec" rule:"required" doc:"Parents, server names and the rule."`
}

// TLSRouteSpec is the route's body.
type TLSRouteSpec struct {
	ParentRefs []ParentRef  `json:"parentRefs" rule:"required,minitems=1,maxitems=32" doc:"Services whose connections the route handles."`
	Hostnames  []string     `json:"hostnames" rule:"required,minitems=1,maxitems=16" doc:"Server names (SNI) that the route takes; *.example.com takes every name below it."`
	Rules      []StreamRule `json:"rules" rule:"required,minitems=1,maxitems=1" doc:"One rule."`
}

// Parents lists the services that the route is attached to.
func (r *TLSRoute) Parents() []ParentRef { return r.Spec.ParentRefs }

func (r *TLSRoute) check(f *faults) {
	checkObjectName(f, r.Metadata.Name)
	checkParents(f, r.Spec.ParentRefs)
	checkHostnames(f, r.Spec.Hostnames)
	checkStreamRules(f, r.Spec.Rules)
}
