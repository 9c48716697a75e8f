// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// mergedListener remembers what a listener with discovered filters was made of, so that
// it keeps its pointer while nothing has changed.
type mergedListener struct {
	base  *decode.Resource
	parts []*decode.Resource // nil where there is none
	out   *resource.Listener
}

// listenersOut are the listeners in use, with the configurations of ECDS.
func (a *assembler) listenersOut() map[string]*resource.Listener {
	out := collect[resource.Listener](a.active[decode.Listener])
	for name, e := range a.active[decode.Listener] {
		if slices.ContainsFunc(e.res.Refs, func(r decode.Ref) bool { return r.Kind == decode.Extension }) {
			out[name] = a.withExtensions(name, e)
		}
	}
	for name := range a.listening {
		if a.active[decode.Listener][name] == nil {
			delete(a.listening, name)
		}
	}
	return out
}

func (a *assembler) withExtensions(name string, e *entry) *resource.Listener {
	byName := map[string]*resource.ExtensionConfig{}
	var parts []*decode.Resource
	for i := range e.res.Refs {
		ref := &e.res.Refs[i]
		if ref.Kind != decode.Extension {
			continue
		}
		var part *decode.Resource
		if x := a.active[decode.Extension][ref.Name]; x != nil {
			part = x.res
			byName[ref.Name] = part.Value.(*resource.ExtensionConfig)
		}
		parts = append(parts, part)
	}
	m := a.listening[name]
	if m != nil && m.base == e.res && slices.Equal(m.parts, parts) {
		return m.out
	}
	// What conflicted before still does, and was counted then.
	conflict := func(filter string) {
		if m == nil || m.base != e.res || !slices.Contains(m.parts, a.active[decode.Extension][filter].res) {
			a.extensions.conflict(filter)
		}
	}
	out := *e.res.Value.(*resource.Listener)
	out.FilterChains = slices.Clone(out.FilterChains)
	for i, c := range out.FilterChains {
		out.FilterChains[i] = chainWith(c, byName, conflict)
	}
	if out.DefaultFilterChain != nil {
		out.DefaultFilterChain = chainWith(out.DefaultFilterChain, byName, conflict)
	}
	a.listening[name] = &mergedListener{base: e.res, parts: parts, out: &out}
	return &out
}

// chainWith gives the discovered filters of a chain what has come for them, else their
// default. A filter that has neither refuses every request: what it would have refused is
// not known. conflict is told the filters that what has come is not for.
func chainWith(c *resource.FilterChain, byName map[string]*resource.ExtensionConfig, conflict func(filter string)) *resource.FilterChain {
	if c.HTTP == nil || !slices.ContainsFunc(c.HTTP.Filters, func(f resource.HTTPFilter) bool { return f.Discovery != nil }) {
		return c
	}
	chain, manager := *c, *c.HTTP
	chain.HTTP, manager.Filters = &manager, slices.Clone(c.HTTP.Filters)
	for i := range manager.Filters {
		f := &manager.Filters[i]
		if f.Discovery == nil {
			continue
		}
		x := byName[f.Name]
		if x != nil && !slices.Contains(f.Discovery.TypeURLs, x.TypeURL) {
			conflict(f.Name)
			x = nil
		}
		if x == nil {
			x = f.Discovery.Default
		}
		if f.Missing = x == nil; !f.Missing {
			f.TypeURL, f.Config = x.TypeURL, x.Config
		}
	}
	return &chain
}

// decode decodes a resource, and refuses the configuration of a filter whose type no
// filter of that name takes.
func (c *Client) decode(kind decode.Kind, name string, a *anypb.Any) (*decode.Resource, error) {
	r, err := c.dec.Decode(kind, name, a)
	if err != nil || kind != decode.Extension {
		return r, err
	}
	got := r.Value.(*resource.ExtensionConfig).TypeURL
	var want []string
	for _, e := range c.store.latest[decode.Listener] {
		want = append(want, filterTypes(e.res.Value.(*resource.Listener), r.Name)...)
	}
	if len(want) > 0 && !slices.Contains(want, got) {
		return nil, fmt.Errorf("decode %s %q: typed_config: is a %q, the filter of that name takes %q", kind, r.Name, got, want)
	}
	return r, nil
}

// filterTypes are what the filters of a name take.
func filterTypes(l *resource.Listener, name string) (out []string) {
	for _, c := range append(slices.Clone(l.FilterChains), l.DefaultFilterChain) {
		if c == nil || c.HTTP == nil {
			continue
		}
		for i := range c.HTTP.Filters {
			if f := &c.HTTP.Filters[i]; f.Name == name && f.Discovery != nil {
				out = append(out, f.Discovery.TypeURLs...)
			}
		}
	}
	return out
}
