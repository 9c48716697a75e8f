// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/internal/buildinfo"
)

func newVersion() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "version",
		Short:   "Show which build this is",
		Long:    "version shows the module version, the commit and the Go version that this program\nwas built from.",
		Example: "  sidecar version\n  sidecar version -o json",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			info := buildinfo.Of("sidecar")
			if output == "json" {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(info)
			}
			return info.WriteText(c.OutOrStdout())
		},
	}
	bindOutput(c, &output)
	return c
}

func bindOutput(c *cobra.Command, output *string) {
	c.Flags().StringVarP(output, "output", "o", "", "json for scripts")
	// It fails only where there is no such flag.
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
}

func checkOutput(output string) error {
	if output == "" || output == "json" {
		return nil
	}
	return usageError{fmt.Errorf("-o: want json, got %q", output)}
}
