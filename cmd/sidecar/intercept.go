// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/intercept"
)

const interceptLong = `intercept makes the kernel lead the connections of this host or container (this
network namespace) through its sidecar, so that the application needs no proxy
setting. It installs rules and ends; nothing stays running.

  outbound  TCP connections that processes here make go to the sidecar's outbound
            port, except those of the sidecar itself (--sidecar-uid, --sidecar-gid),
            those to loopback, and what is excluded
  inbound   TCP connections from elsewhere to an address of this host go to the
            sidecar's inbound port, except to the sidecar's own ports and what is
            excluded (22 unless you say otherwise)
  DNS       with --dns, queries to any resolver go to the sidecar's DNS port

All rules are in the nftables table "outrigger", or where there is no nft in chains
of iptables that begin with OUTRIGGER. Running it again replaces them in one step;
connections that are open stay as they are. If the sidecar does not run, what is
intercepted fails: nothing goes around it. An application that runs as the sidecar's
user, or has NET_ADMIN, can go around it: this is no wall against the application.

It needs NET_ADMIN; the sidecar itself does not. In containers run it in an init
container (target "intercept" of the Dockerfile), see docs/interception.md.`

const interceptExample = `  # what would be done, as a script; needs no privileges
  sidecar intercept --dry-run

  # the sidecar runs as user 1500; a database and a network stay direct
  sidecar intercept --sidecar-uid 1500 --exclude-outbound-ports 5432 --exclude-outbound-networks 10.9.0.0/16

  # on a host with other work: only one application's port, nothing outbound
  sidecar intercept --direction inbound --inbound-ports 8080

  # mesh names too, as JSON for a script
  sidecar intercept --dns 127.0.0.1:15053 -o json

  # take everything away
  sidecar intercept --remove`

const interceptExitCodes = `Exit codes:
  0  the rules are as asked for (or were shown)
  1  a value is wrong; each error names its flag
  2  the command line cannot be read
  3  not permitted (NET_ADMIN), or another run holds the lock
  4  the tool is missing, or the kernel refuses the rules`

// interceptCall is the command line.
type interceptCall struct {
	dryRun, remove                         bool
	direction, inbound, outbound, admin    string
	dns, tool, family, inboundMode, output string
	inboundPorts, outboundPorts            []string
	excludeInboundPorts                    []string
	excludeOutboundPorts                   []string
	outboundNetworks                       []string
	excludeOutboundNetworks                []string
	excludeInboundNetworks                 []string
	sidecarUIDs, sidecarGIDs, uids, gids   []string
	mark                                   uint32
	timeout                                time.Duration
}

func newIntercept() *cobra.Command {
	k := &interceptCall{}
	c := &cobra.Command{
		Use:     "intercept [--dry-run|--remove]",
		Short:   "Lead the connections of this host or container through its sidecar",
		Long:    interceptLong + "\n\n" + interceptExitCodes,
		Example: interceptExample,
		Args:    noArguments,
		RunE:    func(c *cobra.Command, _ []string) error { return k.run(c) },
	}
	set := c.Flags()
	set.SortFlags = false
	set.BoolVar(&k.dryRun, "dry-run", false, "print the commands, and change nothing")
	set.BoolVar(&k.remove, "remove", false, "take all rules away; with --dry-run print how")
	set.StringVar(&k.direction, "direction", "both", "both, outbound or inbound")
	set.StringVar(&k.outbound, "outbound", defaultOutbound, "the sidecar's --outbound")
	set.StringVar(&k.inbound, "inbound", defaultInbound, "the sidecar's --inbound")
	set.StringVar(&k.admin, "admin", defaultAdmin, "the sidecar's --admin, which is never intercepted")
	set.StringVar(&k.dns, "dns", "", "the sidecar's --dns; without it DNS stays as it is")
	set.StringSliceVar(&k.sidecarUIDs, "sidecar-uid", []string{"65532"}, "users that the sidecar runs as: names, ids or ranges of ids")
	set.StringSliceVar(&k.sidecarGIDs, "sidecar-gid", []string{"65532"}, "groups that the sidecar runs as")
	set.StringSliceVar(&k.outboundPorts, "outbound-ports", nil, "intercept only connections to these ports, such as 80,8000-8010")
	set.StringSliceVar(&k.outboundNetworks, "outbound-networks", nil, "intercept only connections to these networks, such as 10.0.0.0/8,fd00::/8")
	set.StringSliceVar(&k.excludeOutboundPorts, "exclude-outbound-ports", nil, "leave connections to these ports alone")
	set.StringSliceVar(&k.excludeOutboundNetworks, "exclude-outbound-networks", nil, "leave connections to these networks alone")
	set.StringSliceVar(&k.inboundPorts, "inbound-ports", nil, "intercept only connections to these ports of this host")
	set.StringSliceVar(&k.excludeInboundPorts, "exclude-inbound-ports", []string{"22"}, "leave connections to these ports of this host alone")
	set.StringSliceVar(&k.excludeInboundNetworks, "exclude-inbound-networks", nil, "leave connections from these networks alone")
	set.StringSliceVar(&k.uids, "exclude-uids", nil, "leave connections of these users alone")
	set.StringSliceVar(&k.gids, "exclude-gids", nil, "leave connections of these groups alone")
	set.Uint32Var(&k.mark, "exclude-mark", 0, "leave packets with this mark (SO_MARK) alone; 0: none")
	set.StringVar(&k.inboundMode, "inbound-mode", "redirect", "redirect, or tproxy: the application's address is kept; the sidecar's listener must be transparent")
	set.StringVar(&k.family, "family", "both", "both, ipv4 or ipv6")
	set.StringVar(&k.tool, "tool", "auto", "auto, nft or iptables")
	set.DurationVar(&k.timeout, "timeout", 30*time.Second, "how long to wait for other runs and for the tools")
	bindOutput(c, &k.output)
	for flag, values := range map[string][]string{
		"direction": {"both", "outbound", "inbound"}, "inbound-mode": {"redirect", "tproxy"},
		"family": {"both", "ipv4", "ipv6"}, "tool": {"auto", "nft", "iptables"},
	} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c
}

