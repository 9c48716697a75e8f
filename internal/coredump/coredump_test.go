// SPDX-License-Identifier: Apache-2.0

package coredump

import (
	"syscall"
	"testing"
)

func dumpable(t *testing.T) uintptr {
	t.Helper()
	v, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, getDumpable, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return v
}

func TestAProcessThatHoldsKeysIsNotDumped(t *testing.T) {
	before := dumpable(t)
	if before == 0 {
		t.Skip("this process cannot be dumped anyway")
	}
	t.Cleanup(func() { _, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setDumpable, before, 0) })
	t.Setenv(Allow, "1")
	if err := Forbid(); err != nil || dumpable(t) != before {
		t.Errorf("where it is allowed: dumpable is %d, %v", dumpable(t), err)
	}
	t.Setenv(Allow, "")
	if err := Forbid(); err != nil {
		t.Fatal(err)
	}
	if got := dumpable(t); got != 0 {
		t.Errorf("dumpable is %d", got)
	}
}
