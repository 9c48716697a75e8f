// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func newDiff(c *client) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE|FOLDER|-",
		Short: "Show what apply would change",
		Long: `diff compares objects of files with those in force: - is in force, + is in the
file. It exits with 0 when apply would change nothing and with 6 when it would.`,
		Example: `  controlplane diff -f mesh.yaml
  controlplane diff -f conf.d/ && echo "in sync"`,
		Args: onlyFiles,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.diff(cmd.Context(), files) },
	}
	bindFiles(cmd, &files)
	return c.bind(cmd)
}

func (c *client) diff(ctx context.Context, files []string) error {
	input, err := c.read(files, "; nothing was compared")
	if err != nil {
		return err
	}
	differ := false
	for _, s := range input {
		k := s.parsed.Object.Key()
		theirs := ""
		data, _, err := c.raw(ctx, http.MethodGet, "/v1/objects/"+k.Kind+"/"+k.Name, nil, nil)
		if p, ok := asProblem(err); ok && p.Status == http.StatusNotFound {
			data, err = nil, nil
		}
		if err != nil {
			return err
		}
		if data != nil {
			o, err := mesh.ParseOne(data)
			if err != nil {
				return exitWith(exitUnreachable, "%s: the control plane's object is not understood: %w", k, err)
			}
			if theirs, err = comparable(o); err != nil {
				return err
			}
		}
		ours, err := comparable(s.parsed.Object)
		if err != nil {
			return err
		}
		if ours == theirs {
			continue
		}
		differ = true
		fmt.Fprintf(c.io.out, "--- %s in force\n+++ %s in %s:%d\n", k, k, s.file, s.parsed.Line)
		printDiff(c.io.out, lines(theirs), lines(ours))
	}
	if differ {
		return &exitError{exitDiffers, fmt.Errorf("")}
	}
	return nil
}

// comparable is an object as YAML without what the control plane adds.
func comparable(o mesh.Object) (string, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	copied, err := mesh.ParseOne(body)
	if err != nil {
		return "", err
	}
	meta := &copied.Head().Metadata
	meta.Revision, meta.CreatedAt = 0, zeroTime
	if body, err = json.Marshal(copied); err != nil {
		return "", err
	}
	out, err := yaml.JSONToYAML(body)
	return string(out), err
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// maxDiffLines bounds the quadratic comparison; longer objects are shown whole.
const maxDiffLines = 4000

// printDiff writes the lines of both with the longest common subsequence unmarked.
func printDiff(w io.Writer, a, b []string) {
	if len(a) > maxDiffLines || len(b) > maxDiffLines {
		a, b = append(a, "(too long to compare line by line)"), append(b, "(too long to compare line by line)")
		mark(w, red, "-", a)
		mark(w, green, "+", b)
		return
	}
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int16, len(a)+1)
	for i := range common {
		common[i] = make([]int16, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i] == b[j]:
			fmt.Fprintln(w, " "+a[i])
			i, j = i+1, j+1
		case common[i+1][j] >= common[i][j+1]:
			mark(w, red, "-", a[i:i+1])
			i++
		default:
			mark(w, green, "+", b[j:j+1])
			j++
		}
	}
	mark(w, red, "-", a[i:])
	mark(w, green, "+", b[j:])
}

func mark(w io.Writer, colour, sign string, list []string) {
	for _, l := range list {
		fmt.Fprintln(w, paint(w, colour, sign+l))
	}
}
