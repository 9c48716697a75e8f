// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/internal/coredump"
	"github.com/outrigger-mesh/outrigger/internal/launch"
)

// buildLimit bounds compiling both programs with nothing cached.
const buildLimit = 5 * time.Minute

const modulePath = "github.com/outrigger-mesh/outrigger"

// programs is the folder of the programs under test, and starter what starts
// them; both are set once by Main.
var (
	programs string
	starter  *launch.Launcher
)

// Main builds the programs, runs the tests, and fails if a process or goroutine
// is left. It is called by TestMain and returns the exit code. In the processes
// that StartApp makes of the test binary it runs the application instead.
func Main(m *testing.M) int {
	if os.Getenv(appEnv) != "" {
		return runApp()
	}
	// Tests that run in parallel mostly wait. On the command line -parallel overrides it.
	if err := flag.Set("test.parallel", "8"); err != nil {
		return complain(err)
	}
	if err := os.Setenv(coredump.Allow, "1"); err != nil { // tests look at open files and memory
		return complain(err)
	}
	dir, err := os.MkdirTemp("", "outrigger-e2e")
	if err != nil {
		return complain(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary folder
	if programs = os.Getenv("OUTRIGGER_BIN"); programs == "" {
		programs = dir
		if err := build(dir); err != nil {
			return complain(err)
		}
	}
	if err := openResults(); err != nil {
		return complain(err)
	}
	starter = launch.New()
	code := m.Run()
	starter.Close()
	if err := closeResults(); err != nil {
		code = complain(err)
	}
	if left := children(); len(left) > 0 {
		code = complain(fmt.Errorf("processes are left: %q", left))
	}
	if err := goleak.Find(); err != nil && code == 0 {
		code = complain(err)
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// build makes the programs from this module's source.
func build(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", modulePath).Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./cmd/sidecar", "./cmd/controlplane")
	cmd.Dir = string(bytes.TrimSpace(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}
