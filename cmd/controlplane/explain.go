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

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/rest"
)

func newExplain(c *client) *cobra.Command {
	var headers []string
	var from, node, output string
	cmd := &cobra.Command{
		Use:   "explain METHOD URL",
		Short: "Say where a request would go, and why",
		Long: `explain follows a request through the configuration in force: listener, virtual
host, route, clusters and endpoints, each with its reason. No request is sent.

--from says whose sidecar would send it. A service that has no instance or no
sidecar, or is not known at all, is explained with the default addresses, and the
first line says so. Without --from it is a client that is not of the mesh, which
has no identity: services that take mutual TLS only refuse it.

The exit code is 0 where an instance gets the request or a route has an answer of
its own, 4 where no route, service or listener is for it (404), and 1 where its
service has no instance (503) or all that it has refuse it. In JSON, "result" says
which: routed, answered, notFound, unavailable or refused.

What one sidecar has in force right now is what "sidecar explain" shows there.`,
		Example: `  controlplane explain GET http://payments/v1/x --from orders
  controlplane explain GET http://payments/v2 -H 'x-beta: 1' --from orders
  controlplane explain POST http://orders/ --from web~web-1 -o json
  controlplane explain POST http://greeter/helloworld.Greeter/SayHello    # a gRPC call
  controlplane explain CONNECT tcp://db:5432                              # a connection
  controlplane explain CONNECT tls://eu.vault.example:8443                # by server name`,
		Args:              explainArguments,
		ValidArgsFunction: offers(c.explainValues),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, outputJSON...); err != nil {
				return err
			}
			if from != "" && node != "" {
				return exitWith(exitUsage, "--from and --node exclude each other: --from takes node ids too")
			}
			q := url.Values{"method": {strings.ToUpper(args[0])}, "url": {args[1]}, "header": headers}
			if from != "" {
				q.Set("from", from)
			}
			if node != "" {
				q.Set("node", node)
			}
			return c.explain(cmd.Context(), q, output)
		},
	}
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "request header `'name: value'`; may be repeated")
	cmd.Flags().StringVar(&from, "from", "", "who sends the request: a service, SERVICE/INSTANCE, an instance id or a node id")
	cmd.Flags().StringVar(&node, "node", "", "node id of the sidecar that sends the request")
	bindOutput(cmd, &output, "", "json for scripts", outputJSON...)
	completeFlagWith(cmd, "from", always(c.senderNames))
	completeFlagWith(cmd, "node", always(c.nodeNames))
	return c.bind(cmd)
}

func (c *client) explain(ctx context.Context, q url.Values, output string) error {
	data, _, err := c.raw(ctx, http.MethodGet, "/v1/explain", q, nil)
	if err != nil {
		return err
	}
	var x rest.Explanation
	if err := json.Unmarshal(data, &x); err != nil {
		return c.stranger(err)
	}
	if output == "json" {
		if err := writeRaw(c.io.out, "json", data); err != nil {
			return err
		}
		return explainedAs(x.Result)
	}
	var rows [][]string
	for _, s := range append(x.Steps, x.Endpoints...) {
		rows = append(rows, []string{s.Stage, s.Name, s.Reason, s.Object})
	}
	if err := table(c.io.out, []string{"STAGE", "NAME", "REASON", "FROM"}, rows); err != nil {
		return err
	}
	failed := explainedAs(x.Result)
	colour := green
	if failed != nil {
		colour = red
	}
	fmt.Fprintln(c.io.out, paint(c.io.out, colour, printable(x.Outcome)))
	for _, h := range x.Hints {
		fmt.Fprintln(c.io.out, paint(c.io.out, yellow, "hint:")+" "+printable(h))
	}
	return failed
}

// explainedAs is the exit code of a result: the outcome has said the rest.
func explainedAs(result string) error {
	switch controlplane.Result(result) {
	case controlplane.ResultNotFound:
		return &exitError{exitNotFound, errors.New("")}
	case controlplane.ResultUnavailable, controlplane.ResultRefused:
		return &exitError{exitFailed, errors.New("")}
	}
	return nil
}
