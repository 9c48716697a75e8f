// SPDX-License-Identifier: Apache-2.0

package proxy

import "github.com/outrigger-mesh/outrigger/pkg/xds/resource"

// runtimePercent resolves a percentage against the runtime.
func (p *Proxy) runtimePercent(v resource.Percent) uint32 {
	rt := p.runtime.Load()
	if v.RuntimeKey == "" || rt == nil {
		return v.PerMillion
	}
	n, ok := rt.Numbers[v.RuntimeKey]
	if !ok || n < 0 {
		return v.PerMillion
	}
	den := v.Denominator
	if den == 0 {
		den = 100
	}
	return uint32(min(n*1e6/float64(den), 1e6))
}

// runtimeNumber is the runtime's number of a key, def where it has none that could be.
func (p *Proxy) runtimeNumber(key string, def float64) float64 {
	if rt := p.runtime.Load(); rt != nil {
		if n, ok := rt.Numbers[key]; ok && n >= 0 {
			return n
		}
	}
	return def
}
