// SPDX-License-Identifier: Apache-2.0

// Command controlplane serves the mesh's control plane and is its command line.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(execute(context.Background(), streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Args[1:]))
}
