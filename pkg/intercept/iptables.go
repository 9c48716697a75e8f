// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The chains of the nat table, and for TPROXY of mangle.
const (
	chainInbound    = ChainPrefix + "_INBOUND"    // to the sidecar's inbound port
	chainOutput     = ChainPrefix + "_OUTPUT"     // from processes of this host
	chainOutbound   = ChainPrefix + "_OUTBOUND"   // the ports taken, to the outbound port
	chainPrerouting = ChainPrefix + "_PREROUTING" // from elsewhere
)

// xtablesWait is how many seconds the tools wait for each other.
const xtablesWait = "5"

func iptablesProgram(v6 bool) string {
	if v6 {
		return "ip6tables"
	}
	return "iptables"
}

func restoreArgv(v6 bool) []string {
	return []string{iptablesProgram(v6) + "-restore", "--noflush", "--wait", xtablesWait}
}

// xtables writes the input of iptables-restore for one family.
type xtables struct {
	strings.Builder
	v6 bool
}

func (b *xtables) rule(chain, format string, args ...any) {
	fmt.Fprintf(b, "-A %s "+format+"\n", append([]any{chain}, args...)...)
}

// iptables is the plan for one family: the chains are filled in one transaction
// per table, and then, the first time, jumped to.
func (c *Config) iptables(v6 bool) Plan {
	b := &xtables{v6: v6}
	b.WriteString("*nat\n")
	for _, name := range []string{chainInbound, chainOutput, chainOutbound, chainPrerouting} {
		b.WriteString(":" + name + " - [0:0]\n") // makes the chain, or empties it
	}
	if c.Inbound != 0 {
		c.xtInbound(b)
	}
	c.xtOutput(b)
	if c.Inbound != 0 && c.InboundMode == Redirect {
		c.xtPrerouting(b)
		b.rule(chainPrerouting, "-j %s", chainInbound)
	}
	b.WriteString("COMMIT\n*mangle\n:" + chainPrerouting + " - [0:0]\n")
	if c.Inbound != 0 && c.InboundMode == TProxy {
		c.xtPrerouting(b)
		c.xtInboundReturns(b, chainPrerouting)
		b.rule(chainPrerouting, "-m conntrack --ctdir REPLY -j RETURN")
		for _, port := range everyPort(c.InboundPorts) {
			b.rule(chainPrerouting, "-p tcp%s -j TPROXY --on-port %d", port, c.Inbound)
		}
	}
	b.WriteString("COMMIT\n")
	p := Plan{{Argv: restoreArgv(v6), Input: b.String()}}
	for _, j := range jumps {
		p = append(p, Command{
			Argv:  []string{iptablesProgram(v6), "--wait", xtablesWait, "-t", j.table, "-I", j.from, "1", "-j", j.to},
			Probe: []string{iptablesProgram(v6), "--wait", xtablesWait, "-t", j.table, "-C", j.from, "-j", j.to},
			When:  Unless,
		})
	}
	return p
}

// jumps lead from the kernel's chains into ours. They stay the same whatever is
// asked for; chains without rules change nothing.
var jumps = []struct{ table, from, to string }{
	{"nat", "OUTPUT", chainOutput},
	{"nat", "PREROUTING", chainPrerouting},
	{"mangle", "PREROUTING", chainPrerouting},
}

// iptablesRemoval takes the jumps away, then the chains. The restore makes a chain
// that is not there, so that it can be deleted whatever was.
func iptablesRemoval(v6 bool) Plan {
	var p Plan
	program := iptablesProgram(v6)
	for _, j := range jumps {
		p = append(p, Command{
			Argv:  []string{program, "--wait", xtablesWait, "-t", j.table, "-D", j.from, "-j", j.to},
			Probe: []string{program, "--wait", xtablesWait, "-t", j.table, "-C", j.from, "-j", j.to},
			When:  While,
		})
	}
	var b strings.Builder
	b.WriteString("*nat\n")
	names := []string{chainOutput, chainPrerouting, chainInbound, chainOutbound}
	for _, name := range names {
		b.WriteString(":" + name + " - [0:0]\n")
	}
	for _, name := range names {
		b.WriteString("-X " + name + "\n")
	}
	b.WriteString("COMMIT\n*mangle\n:" + chainPrerouting + " - [0:0]\n-X " + chainPrerouting + "\nCOMMIT\n")
	return append(p, Command{Argv: restoreArgv(v6), Input: b.String()})
}

