// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"net/netip"

	"github.com/outrigger-mesh/outrigger/pkg/codec/sniff"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// traits are what FilterChainMatch looks at in a connection.
type traits struct {
	local, remote, direct netip.AddrPort
	transport             string // "" where nobody has looked, "tls" or "raw_buffer"
	name                  []byte // server name in lower case
	alpn                  []byte // protocols in the client's order, each behind its length
}

// chainTree finds the chain for a connection as Envoy does: criterion by criterion, each
// the most specific value that any chain has, without a way back. What has no chain
// below that value is for the default chain, even if a less specific value had one.
type chainTree map[uint16]*byDestination // by destination port; 0: any

type (
	byDestination = prefixes[*byName]
	// byName has "a.example" for that name, ".example" for any below it, "" for all.
	byName      map[string]byTransport
	byTransport map[string]byProtocol
	byProtocol  map[string]*byDirect
	byDirect    = prefixes[*bySourceType]
	// bySourceType is by resource.SourceType; nil where no chain asks for it.
	bySourceType [3]*bySource
	bySource     = prefixes[bySourcePort]
	bySourcePort map[uint16]*chain // 0: any
)

// prefixes finds the longest prefix that an address is in.
type prefixes[T any] struct {
	bits    [2][]int // lengths that there are, the longest first: of IPv4, of IPv6
	entries map[netip.Prefix]T
}

// noAddress stands for the addresses of Unix sockets, as in Envoy.
var noAddress = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (p *prefixes[T]) find(a netip.Addr) (found T, ok bool) {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		a = noAddress
	}
	for _, bits := range p.bits[a.BitLen()/128] {
		prefix, _ := a.Prefix(bits)
		if found, ok = p.entries[prefix]; ok {
			return found, true
		}
	}
	return found, false
}

// everywhere is what an empty list of prefixes means.
var everywhere = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// each calls f with the entry of every prefix of the list, made where it is new.
func (p *prefixes[T]) each(list []netip.Prefix, make func() T, f func(T)) {
	if len(list) == 0 {
		list = everywhere
	}
	if p.entries == nil {
		p.entries = map[netip.Prefix]T{}
	}
	for _, prefix := range list {
		if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		prefix = prefix.Masked()
		e, ok := p.entries[prefix]
		if !ok {
			e = make()
			p.entries[prefix] = e
			p.addLength(prefix)
		}
		f(e)
	}
}

func (p *prefixes[T]) addLength(prefix netip.Prefix) {
	list := &p.bits[prefix.Addr().BitLen()/128]
	at := 0
	for at < len(*list) && (*list)[at] > prefix.Bits() {
		at++
	}
	if at < len(*list) && (*list)[at] == prefix.Bits() {
		return
	}
	*list = append((*list)[:at], append([]int{prefix.Bits()}, (*list)[at:]...)...)
}

// orAny is the list, or the one value that stands for all.
func orAny[T any](list []T) []T {
	if len(list) == 0 {
		return make([]T, 1)
	}
	return list
}

// add puts a chain in all places that its criteria name. Where two chains want
// the same place, which decode refuses, the first keeps it.
func (m chainTree) add(ch *chain) {
	c := &ch.match
	d := m[c.DestinationPort]
	if d == nil {
		d = &byDestination{}
		m[c.DestinationPort] = d
	}
	d.each(c.PrefixRanges, func() *byName { return &byName{} }, func(names *byName) {
		for _, name := range orAny(c.ServerNames) {
			if len(name) > 1 && name[0] == '*' {
				name = name[1:]
			}
			t := below(*names, name)
			for _, protocol := range orAny(c.ApplicationProtocols) {
				direct := belowPtr(below(t, c.TransportProtocol), protocol)
				direct.each(c.DirectSourcePrefixes, func() *bySourceType { return &bySourceType{} }, func(s *bySourceType) { s.add(ch) })
			}
		}
	})
}

// below is the map behind a key, made where it is new.
func below[K comparable, M ~map[L]V, L comparable, V any](m map[K]M, k K) M {
	if m[k] == nil {
		m[k] = M{}
	}
	return m[k]
}

func belowPtr[K comparable, V any](m map[K]*V, k K) *V {
	if m[k] == nil {
		m[k] = new(V)
	}
	return m[k]
}

func (s *bySourceType) add(ch *chain) {
	c := &ch.match
	if s[c.SourceType] == nil {
		s[c.SourceType] = &bySource{}
	}
	s[c.SourceType].each(c.SourcePrefixes, func() bySourcePort { return bySourcePort{} }, func(ports bySourcePort) {
		for _, port := range orAny(c.SourcePorts) {
			if ports[port] == nil {
				ports[port] = ch
			}
		}
	})
}

// find returns the chain for a connection, nil for the default one.
func (m chainTree) find(t *traits) *chain {
	d := m[t.local.Port()]
	if d == nil || !t.local.IsValid() {
		if d = m[0]; d == nil {
			return nil
		}
	}
	names, ok := d.find(t.local.Addr())
	if !ok {
		return nil
	}
	transports, ok := names.find(t.name)
	if !ok {
		return nil
	}
	protocols, ok := transports[t.transport]
	if !ok {
		if protocols, ok = transports[""]; !ok {
			return nil
		}
	}
	direct := protocols.find(t.alpn)
	if direct == nil {
		return nil
	}
	types, ok := direct.find(t.direct.Addr())
	if !ok {
		return nil
	}
	return types.find(t)
}

func (n byName) find(name []byte) (byTransport, bool) {
	if t, ok := n[string(name)]; ok {
		return t, true
	}
	for from := 1; from < len(name); from++ {
		dot := bytes.IndexByte(name[from:], '.')
		if dot < 0 || from+dot == len(name)-1 {
			break
		}
		from += dot
		if t, ok := n[string(name[from:])]; ok {
			return t, true
		}
	}
	t, ok := n[""]
	return t, ok
}

func (p byProtocol) find(alpn []byte) *byDirect {
	for len(alpn) > 0 {
		var name []byte
		if name, alpn = sniff.NextProtocol(alpn); p[string(name)] != nil {
			return p[string(name)]
		}
	}
	return p[""]
}

func (s *bySourceType) find(t *traits) *chain {
	local, external := s[resource.SourceSameIPOrLoopback], s[resource.SourceExternal]
	sources := s[resource.SourceAny]
	if local != nil || external != nil {
		switch near := t.near(); {
		case near && local != nil:
			sources = local
		case !near && external != nil:
			sources = external
		}
	}
	if sources == nil {
		return nil
	}
	ports, ok := sources.find(t.remote.Addr())
	if !ok {
		return nil
	}
	if ch := ports[t.remote.Port()]; ch != nil {
		return ch
	}
	return ports[0]
}

// near reports whether the connection comes from this host.
func (t *traits) near() bool {
	r := t.remote.Addr().Unmap()
	return !r.IsValid() || r.IsLoopback() || r == t.local.Addr().Unmap()
}

// match finds the chain for a connection, the default one where no other is for
// it; nil where there is none.
func (c *listenerConfig) match(t *traits) *chain {
	if ch := c.tree.find(t); ch != nil {
		return ch
	}
	return c.deflt
}

// plain reports whether the chain matches every connection.
func (ch *chain) plain() bool {
	m := &ch.match
	return m.DestinationPort == 0 && m.SourceType == resource.SourceAny && m.TransportProtocol == "" &&
		len(m.PrefixRanges)+len(m.SourcePrefixes)+len(m.SourcePorts)+len(m.DirectSourcePrefixes)+len(m.ServerNames)+len(m.ApplicationProtocols) == 0
}
