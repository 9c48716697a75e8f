// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/lake"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func newLake(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lake",
		Short: "Read the lake that tapped traffic goes to",
		Long: `lake reads the lake's folder on this host; no running control plane is needed.

Its files are Parquet below raw/service=…/date=…/hour=…/, so every tool that reads
Parquet reads them too.`,
		Example: `  controlplane lake ls
  controlplane lake cat raw/service=orders -o text
  duckdb -c "select path, status from 'outrigger-data/lake/raw/**/*.parquet'"`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLakeList(c), newLakeCat(c))
	return cmd
}

// bindLake adds the flag that says where the lake is.
func bindLake(cmd *cobra.Command, dir *string) *cobra.Command {
	def := filepath.Join("outrigger-data", "lake")
	cmd.Flags().StringVar(dir, "lake", cmp.Or(os.Getenv("OUTRIGGER_LAKE"), def), "folder of the lake (env OUTRIGGER_LAKE)")
	cmd.Flags().Lookup("lake").DefValue = def
	_ = cmd.MarkFlagDirname("lake") // it fails only where there is no such flag
	return cmd
}

func newLakeList(c *client) *cobra.Command {
	var dir, output string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the files of the lake",
		Example: `  controlplane lake ls
  controlplane lake ls --lake /var/lib/outrigger/lake -o json`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := checkOutput(output, outputJSON...); err != nil {
				return err
			}
			files, err := lake.List(dir)
			if err != nil {
				return lakeError(err)
			}
			if len(files) == 0 {
				fmt.Fprintln(c.io.err, emptyLake(dir))
			}
			if output == "json" {
				if files == nil {
					files = []lake.File{}
				}
				return writeJSON(c.io.out, files)
			}
			now := time.Now()
			rows := make([][]string, len(files))
			for i, f := range files {
				rows[i] = []string{f.Path, strconv.FormatInt(f.Rows, 10), mesh.Size(f.Bytes).String(), age(f.Modified, now)}
			}
			return table(c.io.out, []string{"FILE", "ROWS", "SIZE", "AGE"}, rows)
		},
	}
	bindOutput(cmd, &output, "", "json for scripts", outputJSON...)
	return bindLake(cmd, &dir)
}

func newLakeCat(c *client) *cobra.Command {
	var dir, output string
	cmd := &cobra.Command{
		Use:   "cat [FILE|FOLDER]",
		Short: "Write tapped exchanges, one JSON object a line",
		Long: `cat writes the rows of a file as lake ls names it, of all files below a folder, or
of the whole lake. An empty lake is exit code 4.`,
		Example: `  controlplane lake cat raw/service=orders/date=2026-01-31
  controlplane lake cat | jq 'select(.status >= 500)'
  controlplane lake cat -o text`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exitWith(exitUsage, "want one file or folder, or none for the whole lake, got %d arguments", len(args))
			}
			return nil
		},
		ValidArgsFunction: once(func(context.Context) []string { return lakePaths(dir) }),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkOutput(output, outputRows...); err != nil {
				return err
			}
			if len(args) == 0 {
				return c.catLake(dir, output)
			}
			path := args[0]
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
				path = filepath.Join(dir, args[0])
			}
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
				return exitWith(exitNotFound, "%s is neither here nor in the lake %s: lake ls lists its files, --lake names its folder", args[0], dir)
			}
			return lakeError(lake.Cat(c.io.out, path, output))
		},
	}
	bindOutput(cmd, &output, lake.FormatJSON, "json, all columns; or text, a table of the main ones", outputRows...)
	return bindLake(cmd, &dir)
}

// catLake writes every row, and says so where there is none: an empty answer would
// look like a lake in which nothing was found.
func (c *client) catLake(dir, output string) error {
	files, err := lake.List(dir)
	if err != nil {
		return lakeError(err)
	}
	if len(files) == 0 {
		return exitWith(exitNotFound, "%s", emptyLake(dir))
	}
	return lakeError(lake.Cat(c.io.out, filepath.Join(dir, "raw"), output))
}

func emptyLake(dir string) string {
	return "the lake " + dir + " is empty: a Tap object says what is copied to it, and files appear after serve's --lake-interval (30s by default)"
}

func lakeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return exitWith(exitNotFound, "%w (name the folder with --lake; it is the folder lake in serve's --data)", err)
	}
	return &exitError{exitFailed, err}
}
