// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// screen writes the account: plain lines, with colour on a terminal.
type screen struct {
	w      io.Writer
	colour bool
	began  time.Time
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{w: f, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", began: time.Now()}
}

const (
	green, red, dim, bold = "32", "31", "2", "1"
)

func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) line(mark, text string) {
	stamp := fmt.Sprintf("%5.1fs", time.Since(s.began).Seconds())
	fmt.Fprintf(s.w, "%s  %s %s\n", s.paint(dim, stamp), mark, text)
}

func (s *screen) note(format string, args ...any) { s.line(" ", fmt.Sprintf(format, args...)) }

func (s *screen) failed(err error) { s.line(s.paint(red, "!"), err.Error()) }

func (s *screen) step(x *step) {
	if x.seen {
		s.line(s.paint(green, "✓"), s.paint(bold, x.title)+": "+x.detail)
		return
	}
	s.line(s.paint(red, "✗"), s.paint(bold, x.title)+": "+x.detail)
}

// addresses lists what can be opened while it runs.
func (s *screen) addresses(m *mesh) {
	s.note("ready; to look at while it runs:")
	s.note("  the application   %s", m.entry())
	s.note("  control plane     %s   also /v1/sidecars /openapi.json", m.api("/v1/status"))
	s.note("  traces            %s", m.api("/zipkin/api/v2/traces?serviceName=web"))
	for _, x := range m.members {
		s.note("  %-17s http://%s/   circuits: /hystrix.stream", x.id+" admin", x.admin)
	}
	s.note("  command line      %s status --server %s", m.bin("controlplane"), m.api(""))
	s.note("  logs and data     %s", m.dir)
}

// load is a line about the whole load.
func (s *screen) load(t tally) {
	without := ""
	if t.degraded > 0 {
		without = fmt.Sprintf(", %d answered without payments, as it failed or its circuit was open", t.degraded)
	}
	s.note("%d requests so far, %d lost%s", t.sent, t.lost, without)
}

// verdict lists what was not seen; the result is the exit code. Somebody who ends
// a run without a set length has seen enough.
func (s *screen) verdict(story *story, bounded, interrupted bool) int {
	s.load(story.load.total())
	missing := 0
	for _, x := range story.steps {
		switch {
		case x.seen:
		case x.cut:
			missing++
			s.note("interrupted before: %s", x.title)
		default:
			missing++
			s.failed(fmt.Errorf("not seen: %s: %s", x.title, x.detail))
		}
	}
	switch {
	case missing == 0:
		s.note("all %d things were seen", len(story.steps))
		return 0
	case interrupted && bounded:
		return 130
	case interrupted:
		return 0
	}
	return 1
}
