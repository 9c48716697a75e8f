// SPDX-License-Identifier: Apache-2.0

package client

import (
	"maps"
	"sort"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// snapshot makes a snapshot of what is active. Maps and resources that have not
// changed since prev are those of prev.
func (a *assembler) snapshot(prev *resource.Snapshot, layers []decode.RuntimeLayer, versions map[string]string) *resource.Snapshot {
	s := &resource.Snapshot{
		Version: 1, Versions: versions,
		Listeners:   a.listenersOut(),
		ScopedRoute: collect[resource.ScopedRoute](a.active[decode.ScopedRoute]),
		Routes:      a.routes(),
		Runtime:     a.runtime(layers),
		Secrets:     collect[resource.Secret](a.active[decode.Secret]),
	}
	a.bringClusters(s, prev)
	if prev == nil {
		return s
	}
	s.Version = prev.Version + 1
	s.Listeners = reuse(prev.Listeners, s.Listeners)
	s.ScopedRoute = reuse(prev.ScopedRoute, s.ScopedRoute)
	s.Routes = reuse(prev.Routes, s.Routes)
	s.Secrets = reuse(prev.Secrets, s.Secrets)
	if maps.Equal(prev.Runtime.Numbers, s.Runtime.Numbers) && maps.Equal(prev.Runtime.Texts, s.Runtime.Texts) {
		s.Runtime = prev.Runtime
	}
	return s
}

func collect[T any](m map[string]*entry) map[string]*T {
	out := make(map[string]*T, len(m))
	for name, e := range m {
		out[name] = e.res.Value.(*T)
	}
	return out
}

func reuse[T any](prev, next map[string]*T) map[string]*T {
	if maps.Equal(prev, next) {
		return prev
	}
	return next
}

// routes are the route configurations in use, with the virtual hosts of VHDS.
func (a *assembler) routes() map[string]*resource.RouteConfig {
	out := make(map[string]*resource.RouteConfig, len(a.active[decode.Route]))
	var hosts map[string][]*entry
	for name, e := range a.active[decode.Route] {
		rc := e.res.Value.(*resource.RouteConfig)
		if !rc.VHDS {
			out[name] = rc
			continue
		}
		if hosts == nil {
			hosts = a.hosts()
		}
		out[name] = a.merge(name, e, hosts[name])
	}
	for name := range a.merged {
		if a.active[decode.Route][name] == nil {
			delete(a.merged, name)
		}
	}
	return out
}

// hosts groups the virtual hosts of VHDS by route configuration.
func (a *assembler) hosts() map[string][]*entry {
	out := map[string][]*entry{}
	for name, e := range a.active[decode.VirtualHost] {
		if rc := hostOf(name); rc != "" {
			out[rc] = append(out[rc], e)
		}
	}
	for _, list := range out {
		sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	}
	return out
}

// merge adds virtual hosts to a route configuration. A domain that is taken
// already stays with the one that has it.
func (a *assembler) merge(name string, base *entry, hosts []*entry) *resource.RouteConfig {
	if m := a.merged[name]; m != nil && m.base.res == base.res && sameEntries(m.hosts, hosts) {
		return m.out
	}
	rc := *base.res.Value.(*resource.RouteConfig)
	taken := map[string]bool{}
	rc.VirtualHosts = append([]*resource.VirtualHost(nil), rc.VirtualHosts...)
	for _, vh := range rc.VirtualHosts {
		for _, d := range vh.Domains {
			taken[d] = true
		}
	}
	for _, e := range hosts {
		vh := *e.res.Value.(*resource.VirtualHost)
		vh.Domains = nil
		for _, d := range e.res.Value.(*resource.VirtualHost).Domains {
			if !taken[d] {
				taken[d] = true
				vh.Domains = append(vh.Domains, d)
			}
		}
		if len(vh.Domains) > 0 {
			rc.VirtualHosts = append(rc.VirtualHosts, &vh)
		}
	}
	a.merged[name] = &mergedRoute{base: base, hosts: hosts, out: &rc}
	return &rc
}

func sameEntries(a, b []*entry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].res != b[i].res {
			return false
		}
	}
	return true
}

// runtime merges the layers; a later one wins.
func (a *assembler) runtime(layers []decode.RuntimeLayer) *resource.Runtime {
	out := &resource.Runtime{Numbers: map[string]float64{}, Texts: map[string]string{}}
	add := func(r *resource.Runtime) {
		for k, v := range r.Numbers {
			out.Numbers[k] = v
			delete(out.Texts, k)
		}
		for k, v := range r.Texts {
			out.Texts[k] = v
			delete(out.Numbers, k)
		}
	}
	for i := range layers {
		if layers[i].Static != nil {
			add(layers[i].Static)
		}
		if e := a.active[decode.Runtime][layers[i].RTDS]; layers[i].RTDS != "" && e != nil {
			add(e.res.Value.(*resource.Runtime))
		}
	}
	return out
}
