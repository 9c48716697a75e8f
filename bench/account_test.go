// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestStatIsReadPastAnyCommandName(t *testing.T) {
	const rest = " S 1 42 42 0 -1 4194560 100 0 0 0 123 45 6 7 20 0 3 0 999 1000 200"
	for _, command := range []string{"nginx", "a b", "x) S 1 (2", "(())"} {
		user, system, err := parseStat([]byte("42 (" + command + ")" + rest))
		if err != nil || user != 1230*time.Millisecond || system != 450*time.Millisecond {
			t.Errorf("%q: got %s, %s, %v, want 1.23s, 450ms", command, user, system, err)
		}
	}
	for _, text := range []string{"", "42 nginx S 1", "42 (nginx) S 1 2", "42 (nginx)" + strings.Replace(rest, "123", "x", 1)} {
		if _, _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestSchedstatIsNanosecondsOnTheCPU(t *testing.T) {
	got, err := parseSchedstat([]byte("1234567890 2780 2\n"))
	if err != nil || got != 1234567890 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, text := range []string{"", "1 2", "x 2 3"} {
		if _, err := parseSchedstat([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestSmapsSumsAreRead(t *testing.T) {
	got, err := parseSmaps([]byte("5581-7ffd ---p 00000000 00:00 0    [rollup]\nRss:               11240 kB\nPss:                9000 kB\nPss_Dirty:          800 kB\n"))
	if want := (memory{RSS: 11240 << 10, PSS: 9000 << 10}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "Rss: 1 kB\n", "Rss: x kB\nPss: 1 kB\n"} {
		if _, err := parseSmaps([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestTimesOfACoreLeaveOutIdleAndSteal(t *testing.T) {
	const text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 1000 2000 4 5 6 0 0\ncpu10 9 9 9 9 9 9 9 9 0 0\n"
	got, err := parseCore([]byte(text), 0)
	if want := (coreTimes{busy: 15 * tick, steal: 6 * tick}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := parseCore([]byte(text), 1); err == nil {
		t.Error("a CPU that is not there: no error")
	}
}

func TestCPUTimeIsThatOfThreadsUnlessOneEnded(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	before := cpuUse{threads: map[int]time.Duration{1: ms(100), 2: ms(50)}, total: ms(150), user: ms(90)}
	for name, c := range map[string]struct {
		after cpuUse
		want  time.Duration
	}{
		"all live":    {cpuUse{threads: map[int]time.Duration{1: ms(103), 2: ms(51)}, total: ms(160), user: ms(95)}, ms(4)},
		"one began":   {cpuUse{threads: map[int]time.Duration{1: ms(103), 2: ms(51), 3: ms(7)}, total: ms(160), user: ms(95)}, ms(11)},
		"one ended":   {cpuUse{threads: map[int]time.Duration{1: ms(103)}, total: ms(170), user: ms(95)}, ms(20)},
		"ended early": {cpuUse{threads: map[int]time.Duration{1: ms(109)}, total: ms(150), user: ms(95)}, ms(9)},
	} {
		t.Run(name, func(t *testing.T) {
			total, user := c.after.since(&before)
			if total != c.want || user != ms(5) {
				t.Errorf("got %s, %s, want %s, 5ms", total, user, c.want)
			}
		})
	}
}

func TestTheKernelAccountsForThisProcess(t *testing.T) {
	before, err := readCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var after cpuUse
	for began, sum := time.Now(), 0; ; sum++ { // until it shows
		if after, err = readCPU(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		if used, _ := after.since(&before); used > time.Millisecond {
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("no CPU time after 10 s of work")
		}
	}
	m, err := readMemory(os.Getpid())
	if err != nil || m.RSS < 1<<20 || m.PSS > m.RSS {
		t.Errorf("got %+v, %v", m, err)
	}
}
