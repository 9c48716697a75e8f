// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"errors"
	"fmt"
	"net/netip"
)

// The names that all rules live under.
const (
	Table       = "outrigger" // of nftables, family inet
	ChainPrefix = "OUTRIGGER" // of the chains of iptables
)

// dnsPort is where applications expect their resolver.
const dnsPort = 53

// Mode says how inbound connections get to the sidecar.
type Mode uint8

const (
	// Redirect rewrites the destination; the listener asks for the original one
	// with SO_ORIGINAL_DST. It needs no privileges of the sidecar.
	Redirect Mode = iota
	// TProxy hands connections over unchanged: the listener's local address is the
	// original destination. The listener must be transparent (IP_TRANSPARENT, which
	// needs CAP_NET_ADMIN). Connections of the host itself are redirected all the same.
	TProxy
)

// Config is what is to be intercepted. Lists are those of the Parse functions. The
// zero value of a list means what its comment says.
type Config struct {
	// IPv4 and IPv6 say which families get rules.
	IPv4, IPv6 bool

	// Outbound leads connections that processes of this host make to the sidecar's
	// port, which listens on 127.0.0.1 and ::1. 0: they stay as they are.
	Outbound uint16
	// OutboundPorts and OutboundNetworks are the only destinations intercepted;
	// empty: all.
	OutboundPorts           []Range
	OutboundNetworks        []netip.Prefix
	ExcludeOutboundPorts    []Range
	ExcludeOutboundNetworks []netip.Prefix

	// Inbound leads connections from elsewhere to an address of this host to the
	// sidecar's port. 0: they stay as they are.
	Inbound     uint16
	InboundMode Mode
	// InboundPorts are the only ports intercepted; empty: all.
	InboundPorts           []Range
	ExcludeInboundPorts    []Range
	ExcludeInboundNetworks []netip.Prefix // by the client's address

	// DNS leads queries to any resolver (port 53, UDP and TCP) to the sidecar's port,
	// on 127.0.0.1 and ::1. 0: they stay as they are.
	DNS uint16

	// OwnPorts are the sidecar's others, such as admin: never intercepted inbound.
	OwnPorts []uint16

	// SidecarUIDs and SidecarGIDs run the sidecar: its connections are never
	// intercepted, or it would talk to itself for ever. One that goes to this host's
	// own address over loopback is treated as if it came from elsewhere.
	SidecarUIDs, SidecarGIDs []Range
	// ExcludeUIDs and ExcludeGIDs are others whose connections stay as they are.
	ExcludeUIDs, ExcludeGIDs []Range
	// ExcludeMark are packets (SO_MARK) that stay as they are; 0: none.
	ExcludeMark uint32
}

// Validate returns every fault of the combination.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !c.IPv4 && !c.IPv6 {
		fault("neither IPv4 nor IPv6 is asked for")
	}
	if c.Outbound == 0 && c.Inbound == 0 && c.DNS == 0 {
		fault("nothing is asked for: neither outbound nor inbound connections, nor DNS")
	}
	if (c.Outbound != 0 || c.DNS != 0) && len(c.SidecarUIDs)+len(c.SidecarGIDs) == 0 && c.ExcludeMark == 0 {
		fault("the sidecar cannot be told from the application: its connections would come back to it for ever; name the user or group it runs as, or a mark")
	}
	for _, p := range []struct {
		a, b uint16
		what string
	}{{c.Outbound, c.Inbound, "outbound and inbound"}, {c.Outbound, c.DNS, "outbound and DNS"}, {c.Inbound, c.DNS, "inbound and DNS"}} {
		if p.a != 0 && p.a == p.b {
			fault("%s have the same port %d", p.what, p.a)
		}
	}
	if all := (Range{0, 1<<32 - 2}); contains(c.SidecarUIDs, all.Lo) && contains(c.SidecarUIDs, all.Hi) && len(c.SidecarUIDs) == 1 {
		fault("every user is the sidecar: nothing would be intercepted")
	}
	return errors.Join(faults...)
}

// notInbound are the ports that are the sidecar's, and those that are excluded.
func (c *Config) notInbound() []Range {
	rs := append([]Range(nil), c.ExcludeInboundPorts...)
	for _, p := range append([]uint16{c.Inbound, c.Outbound, c.DNS}, c.OwnPorts...) {
		if p != 0 {
			rs = append(rs, Range{uint32(p), uint32(p)})
		}
	}
	return joinRanges(rs)
}

// identity is who a socket belongs to: a list of users, or of groups.
type identity struct {
	group bool
	ids   []Range
}

func identities(uids, gids []Range) []identity {
	var out []identity
	if len(uids) > 0 {
		out = append(out, identity{false, uids})
	}
	if len(gids) > 0 {
		out = append(out, identity{true, gids})
	}
	return out
}
