// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

const explainLong = `explain asks the sidecar that runs on this host where a request of the application
would go: listener, filter chain, route, cluster and endpoints, each with its reason;
endpoints with what the connection is made with: mutual TLS, TLS or plaintext. A cookie
or header that decides on the endpoint first is shown as well, and behind each cluster
its fallback, part by part.

What governs the request is listed where it applies, with its present numbers: of the
route timeouts, retries, hedging, rate limits and faults; of each cluster limits with
their use, retry budget, circuit and outlier detection. In JSON, "settings" of these
steps has the same for scripts; docs/explain.md lists its fields. Hints say where
mutual TLS is demanded and one side would not speak it.

tcp://SERVICE:PORT, with CONNECT, is a connection to the listener of a --tcp-outbound.

It follows what that sidecar has in force now, with its own matchers. Nothing is
sent. What the whole mesh's configuration says, "controlplane explain" shows.`

// explainParams are the parameters of the admin port's /explain.
var explainParams = [][2]string{
	{"method", "GET when empty"},
	{"url", "such as http://payments/v1/x, or tcp://db:5432 for the listener of a --tcp-outbound"},
	{"header", "request header 'name: value'; may be repeated"},
	{"listener", "name or address of the listener it comes to; the outbound one for HTTP when empty"},
}

const (
	maxExplainHeaders = 64
	explainExample    = "sidecar explain GET http://payments/v1/x"
	adminPath         = "/explain"
	maxStrangerBytes  = 200
	schemeTCP         = "tcp"
)

// explainCall is what the command asks.
type explainCall struct {
	adminCall
	listener, output string
	headers          []string
}

func newExplain() *cobra.Command {
	var call explainCall
	c := &cobra.Command{
		Use:   "explain METHOD URL",
		Short: "Say where a request would go from this sidecar, and why",
		Long:  explainLong,
		Example: `  sidecar explain GET http://payments/v1/x -H 'x-user: 7'
  sidecar explain POST http://orders/ --admin unix:/run/web/admin.sock -o json
  sidecar explain GET http://orders/ --listener inbound
  sidecar explain CONNECT tcp://db:5432                     # by --tcp-outbound`,
		Args: explainArguments,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT"}, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(call.output); err != nil {
				return err
			}
			return call.run(c.Context(), c.OutOrStdout(), args[0], args[1])
		},
	}
	c.Flags().StringArrayVarP(&call.headers, "header", "H", nil, "request header `'name: value'`; may be repeated")
	c.Flags().StringVar(&call.listener, "listener", "", "name or address of the listener it comes to (default the outbound one for HTTP)")
	call.bind(c)
	bindOutput(c, &call.output)
	return c
}

// explainArguments wants a method and a URL.
func explainArguments(_ *cobra.Command, args []string) error {
	isURL := func(i int) bool { return len(args) > i && strings.Contains(args[i], "://") }
	switch {
	case len(args) == 2 && isURL(0):
		return usageError{fmt.Errorf("the method comes first: sidecar explain %s %s", strings.ToUpper(args[1]), args[0])}
	case len(args) == 2:
		return nil
	case len(args) == 1 && isURL(0):
		return usageError{fmt.Errorf("the method is missing: sidecar explain GET %s", args[0])}
	}
	return usageError{fmt.Errorf("want METHOD URL, such as %s, got %d arguments; headers are given with -H 'name: value'", explainExample, len(args))}
}

func (e *explainCall) run(ctx context.Context, out io.Writer, method, target string) error {
	query := url.Values{"method": {strings.ToUpper(method)}, "url": {target}, "header": e.headers}
	if e.listener != "" {
		query.Set("listener", e.listener)
	}
	if _, err := explainQuery(query); err != nil {
		return usageError{err}
	}
	data, err := e.get(ctx, adminPath, query)
	if err != nil {
		return err
	}
	var x proxy.Explanation
	if err := json.Unmarshal(data, &x); err != nil || x.Outcome == "" {
		return e.stranger(fmt.Sprintf("%.*q", maxStrangerBytes, data))
	}
	if e.output == "json" {
		var b bytes.Buffer
		if err := json.Indent(&b, bytes.TrimSpace(data), "", "  "); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := b.WriteTo(out)
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "STAGE\tNAME\tREASON")
	for _, s := range append(x.Steps, x.Endpoints...) {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Stage, cmp.Or(printable(s.Name), "-"), printable(s.Reason))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if _, err = fmt.Fprintln(out, printable(x.Outcome)); err != nil {
		return err
	}
	for _, h := range x.Hints {
		if _, err = fmt.Fprintln(out, "hint: "+printable(h)); err != nil {
			return err
		}
	}
	return nil
}

// printable keeps names that others chose from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// explain answers the admin port's /explain.
func (d *plane) explain(v url.Values) (any, error) {
	q, err := explainQuery(v)
	if err != nil {
		return nil, err
	}
	x, err := d.proxy.Explain(q)
	if err = d.env.Options.explainTCPOutbound(q, &x, err); err != nil {
		return nil, err
	}
	addTransports(&x, d.latest.Load())
	return x, nil
}

// explainQuery reads the parameters, of which the asker hears all that are wrong.
func explainQuery(v url.Values) (proxy.Query, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	q := proxy.Query{Method: cmp.Or(v.Get("method"), http.MethodGet), Listener: v.Get("listener")}
	if !token(q.Method) {
		bad("method: want a word such as GET, got %q", q.Method)
	}
	u, err := url.Parse(v.Get("url"))
	if err == nil && u.Scheme == schemeTCP && u.Port() != "" && u.Path == "" && u.Hostname() != "" {
		q.Scheme, q.Authority, q.Listener = u.Scheme, u.Host, cmp.Or(q.Listener, strings.ToLower(u.Host))
	} else if err != nil || u.Scheme != "http" || u.Host == "" || !codec.ValidTarget([]byte(u.RequestURI())) {
		bad("url: want an http:// URL such as http://payments/v1/x, or tcp://db:5432, got %.200q", v.Get("url"))
	} else {
		q.Scheme, q.Authority, q.Path = u.Scheme, u.Host, u.RequestURI()
	}
	if len(v["header"]) > maxExplainHeaders {
		bad("header: more than %d", maxExplainHeaders)
		return q, errors.Join(errs...)
	}
	for _, h := range v["header"] {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.ToLower(strings.TrimSpace(name)); !ok || !token(name) || strings.ContainsAny(value, "\r\n\x00") {
			bad("header: want 'name: value', got %.200q", h)
			continue
		}
		q.Headers = append(q.Headers, [2]string{name, strings.TrimSpace(value)})
	}
	return q, errors.Join(errs...)
}

// token is RFC 9110 §5.6.2.
func token(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
