// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func newDelete(c *client) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | delete KIND/NAME... | delete -f FILE|FOLDER|-",
		Short: "Delete objects",
		Long: `delete removes objects by kind and name, or all that files list.

Deleting what is not there is an error with exit code 4; the rest is deleted all the same.`,
		Example: `  controlplane delete httproute payments
  controlplane delete tap orders-errors other-tap
  controlplane delete httproute/payments trafficpolicy/payments
  controlplane delete -f mesh.yaml`,
		ValidArgsFunction: c.offersNames(c.deleteArguments),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := c.keysToDelete(files, args)
			if err != nil {
				return err
			}
			return c.deleteAll(cmd.Context(), keys)
		},
	}
	bindFiles(cmd, &files)
	return c.bind(cmd)
}

func (c *client) keysToDelete(files, args []string) ([]mesh.Key, error) {
	var keys []mesh.Key
	switch {
	case len(files) > 0 && len(args) > 0:
		return nil, exitWith(exitUsage, "name objects, or files with -f, not both")
	case len(files) > 0:
		input, err := c.read(files, "; nothing was deleted")
		if err != nil {
			return nil, err
		}
		for _, s := range slices.Backward(input) {
			keys = append(keys, s.parsed.Object.Key())
		}
	case len(args) > 0 && slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "/") }):
		return slashedKeys(args)
	case len(args) < 2:
		return nil, exitWith(exitUsage, "want a kind and a name, KIND/NAME, or -f")
	default:
		k, err := mesh.KindNamed(args[0])
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		for _, name := range args[1:] {
			keys = append(keys, mesh.Key{Kind: k.Name, Name: name})
		}
	}
	return keys, nil
}

// slashedKeys are objects that are each named KIND/NAME.
func slashedKeys(args []string) ([]mesh.Key, error) {
	var keys []mesh.Key
	for _, a := range args {
		kind, name, ok := strings.Cut(a, "/")
		if !ok || name == "" {
			return nil, exitWith(exitUsage, "want KIND NAME..., or KIND/NAME for each, got %q", a)
		}
		k, err := mesh.KindNamed(kind)
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		keys = append(keys, mesh.Key{Kind: k.Name, Name: name})
	}
	return keys, nil
}

func (c *client) deleteAll(ctx context.Context, keys []mesh.Key) error {
	worst := 0
	for _, k := range keys {
		_, err := c.call(ctx, http.MethodDelete, "/v1/objects/"+k.Kind+"/"+url.PathEscape(k.Name), nil, nil, nil)
		if err == nil {
			fmt.Fprintf(c.io.out, "%s deleted\n", k)
			continue
		}
		err = notFound(err, k.String())
		var coded *exitError
		if !errors.As(err, &coded) || coded.code == exitDenied || coded.code == exitUnreachable {
			return err
		}
		fmt.Fprintln(c.io.err, paint(c.io.err, red, "error:")+" "+err.Error())
		worst = max(worst, coded.code)
	}
	if worst != 0 {
		return &exitError{worst, errors.New("not everything was deleted")}
	}
	return nil
}

func asProblem(err error) (*problem, bool) {
	var p *problem
	ok := errors.As(err, &p)
	return p, ok
}
