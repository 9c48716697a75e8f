// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func kindsHelp() string {
	var b strings.Builder
	b.WriteString("Kinds:\n")
	for _, k := range mesh.Kinds() {
		fmt.Fprintf(&b, "  %-16s %s\n", k.Plural, k.About)
	}
	b.WriteString("  instances        What the registry knows; the name is a service.\n")
	b.WriteString("  events           What happened lately.\n")
	b.WriteString("  all              All objects, and the services that the registry alone knows.")
	return b.String()
}

func newGet(c *client) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "get KIND [NAME] | get KIND/NAME | get all",
		Short: "Show objects, services, instances or events",
		Long: `get lists objects of a kind, or shows one. SOURCE is api for what was applied or put,
and the file for what is from the folder of serve --config, which goes before the API.

What -o yaml writes can be applied again. A service without an object is shown as one
would be, with the source registry. -o wide adds labels of instances, warnings of objects.

` + kindsHelp(),
		Example: `  controlplane get httproutes
  controlplane get trafficpolicy/payments -o yaml
  controlplane get all
  controlplane get services -o wide
  controlplane get instances payments -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return exitWith(exitUsage, "want a kind: %s", oneOf(kindNames()))
			case len(args) == 2 && strings.Contains(args[0], "/"):
				return exitWith(exitUsage, "want KIND NAME or KIND/NAME, one at a time, got %s %s", args[0], args[1])
			case len(args) > 2:
				return exitWith(exitUsage, "want a kind and at most one name, got %d arguments", len(args))
			}
			return nil
		},
		ValidArgsFunction: c.offersNames(c.getArguments),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, outputObjects...); err != nil {
				return err
			}
			kind, name, slash := strings.Cut(args[0], "/")
			if len(args) == 2 {
				name = args[1]
			}
			if name == "" && (slash || len(args) == 2) {
				return exitWith(exitUsage, "the name is empty: want KIND/NAME, such as httproute/payments")
			}
			return c.get(cmd.Context(), kind, name, output)
		},
	}
	bindOutput(cmd, &output, "", "yaml, json or wide; a table when empty", outputObjects...)
	return c.bind(cmd)
}

func (c *client) get(ctx context.Context, kind, name, output string) error {
	asTable := output == "" || output == "wide"
	switch strings.ToLower(kind) {
	case "instance", "instances":
		return c.getInstances(ctx, name, output)
	case "event", "events":
		if name != "" {
			return exitWith(exitUsage, "events have no names")
		}
		return c.getEvents(ctx, output)
	case "all":
		if name != "" {
			return exitWith(exitUsage, "get all takes no name")
		}
		return c.getAll(ctx, output)
	}
	k, err := mesh.KindNamed(kind)
	if err != nil {
		return exitWith(exitUsage, "%w; get also takes instances, events and all", err)
	}
	if k.Name == mesh.KindService && asTable {
		return c.getServices(ctx, name)
	}
	if name != "" {
		data, _, err := c.raw(ctx, http.MethodGet, "/v1/objects/"+k.Name+"/"+url.PathEscape(name), nil, nil)
		if p, ok := asProblem(err); ok && p.Status == http.StatusNotFound && k.Name == mesh.KindService {
			data, err = c.registered(ctx, name)
		}
		if err != nil {
			return notFound(err, k.Name+"/"+name)
		}
		if !asTable {
			return writeRaw(c.io.out, output, data)
		}
		return c.objectTable([]json.RawMessage{data}, output == "wide")
	}
	items, err := pages[json.RawMessage](ctx, c, "/v1/objects", url.Values{"kind": {k.Name}})
	if err != nil {
		return err
	}
	if k.Name == mesh.KindService {
		more, err := c.allRegistered(ctx)
		if err != nil {
			return err
		}
		items = append(items, more...)
	}
	if asTable {
		return c.objectTable(items, output == "wide")
	}
	return c.writeObjects(items, output)
}

// writeObjects writes objects as JSON, or as documents of YAML.
func (c *client) writeObjects(items []json.RawMessage, output string) error {
	if output == "json" {
		return writeList(c, items)
	}
	for i, item := range items {
		if i > 0 {
			fmt.Fprintln(c.io.out, "---")
		}
		if err := writeRaw(c.io.out, output, item); err != nil {
			return err
		}
	}
	return nil
}

func notFound(err error, what string) error {
	if p, ok := asProblem(err); ok && p.Status == http.StatusNotFound {
		return exitWith(exitNotFound, "%s: there is no such thing", what)
	}
	return err
}

func writeList(c *client, items []json.RawMessage) error {
	if items == nil {
		items = []json.RawMessage{}
	}
	body, err := json.Marshal(map[string]any{"items": items})
	if err != nil {
		return err
	}
	return writeRaw(c.io.out, "json", body)
}

type serviceRow struct {
	Name      string      `json:"name"`
	Declared  bool        `json:"declared"`
	Ports     []mesh.Port `json:"ports"`
	Instances int         `json:"instances"`
	Healthy   int         `json:"healthy"`
	Held      int         `json:"held"`
}

func (c *client) getServices(ctx context.Context, name string) error {
	var list []serviceRow
	var err error
	if name != "" {
		list = make([]serviceRow, 1)
		if _, err = c.call(ctx, http.MethodGet, "/v1/services/"+url.PathEscape(name), nil, nil, &list[0]); err != nil {
			return notFound(err, "service "+name)
		}
	} else if list, err = pages[serviceRow](ctx, c, "/v1/services", nil); err != nil {
		return err
	}
	var rows [][]string
	for _, s := range list {
		var ports []string
		for _, p := range s.Ports {
			ports = append(ports, strconv.Itoa(int(p.Port)))
		}
		from := "registry"
		if s.Declared {
			from = "object"
		}
		rows = append(rows, []string{s.Name, from, strings.Join(ports, ","), strconv.Itoa(s.Instances), strconv.Itoa(s.Healthy), strconv.Itoa(s.Held)})
	}
	return table(c.io.out, []string{"NAME", "FROM", "PORTS", "INSTANCES", "HEALTHY", "HELD"}, rows)
}

func (c *client) getInstances(ctx context.Context, service, output string) error {
	names := []string{service}
	if service == "" {
		list, err := pages[serviceRow](ctx, c, "/v1/services", nil)
		if err != nil {
			return err
		}
		names = names[:0]
		for _, s := range list {
			names = append(names, s.Name)
		}
	}
	var raw []json.RawMessage
	for _, n := range names {
		list, err := pages[json.RawMessage](ctx, c, "/v1/services/"+url.PathEscape(n)+"/instances", nil)
		if err != nil {
			return notFound(err, "service "+n)
		}
		raw = append(raw, list...)
	}
	if output == "json" || output == "yaml" {
		if raw == nil {
			raw = []json.RawMessage{}
		}
		body, err := json.Marshal(map[string]any{"items": raw})
		if err != nil {
			return err
		}
		return writeRaw(c.io.out, output, body)
	}
	var rows [][]string
	for _, item := range raw {
		var i mesh.Instance
		if err := json.Unmarshal(item, &i); err != nil {
			return c.stranger(err)
		}
		health := i.Health.String()
		if i.Held {
			health += " (held)"
		}
		row := []string{i.Service, i.ID, i.Address + ":" + strconv.Itoa(int(i.Port)), health, i.Version, i.Zone}
		if output == "wide" {
			row = append(row, strconv.Itoa(int(i.EffectiveWeight())), mesh.LabelText(i.Metadata), i.Node)
		}
		rows = append(rows, row)
	}
	header := []string{"SERVICE", "ID", "ADDRESS", "HEALTH", "VERSION", "ZONE"}
	if output == "wide" {
		header = append(header, "WEIGHT", "LABELS", "NODE")
	}
	return table(c.io.out, header, rows)
}

func (c *client) getEvents(ctx context.Context, output string) error {
	data, _, err := c.raw(ctx, http.MethodGet, "/v1/events", url.Values{"limit": {"1000"}}, nil)
	if err != nil {
		return err
	}
	if output == "json" || output == "yaml" {
		return writeRaw(c.io.out, output, data)
	}
	var answer struct {
		Items []struct {
			Time                      time.Time
			Type, Kind, Name, Message string
			Errors                    []string
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return c.stranger(err)
	}
	var rows [][]string
	for _, e := range answer.Items {
		message := strings.Join(append([]string{e.Message}, e.Errors...), "; ")
		rows = append(rows, []string{e.Time.Local().Format(time.TimeOnly), e.Type, e.Kind, e.Name, strings.Trim(message, "; ")})
	}
	return table(c.io.out, []string{"TIME", "TYPE", "KIND", "NAME", "MESSAGE"}, rows)
}
