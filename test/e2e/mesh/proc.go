// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clockTick is the unit of the times of /proc/PID/stat: USER_HZ, 100 on Linux.
const clockTick = 10 * time.Millisecond

// CPU is the processor time that the process has used; see proc(5).
func (p *Process) CPU() time.Duration {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		p.t.Fatal(err)
	}
	// The second field is the name in parentheses and may hold spaces.
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	const utime, stime = 11, 12 // after pid and name
	return clockTick * time.Duration(number(p.t, f[utime])+number(p.t, f[stime]))
}

// CPUShare is the share of one core that the process uses over a time.
func (p *Process) CPUShare(over time.Duration) float64 {
	p.t.Helper()
	before, began := p.CPU(), time.Now()
	Pass(over)
	return float64(p.CPU()-before) / float64(time.Since(began))
}

// RSS is the resident memory in bytes, and PeakRSS the most it ever was.
func (p *Process) RSS() int { return p.memory("VmRSS:") }

// PeakRSS is the most that RSS ever was.
func (p *Process) PeakRSS() int { return p.memory("VmHWM:") }

// Anonymous is the resident memory in bytes that is no file's: heap, stacks, tables.
func (p *Process) Anonymous() int { return p.memory("RssAnon:") }

// PSS is the resident memory in bytes, shared pages by their share.
func (p *Process) PSS() int { return p.lineOf("smaps_rollup", "Pss:") }

func (p *Process) memory(field string) int { return p.lineOf("status", field) }

// lineOf is the number, in bytes, of a line of a file of /proc.
func (p *Process) lineOf(file, field string) int {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), file))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			return number(p.t, strings.Fields(rest)[0]) << 10 // kB
		}
	}
	p.t.Fatalf("no %s in the %s of %s", field, file, p.Name)
	return 0
}

// Descriptors is how many file descriptors are open.
func (p *Process) Descriptors() int {
	p.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(list)
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// children are the command lines of the processes that this one started and
// that have not been waited for.
func children() []string {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range strings.Fields(string(b)) {
			line, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err == nil {
				out = append(out, pid+" "+string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
			}
		}
	}
	return out
}