// run does what is asked for and tells.
func (k *interceptCall) run(c *cobra.Command) error {
	if err := checkOutput(k.output); err != nil {
		return err
	}
	config, err := k.config()
	if err != nil {
		return err
	}
	var wanted intercept.Tool
	if k.tool != "auto" {
		wanted = intercept.Tool(k.tool)
	}
	ctx, cancel := context.WithTimeout(c.Context(), k.timeout)
	defer cancel()
	report := interceptReport{Action: "installed"}
	switch {
	case k.dryRun:
		report.Action = "shown"
		report.Result, err = k.show(config, wanted)
	case k.remove:
		report.Action = "removed"
		report.Result, err = intercept.Remove(ctx, wanted)
	default:
		report.Result, err = intercept.Apply(ctx, config, wanted)
	}
	if err != nil {
		return interceptError(err)
	}
	return k.tell(c, report)
}

// show makes the plan without privileges; where no tool is installed, for nft.
func (k *interceptCall) show(config intercept.Config, wanted intercept.Tool) (*intercept.Result, error) {
	choice, err := intercept.Choose(&config, wanted)
	r := &intercept.Result{Tool: choice.Tool, Notes: choice.Notes}
	if err != nil {
		if r.Tool = wanted; wanted == "" {
			r.Tool = intercept.NFT
		}
		r.Notes = append(r.Notes, err.Error())
	}
	if k.remove {
		r.Commands = intercept.RemovePlan(r.Tool, config.IPv4, config.IPv6)
	} else {
		r.Commands = config.Install(r.Tool)
	}
	return r, nil
}

// interceptReport is what -o json prints.
type interceptReport struct {
	Action string `json:"action"` // installed, removed or shown
	*intercept.Result
}

