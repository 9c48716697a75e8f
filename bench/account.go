// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/*/stat: USER_HZ is 100 in Linux's ABI.
const tick = 10 * time.Millisecond

// cpuUse is the CPU time that a process and those below it have had.
type cpuUse struct {
	threads map[int]time.Duration // by thread id, from schedstat: exact
	total   time.Duration         // from stat, ended threads too: in ticks
	user    time.Duration         // from stat: in ticks
}

// memory is what a process and those below it hold, in bytes. PSS counts a page
// that several processes map by its share.
type memory struct {
	RSS int64 `json:"rssBytes"`
	PSS int64 `json:"pssBytes"`
}

// tree lists a process and its descendants.
func tree(pid int) ([]int, error) {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		if err != nil {
			return nil, err
		}
		for _, f := range lists {
			text, err := os.ReadFile(f)
			if errors.Is(err, fs.ErrNotExist) {
				continue // the thread ended
			}
			if err != nil {
				return nil, err
			}
			for word := range strings.FieldsSeq(string(text)) {
				child, err := strconv.Atoi(word)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", f, err)
				}
				pids = append(pids, child)
			}
		}
	}
	return pids, nil
}

func readCPU(pid int) (cpuUse, error) {
	use := cpuUse{threads: map[int]time.Duration{}}
	pids, err := tree(pid)
	if err != nil {
		return use, err
	}
	for _, p := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			return use, err
		}
		user, system, err := parseStat(text)
		if err != nil {
			return use, fmt.Errorf("/proc/%d/stat: %w", p, err)
		}
		use.user += user
		use.total += user + system
		if err := use.addThreads(p); err != nil {
			return use, err
		}
	}
	return use, nil
}

func (u *cpuUse) addThreads(pid int) error {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		on, err := parseSchedstat(text)
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		tid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			return err
		}
		u.threads[tid] = on
	}
	return nil
}

// since is the CPU time from an earlier reading to this one, and the part of it
// in user mode (in ticks). It is exact unless a thread ended in between; then the
// time of the process, which has that thread's, is used.
func (u *cpuUse) since(before *cpuUse) (total, user time.Duration) {
	for tid, on := range u.threads {
		total += on - before.threads[tid]
	}
	for tid := range before.threads {
		if _, still := u.threads[tid]; !still {
			total = max(total, u.total-before.total)
		}
	}
	return total, u.user - before.user
}

// sum is all that the living threads have had.
func (u *cpuUse) sum() time.Duration {
	var total time.Duration
	for _, on := range u.threads {
		total += on
	}
	return total
}

// parseStat reads utime and stime of /proc/PID/stat (proc_pid_stat(5), fields 14
// and 15). The command in field 2 may hold blanks and parentheses.
func parseStat(text []byte) (user, system time.Duration, err error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return 0, 0, errors.New("no command in parentheses")
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 13 {
		return 0, 0, fmt.Errorf("%d fields after the command, want at least 13", len(fields))
	}
	var ticks [2]int64
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(fields[11+i], 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(ticks[0]) * tick, time.Duration(ticks[1]) * tick, nil
}

// parseSchedstat reads the time on the CPU, the first of three numbers.
func parseSchedstat(text []byte) (time.Duration, error) {
	fields := strings.Fields(string(text))
	if len(fields) != 3 {
		return 0, fmt.Errorf("%d fields, want 3", len(fields))
	}
	ns, err := strconv.ParseInt(fields[0], 10, 64)
	return time.Duration(ns), err
}

func readMemory(pid int) (memory, error) {
	var sum memory
	pids, err := tree(pid)
	if err != nil {
		return sum, err
	}
	for _, p := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			return sum, err
		}
		m, err := parseSmaps(text)
		if err != nil {
			return sum, fmt.Errorf("/proc/%d/smaps_rollup: %w", p, err)
		}
		sum.RSS += m.RSS
		sum.PSS += m.PSS
	}
	return sum, nil
}

func parseSmaps(text []byte) (m memory, err error) {
	found := 0
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		var to *int64
		switch name {
		case "Rss":
			to = &m.RSS
		case "Pss":
			to = &m.PSS
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
		*to = kib << 10
		found++
	}
	if found != 2 {
		return m, errors.New("has not one Rss and one Pss")
	}
	return m, nil
}

// coreTimes is what one CPU has spent, in ticks.
type coreTimes struct {
	busy, steal time.Duration
}

func readCore(cpu int) (coreTimes, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return coreTimes{}, err
	}
	return parseCore(text, cpu)
}

// parseCore reads the line of a CPU in /proc/stat: user nice system idle iowait
// irq softirq steal, of which idle and iowait are no work.
func parseCore(text []byte, cpu int) (coreTimes, error) {
	name := "cpu" + strconv.Itoa(cpu)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[0] != name {
			continue
		}
		var t [8]int64
		for i := range t {
			var err error
			if t[i], err = strconv.ParseInt(fields[1+i], 10, 64); err != nil {
				return coreTimes{}, fmt.Errorf("/proc/stat: %s: %w", name, err)
			}
		}
		return coreTimes{
			busy:  time.Duration(t[0]+t[1]+t[2]+t[5]+t[6]) * tick,
			steal: time.Duration(t[7]) * tick,
		}, nil
	}
	return coreTimes{}, fmt.Errorf("/proc/stat: has no %s", name)
}
