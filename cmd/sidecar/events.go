// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
)

const (
	eventsPath = "/events"
	eventsLong = `events shows what the sidecar that runs on this host has decided, and what has
happened to it, each with the numbers at the decision: endpoints that were ejected,
spared or taken back, circuits, panic mode, health checks, refused configuration
(nack), panics of callbacks, overload, drains and upgrades. The last 256 of each
kind are kept. "controlplane events" shows those of the whole mesh.`
)

// eventsCall is what the command asks.
type eventsCall struct {
	adminCall
	kinds  []string
	since  uint64
	follow bool
	output string
}

func newEvents() *cobra.Command {
	var call eventsCall
	c := &cobra.Command{
		Use:   "events",
		Short: "Say what this sidecar has decided: ejections, circuits, refusals, with their numbers",
		Long:  eventsLong,
		Example: `  sidecar events
  sidecar events --follow --kind ejection,circuit
  sidecar events -o json | jq '.[] | select(.cluster == "outbound|payments")'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(call.output); err != nil {
				return err
			}
			return call.run(c.Context(), c.OutOrStdout())
		},
	}
	c.Flags().StringSliceVar(&call.kinds, "kind", nil, "only these kinds: "+strings.Join(event.Kinds[:], ", "))
	c.Flags().Uint64Var(&call.since, "since", 0, "only events behind the one with this id")
	c.Flags().BoolVarP(&call.follow, "follow", "f", false, "go on with those that come, until a signal")
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(event.Kinds[:], cobra.ShellCompDirectiveNoFileComp))
	call.bind(c)
	bindOutput(c, &call.output)
	return c
}

func (e *eventsCall) run(ctx context.Context, out io.Writer) error {
	for _, k := range e.kinds {
		if !slices.Contains(event.Kinds[:], strings.ToLower(k)) {
			return usageError{fmt.Errorf("--kind: want some of %s, got %q", strings.Join(event.Kinds[:], ", "), k)}
		}
	}
	query := url.Values{}
	if len(e.kinds) > 0 {
		query.Set("kind", strings.Join(e.kinds, ","))
	}
	if e.since > 0 {
		query.Set("since", fmt.Sprint(e.since))
	}
	if e.follow {
		return e.stream(ctx, query, out)
	}
	data, err := e.get(ctx, eventsPath, query)
	if err != nil {
		return err
	}
	var list []event.Event
	if err := json.Unmarshal(data, &list); err != nil {
		return e.stranger(fmt.Sprintf("%.*q", maxStrangerBytes, data))
	}
	if e.output == "json" {
		_, err := out.Write(data)
		return err
	}
	for i := range list {
		if _, err := fmt.Fprintln(out, eventLine(&list[i])); err != nil {
			return err
		}
	}
	return nil
}

// stream prints events as they come; as JSON, a line each.
func (e *eventsCall) stream(ctx context.Context, query url.Values, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	body, err := e.open(ctx, eventsPath, query, eventStreamType)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // only read
	err = event.ReadFrames(body, func(f event.Frame) error {
		if f.Type == event.Missed {
			if e.output == "json" {
				return nil
			}
			_, err := fmt.Fprintln(out, "… events were missed")
			return err
		}
		if e.output == "json" {
			_, err := fmt.Fprintln(out, f.Data)
			return err
		}
		var x event.Event
		if err := json.Unmarshal([]byte(f.Data), &x); err != nil {
			return e.stranger(fmt.Sprintf("%.*q", maxStrangerBytes, f.Data))
		}
		_, err := fmt.Fprintln(out, eventLine(&x))
		return err
	})
	if ctx.Err() != nil {
		return nil // the end that was asked for
	}
	return &codeError{exitUnreachable, errors.Join(errors.New("the sidecar has ended the stream"), err)}
}

// eventLine is an event as people read it.
func eventLine(e *event.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", e.Time.Local().Format("2006-01-02T15:04:05.000Z07:00"), e.Kind, e.Type)
	for _, s := range []string{e.Cluster, e.Endpoint, e.Name} {
		if s != "" {
			b.WriteString(" " + s)
		}
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if !e.Until.IsZero() {
		fmt.Fprintf(&b, "; until %s", e.Until.Local().Format(time.TimeOnly))
	}
	if len(e.Numbers) > 0 {
		fmt.Fprintf(&b, " (%s)", e.Numbers)
	}
	return printable(b.String())
}

// logEvents makes the log of events write lines where --event-log says.
func (d *plane) logEvents() error {
	path := d.env.Options.EventLog
	if path == "" {
		return nil
	}
	write, err := d.logs.Lines(path)
	if err != nil {
		return fmt.Errorf("--event-log: %w", err)
	}
	d.env.Events.WriteLines(write)
	return nil
}

// ejectionLog writes lines of outlier detection where the bootstrap says; nil: nowhere.
func (d *plane) ejectionLog() (write func(line []byte), err error) {
	path := d.boot.EjectionLog
	if path == "" {
		return nil, nil
	}
	if write, err = d.logs.Lines(path); err != nil {
		return nil, fmt.Errorf("cluster_manager.outlier_detection.event_log_path: %w", err)
	}
	return write, nil
}

// tellRefused tells of configuration that is not taken.
func (d *plane) tellRefused(r client.Refusal) {
	name := r.Kind
	if r.Name != "" {
		name += " " + r.Name
	}
	message := r.Reason
	if r.Version != "" {
		message += " (version " + r.Version + " of " + r.Source + ")"
	}
	d.env.Events.Add(event.Event{Kind: event.KindNACK, Type: event.Refused, Name: name, Message: message})
}

// tellUpgrade tells of a step of an upgrade, with the process at the other end.
func (s *process) tellUpgrade(typ string, pid int, message string) {
	s.events.Add(event.Event{
		Kind: event.KindUpgrade, Type: typ, Name: fmt.Sprintf("pid %d", pid), Message: message,
		Numbers: event.Numbers{{Name: "epoch", Value: float64(s.epoch)}},
	})
}

// Ejected implements dataPlane.
func (d *plane) Ejected() []agent.Ejected {
	now := d.proxy.EjectedNow()
	list := make([]agent.Ejected, len(now))
	for i, x := range now {
		list[i] = agent.Ejected(x)
	}
	return list
}
