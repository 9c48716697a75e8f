// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/internal/coredump"
	"github.com/outrigger-mesh/outrigger/internal/launch"
	"github.com/outrigger-mesh/outrigger/internal/programs"
)

// buildLimit bounds compiling both programs with nothing cached.
const buildLimit = 5 * time.Minute

// programsDir is the folder of the programs under test, and starter what starts
// them; both are set once by Main.
var (
	programsDir string
	starter     *launch.Launcher
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
	if programsDir = os.Getenv("OUTRIGGER_BIN"); programsDir == "" {
		programsDir = dir
		ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
		err := programs.Build(ctx, dir, "cmd/sidecar", "cmd/controlplane")
		cancel()
		if err != nil {
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
