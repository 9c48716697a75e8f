// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Successor is the command line that takes over from the sidecar.
func (s *Sidecar) Successor() []string { return append(slices.Clone(s.argv), "--upgrade") }

// Upgrade starts a successor on the same ports and folder, and waits until it serves.
// Process is the successor's from then on; the one before ends by itself.
func (s *Sidecar) Upgrade() {
	s.t.Helper()
	epoch := s.AwaitStat("server.hot_restart_epoch", func(int) bool { return true })
	s.Process = Start(s.t, "successor of "+s.ID, s.Data+".log", nil, s.Successor()...)
	s.AwaitStat("server.hot_restart_epoch", func(n int) bool { return n == epoch+1 })
	s.AwaitReady()
}

// SetProgram says which build of the sidecar a successor, or the next start, is of. It is
// for sidecars that were started without a limit on files.
func (s *Sidecar) SetProgram(path string) { s.argv[0] = path }

// Bootstrap is the file of a sidecar that was started with one.
func (s *Sidecar) Bootstrap() string { return s.Data + ".yaml" }

// AwaitLog waits until the log has a text at least so many times.
func (s *Sidecar) AwaitLog(text string, times int) {
	s.t.Helper()
	s.Await(startLimit, fmt.Sprintf("%q in the log, %d times", text, times), func() error {
		if n := strings.Count(s.Output(), text); n < times {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
}

// PIDInLog is the process that the last line of the log with a text names.
func (s *Sidecar) PIDInLog(text string) int {
	s.t.Helper()
	all := regexp.MustCompile(regexp.QuoteMeta(text)+`" pid=(\d+)`).FindAllStringSubmatch(s.Output(), -1)
	if len(all) == 0 {
		s.t.Fatalf("no process of %q in the log", text)
	}
	return number(s.t, all[len(all)-1][1])
}
