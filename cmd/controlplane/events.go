// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/rest"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/event"
)

// eventQuery is what the command asks.
type eventQuery struct {
	service, sidecar, output string
	kinds                    []string
	follow                   bool
}

func newEvents(c *client) *cobra.Command {
	var q eventQuery
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what has happened in the mesh, with what sidecars have decided and why",
		Long: `events shows recent changes of objects, instances and sidecars, and what sidecars
report: endpoints that were ejected, spared or taken back, circuits, panic mode, health
checks, panics of callbacks, overload, drains and upgrades, each with the numbers at the
decision. "sidecar events" shows those of one sidecar at its own admin port.`,
		Example: `  controlplane events --service orders
  controlplane events --follow --kind ejection,circuit
  controlplane events --sidecar web~web-1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(q.output, outputJSON...); err != nil {
				return err
			}
			for _, k := range q.kinds {
				if _, err := rest.EventKind(k); err != nil {
					return exitWith(exitUsage, "--kind: %w", err)
				}
			}
			return c.events(cmd.Context(), q)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.service, "service", "", "only events of this service, its instances and sidecars, and the objects that name it")
	f.StringVar(&q.sidecar, "sidecar", "", "only events of the sidecar with this node id")
	f.StringSliceVar(&q.kinds, "kind", nil, "only these `kinds`, comma separated: "+strings.Join(event.Kinds[:], ", ")+", instance, sidecar, file, resource, or a kind of objects")
	f.BoolVarP(&q.follow, "follow", "f", false, "go on with those that come, until a signal")
	bindOutput(cmd, &q.output, "", "json for scripts", outputJSON...)
	completeFlagWith(cmd, "sidecar", always(c.nodeNames))
	completeFlagWith(cmd, "service", always(c.serviceNames))
	completeFlagWith(cmd, "kind", listed(rest.EventKinds()))
	return c.bind(cmd)
}

func (c *client) events(ctx context.Context, q eventQuery) error {
	v := url.Values{}
	for name, value := range map[string]string{"service": q.service, "sidecar": q.sidecar, "kind": strings.Join(q.kinds, ",")} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.follow {
		return c.followEvents(ctx, v, q.output)
	}
	var all []json.RawMessage
	for {
		v.Set("limit", "1000")
		var answer struct{ Items []json.RawMessage }
		if _, err := c.call(ctx, http.MethodGet, "/v1/events", v, nil, &answer); err != nil {
			return err
		}
		all = append(all, answer.Items...)
		if len(answer.Items) < 1000 {
			break
		}
		var last store.Event
		if err := json.Unmarshal(all[len(all)-1], &last); err != nil {
			return c.stranger(err)
		}
		v.Set("after", fmt.Sprint(last.Sequence))
	}
	if q.output == "json" {
		if all == nil {
			all = []json.RawMessage{}
		}
		return writeJSON(c.io.out, map[string]any{"items": all})
	}
	for _, data := range all {
		if err := c.printEvent(data); err != nil {
			return err
		}
	}
	return nil
}

// followEvents prints events as they come; as JSON, a line each.
func (c *client) followEvents(ctx context.Context, v url.Values, output string) error {
	v.Set("watch", "true")
	resp, err := c.open(ctx, "/v1/events", v)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Close() }() // only read
	err = event.ReadFrames(resp, func(f event.Frame) error {
		switch {
		case f.Type == "reset":
			return errors.New("this reader fell behind, and events were missed: run it again")
		case output == "json":
			line, err := jsonLine(f.Data)
			if err != nil {
				return c.stranger(err)
			}
			_, err = fmt.Fprintln(c.io.out, line)
			return err
		}
		return c.printEvent([]byte(f.Data))
	})
	if ctx.Err() != nil {
		return nil // the end that was asked for
	}
	return exitWith(exitUnreachable, "%w", errors.Join(errors.New("the control plane has ended the stream"), err))
}

// printEvent writes an event as people read it.
func (c *client) printEvent(data []byte) error {
	var e store.Event
	if err := json.Unmarshal(data, &e); err != nil {
		return c.stranger(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s ", e.Time.Local().Format("2006-01-02T15:04:05.000Z07:00"))
	if e.Sidecar != "" {
		b.WriteString(e.Sidecar + " ")
	}
	b.WriteString(e.Kind + " " + e.Type)
	for _, s := range []string{e.Cluster, e.Endpoint, e.Name} {
		if s != "" && s != e.Sidecar {
			b.WriteString(" " + s)
		}
	}
	if m := strings.Join(append([]string{e.Message}, e.Errors...), "; "); strings.Trim(m, "; ") != "" {
		b.WriteString(": " + strings.Trim(m, "; "))
	}
	if !e.Until.IsZero() {
		fmt.Fprintf(&b, "; until %s", e.Until.Local().Format(time.TimeOnly))
	}
	if len(e.Numbers) > 0 {
		fmt.Fprintf(&b, " (%s)", e.Numbers)
	}
	_, err := fmt.Fprintln(c.io.out, printable(b.String()))
	return err
}
