// SPDX-License-Identifier: Apache-2.0

// Package coredump keeps the memory of programs that hold private keys out of core
// dumps.
package coredump

import (
	"fmt"
	"os"
	"syscall"
)

// Allow is the variable of the environment that keeps dumps as they are.
const Allow = "OUTRIGGER_ALLOW_DUMPS"

// The operations of prctl(2).
const (
	getDumpable = 3
	setDumpable = 4
)

// Forbid ends core dumps of this process, and the reading of its memory by other
// processes of the same user. Children that execute a program are not concerned:
// execve(2) sets the attribute anew. Only root sees its open files and its memory use
// by /proc then: with OUTRIGGER_ALLOW_DUMPS=1 in the environment, for debugging and
// measuring, nothing is done.
func Forbid() error {
	if os.Getenv(Allow) == "1" {
		return nil
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setDumpable, 0, 0); errno != 0 {
		return fmt.Errorf("core dumps of this process would hold its private keys: prctl: %w", errno)
	}
	return nil
}
