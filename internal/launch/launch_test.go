// SPDX-License-Identifier: Apache-2.0

package launch_test

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/launch"
)

func TestAProcessHasAGroupOfItsOwn(t *testing.T) {
	l := launch.New()
	defer l.Close()
	cmd := exec.Command("sleep", "1000")
	if err := l.Start(cmd, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if group, err := syscall.Getpgid(cmd.Process.Pid); err != nil || group != cmd.Process.Pid {
		t.Errorf("its process group is %d (%v), want %d, its own", group, err, cmd.Process.Pid)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // of a signal it ends with an error
}

func TestNothingStartsWhereItsPreparationFails(t *testing.T) {
	l := launch.New()
	defer l.Close()
	broken := errors.New("no such CPU")
	cmd := exec.Command("sleep", "1000")
	if err := l.Start(cmd, syscall.SIGTERM, func() error { return broken }); !errors.Is(err, broken) || cmd.Process != nil {
		t.Errorf("got %v, and process %v", err, cmd.Process)
	}
}
