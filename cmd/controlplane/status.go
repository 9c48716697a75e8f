// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/rest"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func newStatus(c *client) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status [NODE|SERVICE]",
		Short: "Show the control plane and what each sidecar made of its configuration",
		Long: `status shows the control plane, unhealthy instances, objects with warnings, the
configuration files with errors, and each sidecar: connected since when, whether it has
accepted the latest, what it refused and why, what it still misses, which endpoints it has
ejected, and whether other sidecars have its node id, too. With a node id or a service, in
detail and of those sidecars alone.`,
		Example: `  controlplane status
  controlplane status orders~orders-1
  controlplane status orders
  controlplane status -o json | jq '.sidecars[] | select(.synced | not)'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exitWith(exitUsage, "want one node id or service at most, got %d: %s", len(args), strings.Join(args, " "))
			}
			return nil
		},
		ValidArgsFunction: once(c.sidecarNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, outputJSON...); err != nil {
				return err
			}
			node := ""
			if len(args) == 1 {
				node = args[0]
			}
			return c.status(cmd.Context(), node, output)
		},
	}
	bindOutput(cmd, &output, "", "json for scripts", outputJSON...)
	return c.bind(cmd)
}

// statusAnswer is what the command reads of /v1/status.
type statusAnswer struct {
	Version   string
	Started   time.Time
	Ready     bool
	NotReady  string
	Services  int
	Instances int
	Held      int
	Unhealthy int
	// UnhealthyInstances are the first of them.
	UnhealthyInstances []struct {
		Service, ID, Address string
		Health               mesh.Health
	}
	Objects map[string]int
	Warned  int
	// WarnedObjects are the first of them.
	WarnedObjects []struct {
		Kind, Name string
		Warnings   []string
	}
	Files         map[string]mesh.Errors
	NotUnderstood []struct {
		Kind, Name string
		Errors     mesh.Errors
	}
}

func (c *client) status(ctx context.Context, node, output string) error {
	var raw json.RawMessage
	if _, err := c.call(ctx, http.MethodGet, "/v1/status", nil, nil, &raw); err != nil {
		return err
	}
	sidecars, err := pages[rest.Sidecar](ctx, c, "/v1/sidecars", nil)
	if p, ok := asProblem(err); ok && p.Status == http.StatusServiceUnavailable {
		sidecars, err = []rest.Sidecar{}, nil
	}
	if err != nil {
		return err
	}
	if node != "" {
		if sidecars, err = c.sidecarsNamed(ctx, sidecars, node); err != nil {
			return err
		}
	}
	if output == "json" {
		return writeJSON(c.io.out, map[string]any{"controlplane": raw, "sidecars": sidecars})
	}
	var s statusAnswer
	if err := json.Unmarshal(raw, &s); err != nil {
		return c.stranger(err)
	}
	if node == "" {
		c.printStatus(s)
	}
	return c.printSidecars(sidecars, node != "")
}

// sidecarsNamed is the sidecar of a node id, or those of a service.
func (c *client) sidecarsNamed(ctx context.Context, all []rest.Sidecar, name string) ([]rest.Sidecar, error) {
	var out []rest.Sidecar
	names := []string{}
	for _, s := range all {
		if s.Node == name {
			return []rest.Sidecar{s}, nil
		}
		if s.Service == name {
			out = append(out, s)
		}
		names = append(names, s.Node)
	}
	if len(out) > 0 {
		return out, nil
	}
	services := c.serviceNames(ctx)
	if slices.Contains(services, name) {
		return nil, exitWith(exitNotFound, "service %s has no sidecar that is or was connected: its instances are registered by others (controlplane get instances %s)", name, name)
	}
	hint := ""
	if near := mesh.Nearest(name, append(names, services...)); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	return nil, exitWith(exitNotFound, "no sidecar has the node id %q, and no service is of that name%s (controlplane status lists the sidecars, controlplane get services the services)", name, hint)
}

func (c *client) printStatus(s statusAnswer) {
	state := paint(c.io.out, green, "ready")
	if !s.Ready {
		state = paint(c.io.out, red, "not ready: "+printable(s.NotReady))
	}
	fmt.Fprintf(c.io.out, "control plane %s, up %s, %s\n", s.Version, age(s.Started, time.Now()), state)
	held := ""
	if s.Held > 0 {
		held = paint(c.io.out, yellow, fmt.Sprintf(" (%d held by the shrink guard)", s.Held))
	}
	unhealthy := ""
	if s.Unhealthy > 0 {
		unhealthy = paint(c.io.out, red, fmt.Sprintf(" (%d unhealthy)", s.Unhealthy))
	}
	fmt.Fprintf(c.io.out, "%s, %s%s%s", counted(s.Services, "service"), counted(s.Instances, "instance"), unhealthy, held)
	for _, k := range slices.Sorted(maps.Keys(s.Objects)) {
		if n := s.Objects[k]; n > 0 {
			fmt.Fprintf(c.io.out, ", %d %s", n, k)
		}
	}
	fmt.Fprintln(c.io.out)
	for _, i := range s.UnhealthyInstances {
		fmt.Fprintf(c.io.out, "%s %s/%s %s is %s\n", paint(c.io.out, red, "!"), printable(i.Service), printable(i.ID), printable(i.Address), i.Health)
	}
	if more := s.Unhealthy - len(s.UnhealthyInstances); more > 0 {
		fmt.Fprintf(c.io.out, "%s and %d more: controlplane get instances\n", paint(c.io.out, red, "!"), more)
	}
	for _, o := range s.WarnedObjects {
		for _, w := range o.Warnings {
			fmt.Fprintf(c.io.out, "%s %s/%s: %s\n", paint(c.io.out, yellow, "!"), o.Kind, printable(o.Name), printable(w))
		}
	}
	if more := s.Warned - len(s.WarnedObjects); more > 0 {
		fmt.Fprintf(c.io.out, "%s and %s with warnings more: controlplane get all -o wide\n", paint(c.io.out, yellow, "!"), counted(more, "object"))
	}
	for _, f := range slices.Sorted(maps.Keys(s.Files)) {
		fmt.Fprintf(c.io.out, "%s its last good objects stay in force\n", paint(c.io.out, red, "configuration file "+printable(f)+" has errors,"))
		for _, e := range s.Files[f] {
			fmt.Fprintln(c.io.out, "  "+printable(e.Error()))
		}
	}
	for _, o := range s.NotUnderstood {
		fmt.Fprintf(c.io.out, "%s is in the store and not in force, as this version does not understand it\n", paint(c.io.out, red, o.Kind+"/"+printable(o.Name)))
		for _, e := range o.Errors {
			fmt.Fprintln(c.io.out, "  "+printable(e.Error()))
		}
	}
	fmt.Fprintln(c.io.out)
}

func (c *client) printSidecars(list []rest.Sidecar, detail bool) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(c.io.out, "no sidecar has connected yet: sidecar --service NAME --app HOST:PORT --controlplane HOST:PORT")
		return err
	}
	now := time.Now()
	var rows [][]string
	for _, s := range list {
		state := "left " + age(s.LeftAt, now) + " ago"
		if s.Connected {
			state = age(s.Since, now)
		}
		rows = append(rows, []string{s.Node, s.Service, state, configState(s), s.Inbound, s.Client})
	}
	if err := table(c.io.out, []string{"SIDECAR", "SERVICE", "CONNECTED", "CONFIGURATION", "INBOUND", "CLIENT"}, rows); err != nil {
		return err
	}
	for _, s := range list {
		if len(s.Shared) > 0 {
			by := make([]string, len(s.Shared))
			for i, x := range s.Shared {
				by[i] = printable(x.Remote) + " since " + age(x.Since, now)
			}
			fmt.Fprintf(c.io.out, "%s %s is the node id of %d sidecars at once (%s): what is shown of it is of all of them; give each its own --id\n", paint(c.io.out, red, "!"), printable(s.Node),
				len(s.Shared), strings.Join(by, ", "))
		}
		for _, x := range s.Ejected {
			fmt.Fprintf(c.io.out, "%s %s has ejected %s of %s since %s, until %s: %s\n", paint(c.io.out, yellow, "!"), printable(s.Node), printable(x.Endpoint), printable(x.Cluster),
				age(x.Since, now), x.Until.Local().Format(time.TimeOnly), printable(x.Detector))
		}
		for _, t := range s.Types {
			if detail {
				fmt.Fprintf(c.io.out, "  %s: accepted %s, latest %s\n", shortType(t.Type), printable(t.Accepted), printable(t.Latest))
			}
			for _, r := range t.Rejected {
				fmt.Fprintf(c.io.out, "%s %s refused %s %s: %s\n", paint(c.io.out, red, "!"), printable(s.Node), shortType(t.Type), printable(r.Resource), printable(r.Reason))
			}
			if len(t.Missing) > 0 {
				fmt.Fprintf(c.io.out, "%s %s misses %s %s\n", paint(c.io.out, yellow, "!"), printable(s.Node), shortType(t.Type), printable(strings.Join(t.Missing, ", ")))
			}
		}
	}
	return nil
}

// configState says in a word or two what a sidecar made of its configuration.
func configState(s rest.Sidecar) string {
	rejected, missing, pending := 0, 0, 0
	for _, t := range s.Types {
		rejected += len(t.Rejected)
		missing += len(t.Missing)
		if t.Pending {
			pending++
		}
	}
	var out []string
	for _, x := range []struct {
		n    int
		what string
	}{{rejected, "refused"}, {missing, "missing"}, {pending, "pending"}} {
		if x.n > 0 {
			out = append(out, strconv.Itoa(x.n)+" "+x.what)
		}
	}
	if len(out) == 0 && s.Synced {
		return "accepted"
	}
	return strings.Join(out, ", ")
}

// shortType is the last part of a type URL.
func shortType(url string) string { return printable(url[strings.LastIndexByte(url, '.')+1:]) }
