// SPDX-License-Identifier: Apache-2.0

package proxy

import "github.com/outrigger-mesh/outrigger/pkg/lb"

// pickHost chooses a host for the next attempt. A retry asks for another one than
// those that its policy avoids, as often as the policy says; as in Envoy, the last is
// taken whatever it is.
func (x *exchange) pickHost() *lb.Host {
	p := x.route.action.retry
	r := &x.on.req
	r.Sound, r.PreviousPriorities = x.sound, 0
	if p != nil {
		r.PreviousPriorities = p.PreviousPriorities
	}
	h := x.on.pick(x, x.criteria().lb)
	if p == nil || x.retriesDone() == 0 || !p.Avoid.OmitCanaries && len(p.Avoid.OmitMetadata) == 0 {
		return h
	}
	for range x.retry.hostAttempts {
		if h == nil || !x.avoids(h) {
			break
		}
		h = x.on.pick(x, x.criteria().lb)
	}
	return h
}

func (x *exchange) avoids(h *lb.Host) bool {
	avoid := &x.route.action.retry.Avoid
	if avoid.OmitCanaries && h.Canary() {
		return true
	}
	if len(avoid.OmitMetadata) == 0 {
		return false
	}
	have := h.Metadata()["envoy.lb"]
	for _, list := range avoid.OmitMetadata {
		if hasAll(have, list) {
			return true
		}
	}
	return false
}

func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}
