// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// addressIndex finds hosts of a view by address: a hash table of their places, one
// more than each, at most half full.
type addressIndex struct{ slots []uint32 }

// indexAddresses makes the index where there are many hosts; it goes from view to
// view with them.
func (v *View) indexAddresses(prev *View) {
	if len(v.hosts) <= fewHosts {
		return
	}
	if prev != nil && prev.addresses != nil && slices.Equal(prev.hosts, v.hosts) {
		v.addresses = prev.addresses
		return
	}
	x := &addressIndex{slots: make([]uint32, 1<<bits.Len(uint(2*len(v.hosts)-1)))}
	for i, h := range v.hosts {
		if !h.addr.IsValid() {
			continue // a Unix socket
		}
		at := x.first(h.Addr())
		for x.slots[at] != 0 {
			at = (at + 1) % len(x.slots)
		}
		x.slots[at] = uint32(i + 1)
	}
	v.addresses = x
}

// first is the slot that an address should have.
func (x *addressIndex) first(a netip.AddrPort) int {
	ip := a.Addr().As16()
	key := binary.LittleEndian.Uint64(ip[:8]) ^ mix(binary.LittleEndian.Uint64(ip[8:])+uint64(a.Port())<<48)
	return int(mix(key) % uint64(len(x.slots)))
}

// Find returns the host of an address, whatever its health; nil for none. It is the
// address that new connections go to: a host that moves is alone in its cluster, and so
// in no index.
func (v *View) Find(a netip.AddrPort) *Host {
	if !a.IsValid() {
		return nil
	}
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if v.addresses == nil {
		for _, h := range v.hosts {
			if h.Dial() == a {
				return h
			}
		}
		return nil
	}
	slots := v.addresses.slots
	for at := v.addresses.first(a); slots[at] != 0; at = (at + 1) % len(slots) {
		if h := v.hosts[slots[at]-1]; h.Addr() == a {
			return h
		}
	}
	return nil
}

// MayOverride reports whether a request that names the host gets it
// (override_host_status). As in Envoy, subsets and zones are not asked.
func (v *View) MayOverride(h *Host) bool {
	status := h.EDSHealth()
	if h.Ejected() || h.Failed() {
		status = resource.Unhealthy
	}
	allowed := v.cfg.LB.OverrideStatus
	if allowed == 0 {
		allowed = resource.DefaultOverrideStatus
	}
	return allowed&status.Bit() != 0
}

// Strays reports whether a host is not of the subset that criteria ask for, though there is
// one with a healthy host: a fallback may have chosen it while there was none. Of a list of
// fallbacks (envoy.lb's fallback_list) none is asked for more than the others: no host strays.
func (v *View) Strays(h *Host, c *Criteria) bool {
	s := v.subsets
	if s == nil || c == nil || len(c.labels) == 0 || c.plain != nil && s.cfg.FallbackList {
		return false
	}
	m := c.all()
	if s.cfg.RedundantKeys {
		m = c.sufficient(s.cfg.Selectors)
	}
	e, has := h.spec.Load(), true
	for rest := m; rest != 0; rest &= rest - 1 {
		has = has && e.HasLabel(c.labels[bits.TrailingZeros64(uint64(rest))], s.cfg.ListAsAny)
	}
	if has {
		return false
	}
	sub, ok := s.byKey[c.key]
	if m != c.all() {
		var buf [128]byte
		sub, ok = s.byKey[string(c.appendKey(buf[:0], m))]
	}
	switch {
	case !ok:
		return false
	case sub.single != nil:
		return v.MayOverride(sub.single)
	}
	return sub.view.healthy > 0
}

// ParseAddress reads "10.0.0.1:80" without an allocation, and "[::1]:80".
func ParseAddress(b []byte) (netip.AddrPort, bool) {
	if len(b) > 0 && b[0] == '[' {
		a, err := netip.ParseAddrPort(string(b))
		return a, err == nil && a.Addr().Zone() == ""
	}
	var ip [4]byte
	for i := range ip {
		end := byte('.')
		if i == 3 {
			end = ':'
		}
		j := bytes.IndexByte(b, end)
		n, ok := number(b[:max(j, 0)], 255)
		if !ok {
			return netip.AddrPort{}, false
		}
		ip[i], b = byte(n), b[j+1:]
	}
	port, ok := number(b, 65535)
	return netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(port)), ok
}

func number(b []byte, most int) (n int, ok bool) {
	if len(b) == 0 || len(b) > 5 || len(b) > 1 && b[0] == '0' {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, n <= most
}
