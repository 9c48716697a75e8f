// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func newApply(c *client) *cobra.Command {
	var files []string
	var dryRun bool
	var output string
	cmd := &cobra.Command{
		Use:   "apply -f FILE|FOLDER|-",
		Short: "Create or change objects",
		Long: `apply creates the objects of files, folders or standard input, or changes them.

The whole input is parsed first: when anything in it is wrong, nothing is sent. An
object that is refused leaves the others, and the last good state of its own, in force.`,
		Example: `  controlplane apply -f mesh.yaml
  controlplane apply -f conf.d/ --dry-run
  cat route.yaml | controlplane apply -f -`,
		Args: onlyFiles,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.apply(cmd.Context(), files, dryRun, output)
		},
	}
	bindFiles(cmd, &files)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "let the control plane check everything and store nothing")
	bindOutput(cmd, &output, "", "json for scripts", outputJSON...)
	return c.bind(cmd)
}

// applied is the result for one object.
type applied struct {
	Object     string           `json:"object"`
	File       string           `json:"file"`
	Line       int              `json:"line"`
	Result     string           `json:"result"` // created, changed, unchanged, refused
	Error      string           `json:"error,omitempty"`
	Conditions []mesh.Condition `json:"conditions,omitempty"`
}

func (c *client) apply(ctx context.Context, files []string, dryRun bool, output string) error {
	if err := checkOutput(output, outputJSON...); err != nil {
		return err
	}
	input, err := c.read(files, "; nothing was sent")
	if err != nil {
		return err
	}
	results, worst := []applied{}, 0
	for _, s := range input {
		a, err := c.applyOne(ctx, s, dryRun)
		if err != nil {
			var coded *exitError
			if !errors.As(err, &coded) || coded.code == exitDenied || coded.code == exitUnreachable && !isProblem(err) {
				return err
			}
			worst = max(worst, coded.code)
			a.Result, a.Error = "refused", located(s, err)
		}
		results = append(results, a)
		if output == "" {
			c.printApplied(a, dryRun)
		}
	}
	if output == "json" {
		if err := writeJSON(c.io.out, results); err != nil {
			return err
		}
	}
	if worst != 0 {
		return &exitError{worst, errors.New("not everything was accepted")}
	}
	return nil
}

func isProblem(err error) bool {
	var p *problem
	return errors.As(err, &p)
}

func (c *client) applyOne(ctx context.Context, s source, dryRun bool) (applied, error) {
	k := s.parsed.Object.Key()
	a := applied{Object: k.String(), File: s.file, Line: s.parsed.Line}
	body, err := json.Marshal(s.parsed.Object)
	if err != nil {
		return a, exitWith(exitFailed, "encode %s: %w", k, err)
	}
	query := url.Values{}
	if dryRun {
		query.Set("dryRun", "true")
	}
	var answer struct {
		Metadata mesh.Metadata `json:"metadata"`
		Status   mesh.Status   `json:"status"`
	}
	header, err := c.call(ctx, http.MethodPut, "/v1/objects/"+url.PathEscape(k.Kind)+"/"+url.PathEscape(k.Name), query, body, &answer)
	if err != nil {
		return a, err
	}
	a.Result = "changed"
	switch {
	case header.Get("Outrigger-Changed") == "false":
		a.Result = "unchanged"
	case header.Get("Location") != "":
		a.Result = "created"
	}
	for _, cond := range answer.Status.Conditions {
		if cond.Message != "" {
			a.Conditions = append(a.Conditions, cond)
		}
	}
	return a, nil
}

// located puts the file's line before each wrong field.
func located(s source, err error) string {
	var p *problem
	if !errors.As(err, &p) || len(p.Errors) == 0 {
		return err.Error()
	}
	for _, e := range p.Errors {
		e.File, e.Line = s.file, s.parsed.LineOf(e.Path)
	}
	return p.Errors.Error()
}

func (c *client) printApplied(a applied, dryRun bool) {
	colour, suffix := green, ""
	if a.Result == "refused" {
		colour = red
	}
	if dryRun && a.Result != "refused" {
		suffix = " (dry run)"
	}
	fmt.Fprintf(c.io.out, "%s %s%s\n", a.Object, paint(c.io.out, colour, a.Result), suffix)
	if a.Error != "" {
		fmt.Fprintln(c.io.err, a.Error)
	}
	for _, cond := range a.Conditions {
		fmt.Fprintf(c.io.err, "%s %s: %s: %s\n", paint(c.io.err, yellow, "warning:"), a.Object, cond.Field, printable(cond.Message))
	}
}
