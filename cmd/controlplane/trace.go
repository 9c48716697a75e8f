// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newTrace(c *client) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "trace ID",
		Short: "Show one trace as a tree of spans",
		Long: `trace shows the spans of one trace that the control plane still keeps: who called
whom, when, how long, and with which result. The ID has 16 or 32 hexadecimal digits.

Where to find one: the request headers traceparent (the digits after "00-"), b3 and
x-b3-traceid, as the services receive and log them; the field traceparent of access
logs in the format json; the column trace of the lake; and the latest traces, at
/zipkin/api/v2/traces of --server. Responses do not carry it. Only sampled requests
have a trace: one in a hundred, unless a Telemetry object says more.`,
		Example: `  controlplane trace 463ac35c9f6413ad48485a3953bb6124
  controlplane trace 48485a3953bb6124 -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exitWith(exitUsage, "want one trace id, such as controlplane trace 463ac35c9f6413ad48485a3953bb6124, got %d arguments", len(args))
			}
			return nil
		},
		ValidArgsFunction: once(c.traceIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, outputJSON...); err != nil {
				return err
			}
			id := strings.ToLower(args[0])
			switch n := len(id); {
			case strings.Trim(id, "0123456789abcdef") != "":
				return exitWith(exitUsage, "want a trace id of 16 or 32 hexadecimal digits, got %q", args[0])
			case n < 16:
				return exitWith(exitUsage, "%q is too short for a trace id: it has %d of 16 or 32 hexadecimal digits", args[0], n)
			case n > 32:
				return exitWith(exitUsage, "%q is too long for a trace id: it has %d hexadecimal digits, and 32 are the most", args[0], n)
			}
			return c.trace(cmd.Context(), id, output)
		},
	}
	bindOutput(cmd, &output, "", "json (Zipkin v2) for scripts", outputJSON...)
	return c.bind(cmd)
}

// span is what the tree shows of a Zipkin v2 span.
type span struct {
	ID       string `json:"id"`
	ParentID string `json:"parentId"`
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	// Microseconds, since the epoch and of length.
	Timestamp int64             `json:"timestamp"`
	Duration  int64             `json:"duration"`
	Local     endpoint          `json:"localEndpoint"`
	Tags      map[string]string `json:"tags"`
}

type endpoint struct {
	ServiceName string `json:"serviceName"`
}

func (c *client) trace(ctx context.Context, id, output string) error {
	data, _, err := c.raw(ctx, http.MethodGet, zipkinPath+"api/v2/trace/"+url.PathEscape(id), nil, nil)
	if err != nil {
		if coded, ok := err.(*exitError); ok && coded.code == exitNotFound {
			return exitWith(exitNotFound, "trace %s is not, or no longer, kept", id)
		}
		return err
	}
	if output == "json" {
		return writeRaw(c.io.out, "json", data)
	}
	var spans []span
	if err := json.Unmarshal(data, &spans); err != nil {
		return c.stranger(err)
	}
	if len(spans) == 0 {
		return exitWith(exitNotFound, "trace %s is not, or no longer, kept", id)
	}
	return table(c.io.out, []string{"SPAN", "SERVICE", "KIND", "START", "DURATION", "RESULT"}, traceRows(spans))
}

// traceRows orders spans as a tree. A server span that shares its client's id
// hangs below it; a span whose parent is missing is a root.
func traceRows(spans []span) [][]string {
	slices.SortStableFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(b.Duration, a.Duration))
	})
	holder := map[string]int{} // the span that children of an id hang below
	for i, s := range spans {
		if _, taken := holder[s.ID]; !taken || s.Kind == "SERVER" {
			holder[s.ID] = i
		}
	}
	children := map[int][]int{}
	var roots []int
	for i, s := range spans {
		parent, known := holder[s.ParentID]
		if client := slices.IndexFunc(spans, func(o span) bool { return o.ID == s.ID && o.Kind == "CLIENT" }); s.Kind == "SERVER" && client >= 0 {
			parent, known = client, true
		}
		if !known || parent == i || s.ParentID == "" && s.Kind != "SERVER" {
			roots = append(roots, i)
			continue
		}
		children[parent] = append(children[parent], i)
	}
	var rows [][]string
	seen := map[int]bool{}
	var walk func(i, depth int)
	walk = func(i, depth int) {
		if seen[i] {
			return
		}
		seen[i] = true
		s := spans[i]
		rows = append(rows, []string{
			strings.Repeat("  ", depth) + cmp.Or(s.Name, s.ID), s.Local.ServiceName, strings.ToLower(s.Kind),
			fmt.Sprintf("+%s", time.Duration(s.Timestamp-spans[0].Timestamp)*time.Microsecond),
			(time.Duration(s.Duration) * time.Microsecond).String(),
			strings.TrimSpace(s.Tags["http.status_code"] + " " + s.Tags["error"]),
		})
		for _, child := range children[i] {
			walk(child, depth+1)
		}
	}
	for _, i := range roots {
		walk(i, 0)
	}
	for i := range spans { // a cycle of parents has no root
		walk(i, 0)
	}
	return rows
}
