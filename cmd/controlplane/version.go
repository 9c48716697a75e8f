// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/internal/buildinfo"
)

func newVersion(c *client) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show which build this is",
		Long: `version shows the module version, the commit and the Go version that this program
was built from. The version of a running control plane is in status.`,
		Example: `  controlplane version
  controlplane version -o json | jq -r .commit`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := checkOutput(output, outputJSON...); err != nil {
				return err
			}
			info := buildinfo.Of("controlplane")
			if output == "json" {
				return writeJSON(c.io.out, info)
			}
			return info.WriteText(c.io.out)
		},
	}
	bindOutput(cmd, &output, "", "json for scripts", outputJSON...)
	return cmd
}

// version is the module's version as it was built.
func version() string { return buildinfo.Of("controlplane").Version }
