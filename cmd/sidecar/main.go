// SPDX-License-Identifier: Apache-2.0

// Command sidecar is the proxy beside one instance of a service. Its help says
// how it is used; this folder only reads flags and joins the parts.
package main

import (
	"context"
	"fmt"
	"os"
)

func main() {
	os.Exit(mainExit(parts{start: startDataPlane, validate: validateBootstrap}))
}

// mainExit runs the command line of this process and returns its exit code.
func mainExit(p parts) int {
	root := newCommand(p)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, "sidecar: "+text)
	}
	return exitCode(err)
}
