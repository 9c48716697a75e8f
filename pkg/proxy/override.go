// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// overriding returns the endpoint that a filter has named for the first attempt; nil
// where the request is to be balanced. It fails where that one is asked for
// strictly and cannot be had.
func (x *exchange) overriding() (*lb.Host, filter.Verdict) {
	o := &x.Override
	if x.on.originals != nil {
		return nil, filter.Next
	}
	v := x.on.spec.lb.View()
	if !x.overrides() {
		return x.named(v), filter.Next
	}
	h := v.Find(o.Address)
	switch {
	case h != nil && v.MayOverride(h) && !x.strays(v, h):
		return h, filter.Next
	case !o.Strict:
		return x.named(v), filter.Next
	}
	x.on.stats.noneHealthy++
	f := &failureNoHealthy
	if h == nil && o.NotFound != 0 {
		f = notFound(o.NotFound)
	}
	return nil, x.attemptFailed(x.main, f)
}

// strays reports whether the endpoint that a filter has named is to be left for the subset
// that the route asks for.
func (x *exchange) strays(v *lb.View, h *lb.Host) bool {
	o := &x.Override
	return o.Returns && !o.Strict && v.Strays(h, x.criteria().lb)
}

// overrides reports whether the next attempt is for the endpoint that a filter has named.
// A retry is not, as in Envoy, where the route has a policy that asks for it. What is tried
// once more without one stays where it has to be strictly: nobody has allowed anything else.
func (x *exchange) overrides() bool {
	return x.Override.Address.IsValid() && (len(x.tried) == 0 || x.Override.Strict && x.retry.used == 0)
}

// overridingMember returns the member of an aggregate cluster that has the endpoint
// which a filter has named for the first attempt; nil where the draw is to decide.
func (x *exchange) overridingMember() (found *clusterOn) {
	o := &x.Override
	if !x.overrides() {
		return nil
	}
	for _, c := range x.cluster.itselfOrMembers() {
		m := x.w.clusterOn(c)
		if m == nil || m.originals != nil {
			continue
		}
		v := m.spec.lb.View()
		switch h := v.Find(o.Address); {
		case h == nil:
		case v.MayOverride(h):
			return m
		case o.Strict && found == nil:
			found = m // it is there, and unhealthy: not notFound
		}
	}
	return found
}

func notFound(status int) *failure {
	f := failureNoHealthy
	f.Status = status
	return &f
}

// named returns the endpoint that the request's own headers name for this attempt
// (the policy override_host), whatever its health: of those in the cluster the
// first, and for each retry the next. nil: none is left.
func (x *exchange) named(v *lb.View) *lb.Host {
	n := x.on.spec.res.LB.Named
	if n == nil {
		return nil
	}
	skip := len(x.tried)
	for _, name := range n.Headers {
		list := x.Request.Get(name)
		for len(list) > 0 {
			var part []byte
			part, list, _ = bytes.Cut(list, []byte(","))
			a, ok := lb.ParseAddress(bytes.Trim(part, " \t"))
			if !ok {
				continue
			}
			if h := v.Find(a); h != nil {
				if skip == 0 {
					return h
				}
				skip--
			}
		}
	}
	return nil
}