func (c *Config) xtInboundReturns(b *xtables, chain string) {
	for _, r := range c.notInbound() {
		b.rule(chain, "-p tcp --dport %s -j RETURN", r.text(":"))
	}
}

func (c *Config) xtInbound(b *xtables) {
	c.xtInboundReturns(b, chainInbound)
	for _, port := range everyPort(c.InboundPorts) {
		b.rule(chainInbound, "-p tcp%s -j REDIRECT --to-ports %d", port, c.Inbound)
	}
}

func (c *Config) xtOutput(b *xtables) {
	sidecar := identities(c.SidecarUIDs, c.SidecarGIDs)
	if c.ExcludeMark != 0 {
		b.rule(chainOutput, "-m mark --mark %#x -j RETURN", c.ExcludeMark)
	}
	for _, who := range identities(c.ExcludeUIDs, c.ExcludeGIDs) {
		for _, owner := range who.xt() {
			b.rule(chainOutput, "%s -j RETURN", owner)
		}
	}
	loopback := "127.0.0.0/8"
	if b.v6 {
		loopback = "::1/128"
	}
	for _, who := range sidecar {
		if c.Inbound == 0 {
			break
		}
		if !b.v6 && !strings.Contains(b.String(), "127.0.0.6") {
			b.rule(chainOutput, "-o lo -s 127.0.0.6/32 -j RETURN")
		}
		for _, owner := range who.xt() {
			b.rule(chainOutput, "-o lo ! -d %s -p tcp ! --dport %d %s -j %s", loopback, dnsPort, owner, chainInbound)
		}
	}
	for _, who := range sidecar {
		for _, owner := range who.xt() {
			b.rule(chainOutput, "%s -j RETURN", owner)
		}
	}
	if c.DNS != 0 {
		b.rule(chainOutput, "-p udp --dport %d -j REDIRECT --to-ports %d", dnsPort, c.DNS)
		b.rule(chainOutput, "-p tcp --dport %d -j REDIRECT --to-ports %d", dnsPort, c.DNS)
	}
	if c.Outbound == 0 {
		return
	}
	b.rule(chainOutput, "-o lo -j RETURN")
	b.rule(chainOutput, "-d %s -j RETURN", loopback)
	for _, p := range ofFamily(c.ExcludeOutboundNetworks, b.v6) {
		b.rule(chainOutput, "-d %s -j RETURN", p)
	}
	for _, r := range c.ExcludeOutboundPorts {
		b.rule(chainOutput, "-p tcp --dport %s -j RETURN", r.text(":"))
	}
	for _, network := range everyNetwork(c.OutboundNetworks, b.v6) {
		b.rule(chainOutput, "%s-p tcp -j %s", network, chainOutbound)
	}
	for _, port := range everyPort(c.OutboundPorts) {
		b.rule(chainOutbound, "-p tcp%s -j REDIRECT --to-ports %d", port, c.Outbound)
	}
}

func (c *Config) xtPrerouting(b *xtables) {
	b.rule(chainPrerouting, "-i lo -j RETURN")
	b.rule(chainPrerouting, "-m addrtype ! --dst-type LOCAL -j RETURN")
	for _, p := range ofFamily(c.ExcludeInboundNetworks, b.v6) {
		b.rule(chainPrerouting, "-s %s -j RETURN", p)
	}
}

// xt are matches, one for each range: an owner match takes a single one.
func (who identity) xt() []string {
	out := make([]string, len(who.ids))
	for i, r := range who.ids {
		flag := "--uid-owner "
		if who.group {
			flag = "--gid-owner "
		}
		out[i] = "-m owner " + flag + r.String()
	}
	return out
}

// everyPort are the matches of the ports, or one that matches all.
func everyPort(rs []Range) []string {
	if len(rs) == 0 {
		return []string{""}
	}
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = " --dport " + r.text(":")
	}
	return out
}

func everyNetwork(ps []netip.Prefix, v6 bool) []string {
	if len(ps) == 0 {
		return []string{""}
	}
	var out []string
	for _, p := range ofFamily(ps, v6) {
		out = append(out, "-d "+p.Addr().String()+"/"+strconv.Itoa(p.Bits())+" ")
	}
	return out
}
