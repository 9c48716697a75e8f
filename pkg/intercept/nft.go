// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"fmt"
	"net/netip"
	"strings"
)

var nftArgv = []string{"nft", "-f", "-"}

// nftReset removes the table whether or not there is one. In front of the new table
// it is part of the same transaction: no packet sees a state between.
const nftReset = "add table inet " + Table + "\ndelete table inet " + Table + "\n"

// Just before the priority of other NAT (-100) and mangle (-150) chains: the first
// to rewrite a connection wins, and a container runtime may have a chain of its own
// for its resolver.
const nftNAT, nftMangle = "-110", "-160"

// nftText writes lines of a ruleset.
type nftText struct{ strings.Builder }

func (b *nftText) chain(name, hook string) {
	fmt.Fprintf(b, "\n\tchain %s {\n", name)
	if hook != "" {
		fmt.Fprintf(b, "\t\t%s; policy accept;\n", hook)
	}
}

func (b *nftText) rule(format string, args ...any) { fmt.Fprintf(b, "\t\t"+format+"\n", args...) }

func (b *nftText) end() { b.WriteString("\t}\n") }

// nft is the table.
func (c *Config) nft() string {
	b := &nftText{}
	b.WriteString("table inet " + Table + " {")
	if c.Inbound != 0 {
		c.nftInbound(b)
	}
	c.nftOutput(b)
	if c.Inbound != 0 {
		c.nftPrerouting(b)
	}
	b.WriteString("}\n")
	return b.String()
}

// nftInbound is where connections to the application go to the sidecar, wherever
// they come from.
func (c *Config) nftInbound(b *nftText) {
	b.chain("inbound", "")
	b.rule("tcp dport %s return", nftRanges(c.notInbound()))
	if len(c.InboundPorts) > 0 {
		b.rule("tcp dport != %s return", nftRanges(c.InboundPorts))
	}
	b.rule("meta l4proto tcp redirect to :%d", c.Inbound)
	b.end()
}

func (c *Config) nftOutput(b *nftText) {
	sidecar := identities(c.SidecarUIDs, c.SidecarGIDs)
	loop := c.Inbound != 0 && len(sidecar) > 0
	if c.Outbound == 0 && c.DNS == 0 && !loop {
		return
	}
	b.chain("output", "type nat hook output priority "+nftNAT)
	c.nftFamilies(b)
	b.rule("meta l4proto != { tcp, udp } return")
	if c.ExcludeMark != 0 {
		b.rule("meta mark %#x return", c.ExcludeMark)
	}
	for _, who := range identities(c.ExcludeUIDs, c.ExcludeGIDs) {
		b.rule("%s return", who.nft())
	}
	if loop {
		// The sidecar calls an instance of its own service on this host: as from elsewhere.
		b.rule("oifname \"lo\" ip saddr 127.0.0.6 return")
		for _, who := range sidecar {
			b.rule("oifname \"lo\" %s ip daddr != 127.0.0.0/8 tcp dport != %d jump inbound", who.nft(), dnsPort)
			b.rule("oifname \"lo\" %s ip6 daddr != ::1 tcp dport != %d jump inbound", who.nft(), dnsPort)
		}
	}
	for _, who := range sidecar {
		b.rule("%s return", who.nft())
	}
	if c.DNS != 0 { // before loopback: a container's resolver is often there
		b.rule("udp dport %d redirect to :%d", dnsPort, c.DNS)
		b.rule("tcp dport %d redirect to :%d", dnsPort, c.DNS)
	}
	if c.Outbound != 0 {
		c.nftOutbound(b)
	}
	b.end()
}

func (c *Config) nftOutbound(b *nftText) {
	b.rule("oifname \"lo\" return") // the application to itself
	b.rule("ip daddr 127.0.0.0/8 return")
	b.rule("ip6 daddr ::1 return")
	for _, v6 := range []bool{false, true} {
		if ps := ofFamily(c.ExcludeOutboundNetworks, v6); len(ps) > 0 {
			b.rule("%s daddr %s return", nftFamily(v6), nftPrefixes(ps))
		}
	}
	if len(c.ExcludeOutboundPorts) > 0 {
		b.rule("tcp dport %s return", nftRanges(c.ExcludeOutboundPorts))
	}
	if len(c.OutboundPorts) > 0 {
		b.rule("tcp dport != %s return", nftRanges(c.OutboundPorts))
	}
	if len(c.OutboundNetworks) > 0 {
		for _, v6 := range []bool{false, true} {
			if ps := ofFamily(c.OutboundNetworks, v6); len(ps) > 0 {
				b.rule("%s daddr %s meta l4proto tcp redirect to :%d", nftFamily(v6), nftPrefixes(ps), c.Outbound)
			}
		}
		return
	}
	b.rule("meta l4proto tcp redirect to :%d", c.Outbound)
}

// nftPrerouting takes connections from elsewhere to an address of this host; what
// is only forwarded is none of ours.
func (c *Config) nftPrerouting(b *nftText) {
	if c.InboundMode == TProxy {
		b.chain("prerouting", "type filter hook prerouting priority "+nftMangle)
	} else {
		b.chain("prerouting", "type nat hook prerouting priority "+nftNAT)
	}
	c.nftFamilies(b)
	b.rule("meta l4proto != tcp return")
	b.rule("iifname \"lo\" return")
	b.rule("fib daddr type != local return")
	for _, v6 := range []bool{false, true} {
		if ps := ofFamily(c.ExcludeInboundNetworks, v6); len(ps) > 0 {
			b.rule("%s saddr %s return", nftFamily(v6), nftPrefixes(ps))
		}
	}
	if c.InboundMode == Redirect {
		b.rule("jump inbound")
		b.end()
		return
	}
	b.rule("tcp dport %s return", nftRanges(c.notInbound()))
	if len(c.InboundPorts) > 0 {
		b.rule("tcp dport != %s return", nftRanges(c.InboundPorts))
	}
	// Packets of connections that this host itself began are not for the listener.
	b.rule("ct direction reply return")
	b.rule("meta l4proto tcp tproxy to :%d", c.Inbound)
	b.end()
}

// nftFamilies lets the family pass that is not asked for.
func (c *Config) nftFamilies(b *nftText) {
	if !c.IPv6 {
		b.rule("meta nfproto ipv6 return")
	}
	if !c.IPv4 {
		b.rule("meta nfproto ipv4 return")
	}
}

func (who identity) nft() string {
	if who.group {
		return "meta skgid " + nftRanges(who.ids)
	}
	return "meta skuid " + nftRanges(who.ids)
}

func nftFamily(v6 bool) string {
	if v6 {
		return "ip6"
	}
	return "ip"
}

func nftRanges(rs []Range) string {
	texts := make([]string, len(rs))
	for i, r := range rs {
		texts[i] = r.String()
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

// nftPrefixes leaves the length of single addresses away, as nft itself prints.
func nftPrefixes(ps []netip.Prefix) string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = p.String()
		if p.IsSingleIP() {
			texts[i] = p.Addr().String()
		}
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}
