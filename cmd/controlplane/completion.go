// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/rest"
	"github.com/outrigger-mesh/outrigger/pkg/lake"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const (
	// completionTimeout is what somebody who pressed Tab waits for a server.
	completionTimeout = time.Second
	maxCompletions    = 1000
)

// completion answers what an argument may be. Whatever goes wrong, it offers
// nothing and says nothing: it writes into a command line.
type completion = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeFlag offers fixed values of a flag.
func completeFlag(cmd *cobra.Command, flag string, values ...string) {
	completeFlagWith(cmd, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func completeFlagWith(cmd *cobra.Command, flag string, f completion) {
	// It fails only where there is no such flag, or twice.
	_ = cmd.RegisterFlagCompletionFunc(flag, f)
}

// offers makes a completion of what f lists in the time that there is.
func offers(f func(ctx context.Context, args []string) []string) completion {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		var out []string
		for _, s := range f(ctx, args) {
			if strings.HasPrefix(s, begun) && !slices.Contains(args, s) && printable(s) == s && len(out) < maxCompletions {
				out = append(out, s)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// offersNames makes a completion of arguments that are KIND, then names, or KIND/NAME.
func (c *client) offersNames(list func(ctx context.Context, args []string) []string) completion {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		kind, _, slash := strings.Cut(begun, "/")
		if !slash && (len(args) == 0 || !strings.Contains(args[0], "/")) {
			return offers(list)(cmd, args, begun)
		}
		return offers(func(ctx context.Context, _ []string) []string {
			var out []string
			for _, name := range list(ctx, []string{kind}) {
				out = append(out, kind+"/"+name)
			}
			return out
		})(cmd, args, begun)
	}
}

// listed offers values of a flag that takes several, comma separated.
func listed(values []string) completion {
	return func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		before := begun[:strings.LastIndexByte(begun, ',')+1]
		var out []string
		for _, v := range values {
			if v = before + v; strings.HasPrefix(v, begun) {
				out = append(out, v)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// kindNames are what get takes first.
func kindNames() []string {
	out := []string{"instances", "events"}
	for _, k := range mesh.Kinds() {
		out = append(out, k.Plural)
	}
	return append(out, "all")
}

// objectKinds are what delete takes first.
func objectKinds() []string {
	var out []string
	for _, k := range mesh.Kinds() {
		out = append(out, k.Plural)
	}
	return out
}

// getArguments are a kind and a name of it.
func (c *client) getArguments(ctx context.Context, args []string) []string {
	switch {
	case len(args) == 0:
		return kindNames()
	case len(args) > 1:
		return nil
	}
	switch strings.ToLower(args[0]) {
	case "instance", "instances":
		return c.serviceNames(ctx)
	}
	if k, err := mesh.KindNamed(args[0]); err == nil && k.Name == mesh.KindService {
		return c.serviceNames(ctx) // those of the registry too
	}
	return c.objectNames(ctx, args[0])
}

// deleteArguments are a kind and any number of names.
func (c *client) deleteArguments(ctx context.Context, args []string) []string {
	if len(args) == 0 {
		return objectKinds()
	}
	return c.objectNames(ctx, args[0])
}

func (c *client) objectNames(ctx context.Context, kind string) []string {
	k, err := mesh.KindNamed(kind)
	if err != nil {
		return nil
	}
	list, err := pages[struct{ Metadata mesh.Metadata }](ctx, c, "/v1/objects", url.Values{"kind": {k.Name}})
	if err != nil {
		return nil
	}
	out := make([]string, len(list))
	for i, o := range list {
		out[i] = o.Metadata.Name
	}
	return out
}

func (c *client) serviceNames(ctx context.Context) []string {
	list, err := pages[serviceRow](ctx, c, "/v1/services", nil)
	if err != nil {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = s.Name
	}
	return out
}

func (c *client) nodeNames(ctx context.Context) []string {
	list, err := pages[rest.Sidecar](ctx, c, "/v1/sidecars", nil)
	if err != nil {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = s.Node
	}
	return out
}

// sidecarNames are what status takes: node ids, and the services of those sidecars.
func (c *client) sidecarNames(ctx context.Context) []string {
	list, err := pages[rest.Sidecar](ctx, c, "/v1/sidecars", nil)
	if err != nil {
		return nil
	}
	var nodes, services []string
	for _, s := range list {
		nodes = append(nodes, s.Node)
		if s.Service != "" && !slices.Contains(services, s.Service) {
			services = append(services, s.Service)
		}
	}
	return append(nodes, services...)
}

// senderNames are what explain --from takes: services, then sidecars.
func (c *client) senderNames(ctx context.Context) []string {
	return append(c.serviceNames(ctx), c.nodeNames(ctx)...)
}

// explainValues are a method and the URL of a service.
func (c *client) explainValues(ctx context.Context, args []string) []string {
	switch len(args) {
	case 0:
		return []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
	case 1:
		var out []string
		for _, s := range c.serviceNames(ctx) {
			out = append(out, "http://"+s+"/")
		}
		return out
	}
	return nil
}

// traceIDs are those of the latest traces.
func (c *client) traceIDs(ctx context.Context) []string {
	data, _, err := c.raw(ctx, http.MethodGet, zipkinPath+"api/v2/traces", url.Values{"limit": {"20"}}, nil)
	if err != nil {
		return nil
	}
	var traces [][]struct {
		TraceID string `json:"traceId"`
	}
	if json.Unmarshal(data, &traces) != nil {
		return nil
	}
	var out []string
	for _, t := range traces {
		if len(t) > 0 {
			out = append(out, t[0].TraceID)
		}
	}
	return out
}

// lakePaths are the folders and files of the lake.
func lakePaths(dir string) []string {
	files, err := lake.List(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, f := range files {
		hour := filepath.Dir(f.Path)
		for _, p := range []string{filepath.Dir(filepath.Dir(hour)), filepath.Dir(hour), hour, f.Path} {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// once offers only the first argument.
func once(list func(ctx context.Context) []string) completion {
	return offers(func(ctx context.Context, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return list(ctx)
	})
}

// always offers a flag's value, whatever the arguments are.
func always(list func(ctx context.Context) []string) completion {
	return offers(func(ctx context.Context, _ []string) []string { return list(ctx) })
}
