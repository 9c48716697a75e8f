// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newValidate(c *client) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "validate -f FILE|FOLDER|-",
		Short: "Check files without a control plane",
		Long: `validate parses objects as strictly as the control plane does and names every
fault with file, line and field. References between objects need the control
plane: apply --dry-run checks those too.`,
		Example: `  controlplane validate -f conf.d/`,
		Args:    onlyFiles,
		RunE: func(*cobra.Command, []string) error {
			input, err := c.read(files, "")
			if err != nil {
				return err
			}
			for _, s := range input {
				fmt.Fprintf(c.io.out, "%s:%d: %s is valid\n", s.file, s.parsed.Line, s.parsed.Object.Key())
			}
			return nil
		},
	}
	bindFiles(cmd, &files)
	return cmd
}