func (k *interceptCall) tell(c *cobra.Command, r interceptReport) error {
	if k.output == "json" {
		e := json.NewEncoder(c.OutOrStdout())
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	for _, note := range r.Notes {
		if _, err := fmt.Fprintln(c.ErrOrStderr(), "note:", note); err != nil {
			return err
		}
	}
	if k.dryRun {
		_, err := fmt.Fprint(c.OutOrStdout(), r.Commands.Script())
		return err
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "rules %s with %s\n", r.Action, r.Tool)
	return err
}

func interceptError(err error) error {
	switch {
	case errors.Is(err, intercept.ErrPrivilege), errors.Is(err, intercept.ErrLocked):
		return &codeError{code: exitBusy, err: err}
	case errors.Is(err, intercept.ErrNoTool), errors.Is(err, intercept.ErrKernel),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &codeError{code: exitFailed, err: err}
	}
	return err
}

// config reads the flags; every fault names its own.
func (k *interceptCall) config() (intercept.Config, error) {
	c := &check{}
	out := intercept.Config{IPv4: k.family != "ipv6", IPv6: k.family != "ipv4", ExcludeMark: k.mark}
	oneOf := func(flag, value string, values ...string) {
		if !slices.Contains(values, value) {
			c.fault(flag, "%q: want %s", value, strings.Join(values, " or "))
		}
	}
	oneOf("direction", k.direction, "both", "outbound", "inbound")
	oneOf("family", k.family, "both", "ipv4", "ipv6")
	oneOf("tool", k.tool, "auto", "nft", "iptables")
	oneOf("inbound-mode", k.inboundMode, "redirect", "tproxy")
	if k.inboundMode == "tproxy" {
		out.InboundMode = intercept.TProxy
	}
	if k.timeout <= 0 {
		c.fault("timeout", "%s: want more than 0", k.timeout)
	}
	outbound := k.port(c, "outbound", k.outbound, true)
	inbound := k.port(c, "inbound", k.inbound, false)
	if k.direction != "inbound" {
		out.Outbound = outbound
	} else {
		out.OwnPorts = append(out.OwnPorts, outbound)
	}
	if k.direction != "outbound" {
		out.Inbound = inbound
	}
	if k.dns != "" {
		out.DNS = k.port(c, "dns", k.dns, true)
	}
	if !strings.HasPrefix(k.admin, "unix:") {
		out.OwnPorts = append(out.OwnPorts, k.port(c, "admin", k.admin, false))
	}
	k.lists(c, &out)
	if err := errors.Join(c.faults...); err != nil {
		return out, err
	}
	return out, out.Validate()
}

func (k *interceptCall) lists(c *check, out *intercept.Config) {
	fault := func(flag string, err error) {
		if err != nil {
			c.fault(flag, "%w", err)
		}
	}
	var err error
	out.OutboundPorts, err = intercept.ParsePorts(k.outboundPorts)
	fault("outbound-ports", err)
	out.ExcludeOutboundPorts, err = intercept.ParsePorts(k.excludeOutboundPorts)
	fault("exclude-outbound-ports", err)
	out.InboundPorts, err = intercept.ParsePorts(k.inboundPorts)
	fault("inbound-ports", err)
	out.ExcludeInboundPorts, err = intercept.ParsePorts(k.excludeInboundPorts)
	fault("exclude-inbound-ports", err)
	out.OutboundNetworks, err = intercept.ParsePrefixes(k.outboundNetworks)
	fault("outbound-networks", err)
	out.ExcludeOutboundNetworks, err = intercept.ParsePrefixes(k.excludeOutboundNetworks)
	fault("exclude-outbound-networks", err)
	out.ExcludeInboundNetworks, err = intercept.ParsePrefixes(k.excludeInboundNetworks)
	fault("exclude-inbound-networks", err)
	out.SidecarUIDs, err = intercept.ParseIDs(k.sidecarUIDs, userID)
	fault("sidecar-uid", err)
	out.SidecarGIDs, err = intercept.ParseIDs(k.sidecarGIDs, groupID)
	fault("sidecar-gid", err)
	out.ExcludeUIDs, err = intercept.ParseIDs(k.uids, userID)
	fault("exclude-uids", err)
	out.ExcludeGIDs, err = intercept.ParseIDs(k.gids, groupID)
	fault("exclude-gids", err)
}

// port takes the port of an address that the sidecar listens on. Rules lead to
// loopback where local is set, so that another address would never be reached.
func (k *interceptCall) port(c *check, flag, value string, local bool) uint16 {
	if strings.HasPrefix(value, "unix:") {
		c.fault(flag, "%q: connections cannot be led to a Unix socket; want [ADDRESS]:PORT", value)
		return 0
	}
	faults := len(c.faults)
	c.listen(flag, value)
	if len(c.faults) > faults {
		return 0
	}
	host, text, _ := net.SplitHostPort(value)
	if local && host != "" && host != "0.0.0.0" && host != "::" && !loopback(value) {
		c.fault(flag, "%q: rules lead to loopback; want 127.0.0.1:PORT", value)
	}
	n, _ := strconv.ParseUint(text, 10, 16)
	if n == 0 {
		c.fault(flag, "%q: want a fixed port", value)
	}
	return uint16(n)
}

func userID(name string) (uint32, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, errors.New("no such user on this host; want an id")
	}
	return idOf(u.Uid)
}

func groupID(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, errors.New("no such group on this host; want an id")
	}
	return idOf(g.Gid)
}

func idOf(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err
}
