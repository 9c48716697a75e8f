// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// What can stop rules from being installed, for errors.Is.
var (
	ErrPrivilege = errors.New("not permitted")
	ErrNoTool    = errors.New("no tool")
	ErrLocked    = errors.New("locked")
	ErrKernel    = errors.New("the kernel refuses the rules")
)

// maxWhile ends a loop whose command does not do what it says.
const maxWhile = 64

// maxToolOutput is how much of what a tool says goes into an error.
const maxToolOutput = 2000

// Choice is the tool that rules are installed with, and what the host lacks.
type Choice struct {
	Tool  Tool
	Notes []string
}

// Result is what has been done.
type Result struct {
	Tool     Tool     `json:"tool"`
	Commands Plan     `json:"commands"`
	Notes    []string `json:"notes,omitempty"`
}

// Choose finds the tool without privileges: the wanted one, or where it is empty
// nft if it is installed and iptables otherwise. IPv6 is left out of c, with a note, where the
// host has none.
func Choose(c *Config, wanted Tool) (Choice, error) {
	var ch Choice
	if c.IPv6 && !hostHasIPv6() {
		c.IPv6 = false
		ch.Notes = append(ch.Notes, "this host has no IPv6: no rules for it")
	}
	if wanted == "" || wanted == NFT {
		if _, err := exec.LookPath("nft"); err == nil {
			ch.Tool = NFT
			return ch, nil
		} else if wanted == NFT {
			return ch, fmt.Errorf("%w: nft is not installed (package nftables)", ErrNoTool)
		}
	}
	missing := missingIPTables(c.IPv4, c.IPv6)
	if len(missing) == 0 {
		ch.Tool = IPTables
		return ch, nil
	}
	if wanted == IPTables {
		return ch, fmt.Errorf("%w: %s: not installed (package iptables)", ErrNoTool, strings.Join(missing, ", "))
	}
	return ch, fmt.Errorf("%w: neither nft nor iptables is installed: install the package nftables where this runs, such as the image of the init container", ErrNoTool)
}

func missingIPTables(ipv4, ipv6 bool) []string {
	var missing []string
	for _, v6 := range []bool{false, true} {
		if v6 && !ipv6 || !v6 && !ipv4 {
			continue
		}
		for _, name := range []string{iptablesProgram(v6), iptablesProgram(v6) + "-restore"} {
			if _, err := exec.LookPath(name); err != nil {
				missing = append(missing, name)
			}
		}
	}
	return missing
}

func hostHasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// Apply installs the rules of c in the network namespace of the caller, in place
// of those of an earlier call. Where no tool is asked for and the kernel does not
// take nft's rules, iptables is tried. It waits for other callers until ctx ends.
func Apply(ctx context.Context, c Config, wanted Tool) (*Result, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	ch, err := Choose(&c, wanted)
	if err != nil {
		return nil, err
	}
	unlock, err := enter(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r := &Result{Tool: ch.Tool, Notes: ch.Notes, Commands: c.Install(ch.Tool)}
	err = r.Commands.run(ctx)
	if err != nil && ch.Tool == NFT && wanted == "" && len(missingIPTables(c.IPv4, c.IPv6)) == 0 {
		r.Notes = append(r.Notes, "nft could not install the rules, iptables is used: "+firstLine(err.Error()))
		r.Tool, r.Commands = IPTables, c.Install(IPTables)
		err = r.Commands.run(ctx)
	}
	if err != nil {
		return nil, err
	}
	// Rules of the other tool would be followed as well.
	if r.Tool == IPTables {
		if _, err := exec.LookPath("nft"); err != nil {
			return r, nil
		}
		_ = RemovePlan(NFT, true, true).run(ctx) // fails where the kernel has no nftables: then there are none
		return r, nil
	}
	return r, r.removeIPTables(ctx)
}

// Remove takes all rules away, of both tools where they are installed; without any
// it succeeds.
func Remove(ctx context.Context, wanted Tool) (*Result, error) {
	c := Config{IPv4: true, IPv6: true}
	ch, err := Choose(&c, wanted)
	if err != nil {
		return nil, err
	}
	unlock, err := enter(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r := &Result{Tool: ch.Tool, Notes: ch.Notes}
	if ch.Tool == NFT {
		r.Commands = RemovePlan(NFT, true, true)
		if err := r.Commands.run(ctx); err != nil && (wanted == NFT || len(missingIPTables(true, c.IPv6)) > 0) {
			return nil, err
		}
	}
	if wanted == NFT {
		return r, nil
	}
	return r, r.removeIPTables(ctx)
}

// removeIPTables removes chains of iptables from the families that have some. It
// looks first: the tools would make empty tables that were not there.
func (r *Result) removeIPTables(ctx context.Context) error {
	for _, v6 := range []bool{false, true} {
		if len(missingIPTables(!v6, v6)) > 0 || v6 && !hostHasIPv6() {
			continue
		}
		found, err := hasChains(ctx, v6)
		if err != nil || !found {
			continue // no such family in this kernel, or nothing of ours
		}
		p := RemovePlan(IPTables, !v6, v6)
		r.Commands = append(r.Commands, p...)
		if err := p.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

func hasChains(ctx context.Context, v6 bool) (bool, error) {
	out, err := exec.CommandContext(ctx, iptablesProgram(v6)+"-save").Output()
	return bytes.Contains(out, []byte(":"+ChainPrefix+"_")), err
}

// enter checks privileges and takes the lock.
func enter(ctx context.Context) (unlock func(), err error) {
	if err := CheckPrivileges(); err != nil {
		return nil, err
	}
	return lock(ctx, lockName)
}

func (p Plan) run(ctx context.Context) error {
	for i := range p {
		c := &p[i]
		for range maxWhile {
			if c.When != Always {
				held := runTool(ctx, c.Probe, "") == nil
				if held == (c.When == Unless) {
					break
				}
			}
			if err := runTool(ctx, c.Argv, c.Input); err != nil {
				return err
			}
			if c.When != While {
				break
			}
		}
	}
	return nil
}

// runTool runs a program with a fixed environment, so that its words can be read.
func runTool(ctx context.Context, argv []string, input string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), context.Cause(ctx))
	}
	text := strings.TrimSpace(string(out[:min(len(out), maxToolOutput)]))
	kind := ErrKernel
	if strings.Contains(text, "Operation not permitted") || strings.Contains(text, "Permission denied") {
		kind = ErrPrivilege
	}
	return fmt.Errorf("%w: %s: %w\n%s", kind, strings.Join(argv, " "), err, text)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
