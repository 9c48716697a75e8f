// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// places puts the virtual addresses of names into the filter chains that are for
// them: the control plane knows names, and which address one has is this process's own
// matter. It is for one goroutine.
type places struct {
	of func(name string) (v4, v6 netip.Addr, err error) // nil: names have no addresses here
	// placed are the listeners of the last snapshot, so that one that has not changed is
	// the same again.
	placed map[*resource.Listener]*resource.Listener
}

// place returns the snapshot with addresses. Chains whose names have none stay as they
// are, and are for no connection.
func (p *places) place(s *resource.Snapshot) (*resource.Snapshot, error) {
	if p.of == nil || !slices.ContainsFunc(listeners(s), named) {
		p.placed = nil
		return s, nil
	}
	out := *s
	out.Listeners = make(map[string]*resource.Listener, len(s.Listeners))
	now := map[*resource.Listener]*resource.Listener{}
	var errs []error
	for name, l := range s.Listeners {
		if !named(l) {
			out.Listeners[name] = l
			continue
		}
		placed := p.placed[l]
		if placed == nil {
			var err error
			if placed, err = p.listener(l); err != nil {
				errs = append(errs, fmt.Errorf("listener %q: %w", name, err))
			}
		}
		out.Listeners[name], now[l] = placed, placed
	}
	p.placed = now
	return &out, errors.Join(errs...)
}

func listeners(s *resource.Snapshot) []*resource.Listener {
	out := make([]*resource.Listener, 0, len(s.Listeners))
	for _, l := range s.Listeners {
		out = append(out, l)
	}
	return out
}

func named(l *resource.Listener) bool {
	return slices.ContainsFunc(l.FilterChains, func(c *resource.FilterChain) bool { return len(c.DestinationNames) > 0 })
}

func (p *places) listener(l *resource.Listener) (*resource.Listener, error) {
	out := *l
	out.FilterChains = slices.Clone(l.FilterChains)
	var errs []error
	for i, c := range out.FilterChains {
		if len(c.DestinationNames) == 0 {
			continue
		}
		placed := *c
		placed.Match.PrefixRanges = slices.Clone(c.Match.PrefixRanges)
		placed.DestinationNames = nil
		for _, name := range c.DestinationNames {
			v4, v6, err := p.of(name)
			if err != nil {
				errs = append(errs, fmt.Errorf("filter chain %q: %s: %w", c.Name, name, err))
				continue
			}
			placed.Match.PrefixRanges = append(placed.Match.PrefixRanges, netip.PrefixFrom(v4, 32), netip.PrefixFrom(v6, 128))
		}
		if len(placed.Match.PrefixRanges) > 0 {
			out.FilterChains[i] = &placed
		}
	}
	return &out, errors.Join(errs...)
}
