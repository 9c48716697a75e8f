// SPDX-License-Identifier: Apache-2.0

// Package footprint gives memory back to the system that only the start of a
// process needed: heap that is free, and pages of the executable that were read
// once, by initialisation. What is needed again comes back from the page cache.
package footprint

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// Release runs garbage collections and returns free heap: for after a change that
// needed more than its result does.
func Release() {
	runtime.GC() // what pools hold is free only in the second collection
	debug.FreeOSMemory()
}

// Trim does what Release does, and drops the resident pages of the executable's
// read-only mappings. It is meant to run once, after the start; the error says why
// the mappings were left alone.
func Trim() error {
	Release()
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("footprint: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("footprint: %w", err)
	}
	for line := range bytes.Lines(maps) {
		start, end, ok := readOnly(string(line), exe)
		if !ok {
			continue
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, start, end-start, syscall.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("footprint: madvise: %w", errno)
		}
	}
	return nil
}

// readOnly parses a line of /proc/self/maps and reports the range of a mapping of
// the executable that nobody can have written to.
func readOnly(line, exe string) (start, end uintptr, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[5] != exe || (f[1] != "r-xp" && f[1] != "r--p") {
		return 0, 0, false
	}
	from, to, found := strings.Cut(f[0], "-")
	if !found {
		return 0, 0, false
	}
	a, err1 := strconv.ParseUint(from, 16, 64)
	b, err2 := strconv.ParseUint(to, 16, 64)
	return uintptr(a), uintptr(b), err1 == nil && err2 == nil && a < b
}
