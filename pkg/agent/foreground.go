// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// processGroup puts the child into a group of its own, in the foreground of the
// terminal that stdin is, if it is this process's terminal and this process is in
// its foreground.
func processGroup(stdin *os.File) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return attr // not Linux: without a terminal
	}
	terminal, ok := foregroundTerminal(stat)
	if !ok {
		return attr
	}
	info, err := stdin.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return attr
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && sys.Rdev == terminal {
		attr.Foreground = true
		attr.Ctty = int(stdin.Fd())
	}
	return attr
}

// foregroundTerminal reads the device number of the controlling terminal from
// /proc/PID/stat (proc(5): fields 5 pgrp, 7 tty_nr, 8 tpgid), if the process is in
// its foreground. The second field is in parentheses and may hold anything.
func foregroundTerminal(stat []byte) (device uint64, ok bool) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, false
	}
	fields := strings.Fields(string(stat[end+1:])) // from field 3
	if len(fields) < 6 {
		return 0, false
	}
	group, foreground := fields[2], fields[5]
	device, err := strconv.ParseUint(fields[4], 10, 64)
	return device, err == nil && device != 0 && group == foreground
}
