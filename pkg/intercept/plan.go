// SPDX-License-Identifier: Apache-2.0

package intercept

import "strings"

// Tool names the program that installs rules.
type Tool string

// The tools.
const (
	NFT      Tool = "nft"
	IPTables Tool = "iptables"
)

// Condition says when a command runs, by its probe.
type Condition string

// The conditions.
const (
	Always Condition = ""
	Unless Condition = "unless" // the probe succeeds
	While  Condition = "while"  // the probe succeeds, again and again
)

// Command is one program to run. Arguments are fixed words: no shell reads them.
type Command struct {
	Argv  []string  `json:"argv"`
	Input string    `json:"input,omitempty"` // standard input
	When  Condition `json:"when,omitempty"`
	Probe []string  `json:"probe,omitempty"` // of Unless and While
}

// Plan are commands in their order.
type Plan []Command

// Script is the plan as lines that a POSIX shell runs with the same effect.
func (p Plan) Script() string {
	var b strings.Builder
	for i := range p {
		c := &p[i]
		argv, probe := strings.Join(c.Argv, " "), strings.Join(c.Probe, " ")
		switch {
		case c.When == Unless:
			b.WriteString(probe + " 2>/dev/null || " + argv + "\n")
		case c.When == While:
			b.WriteString("while " + probe + " 2>/dev/null; do " + argv + "; done\n")
		case c.Input != "":
			b.WriteString(argv + " <<'EOF'\n" + c.Input + "EOF\n")
		default:
			b.WriteString(argv + "\n")
		}
	}
	return b.String()
}

// Install is the plan that puts the rules of c in place of those there, in one transaction
// per family and table. c must be valid.
func (c *Config) Install(t Tool) Plan {
	if t == NFT {
		return Plan{{Argv: nftArgv, Input: nftReset + c.nft()}}
	}
	var p Plan
	if c.IPv4 {
		p = append(p, c.iptables(false)...)
	}
	if c.IPv6 {
		p = append(p, c.iptables(true)...)
	}
	return p
}

// RemovePlan takes every rule of this package away, and does nothing where there
// is none.
func RemovePlan(t Tool, ipv4, ipv6 bool) Plan {
	if t == NFT {
		return Plan{{Argv: nftArgv, Input: nftReset}}
	}
	var p Plan
	if ipv4 {
		p = append(p, iptablesRemoval(false)...)
	}
	if ipv6 {
		p = append(p, iptablesRemoval(true)...)
	}
	return p
}
