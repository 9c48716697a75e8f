// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what scripts print into testdata")

// TestRenewalByScript plays testdata/renewal.txt on a virtual clock: commands,
// "----", what they printed.
func TestRenewalByScript(t *testing.T) {
	const file = "testdata/renewal.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	start := time.Date(2031, 5, 1, 0, 0, 0, 0, time.UTC)
	var now time.Time
	var r *renewal
	share := 0.5 // of what chance may give
	parse := func(s string) time.Duration {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for i, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		commands, _, _ := strings.Cut(block, "\n----")
		out.WriteString(commands + "\n----\n")
		for line := range strings.Lines(commands) {
			line, _, _ = strings.Cut(line, "#")
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			switch words[0] {
			case "new":
				now = start
				r = &renewal{min: certificateMinWait, max: certificateMaxWait, chance: func(d time.Duration) time.Duration {
					return time.Duration(share * float64(d))
				}}
			case "chance":
				if _, err := fmt.Sscan(words[1], &share); err != nil {
					t.Fatal(err)
				}
			case "issued":
				r.issued(now, now.Add(parse(words[1])))
			case "failed":
				r.failed(now)
			case "due": // the clock goes to the time that is due
				now = now.Add(r.wait(now))
			case "wait":
				now = now.Add(parse(words[1]))
			default:
				t.Fatalf("no command %q", words[0])
			}
			left := "none"
			if d := r.notAfter.Sub(now); !r.notAfter.IsZero() {
				left = d.String() + " left"
			}
			fmt.Fprintf(&out, "%s: next in %s, certificate %s\n", strings.Join(words, " "), r.wait(now).Round(time.Millisecond), left)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if out.String() != string(text) {
		t.Errorf("%s prints otherwise now:\n%s", file, out.String())
	}
}
