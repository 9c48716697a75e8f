// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"net/netip"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// carryLogical keeps the host of a LOGICAL_DNS cluster, whatever its address is by
// now: new connections go to the new one, and those to earlier ones go on. Nil where
// there is nothing to keep.
func carryLogical(prev *View, cfg *resource.Cluster, a *resource.Assignment) []*Host {
	if cfg.Type != resource.LogicalDNS || prev == nil || len(prev.hosts) != 1 || prev.cfg.Type != resource.LogicalDNS ||
		a == nil || len(a.Localities) != 1 || len(a.Localities[0].Endpoints) != 1 {
		return nil
	}
	h, l := prev.hosts[0], &a.Localities[0]
	e := &l.Endpoints[0]
	if h.Hostname() != e.Hostname || h.spec.Load().Address.Port != e.Address.Port {
		return nil // another host
	}
	h.configure(e, l)
	ip, err := netip.ParseAddr(e.Address.Host)
	h.setFlag(flagMoved, err == nil && h.addr != ip.Unmap())
	return prev.hosts
}

// Dial is where new connections go; invalid for a Unix socket. For most hosts it is
// Addr; that of a LOGICAL_DNS cluster is where its name leads to by now.
func (h *Host) Dial() netip.AddrPort {
	if h.flags.Load()&flagMoved == 0 {
		return h.Addr()
	}
	a := &h.spec.Load().Address
	ip, err := netip.ParseAddr(a.Host)
	if err != nil {
		return h.Addr()
	}
	return netip.AddrPortFrom(ip.Unmap(), a.Port)
}
