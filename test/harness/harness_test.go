// SPDX-License-Identifier: Apache-2.0

// Package harness runs go-control-plane's own integration harness against the
// sidecar. See README.md.
package harness

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestSidecarPassesTheIntegrationHarnessOfGoControlPlane(t *testing.T) {
	if os.Getenv("OUTRIGGER_HARNESS") == "" {
		t.Skip("takes a minute and fixed ports; set OUTRIGGER_HARNESS=1 (and SIDECAR for a program that is already built)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "./run.sh")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends what it started
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	t.Logf("\n%s", out)
	if err != nil {
		t.Errorf("run.sh: %v", err)
	}
}
