// SPDX-License-Identifier: Apache-2.0

package interrupt_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/interrupt"
)

func TestTheFirstSignalIsToldFromItsEchoAndTheSecond(t *testing.T) {
	start := time.Unix(1000, 0)
	type seen struct {
		sig   os.Signal
		after time.Duration
		want  interrupt.Meaning
	}
	for _, tt := range []struct {
		name string
		seen []seen
	}{
		{"timeout(1) signals the process and its group", []seen{
			{syscall.SIGINT, 0, interrupt.First}, {syscall.SIGINT, time.Millisecond, interrupt.Echo}, {syscall.SIGINT, 200 * time.Millisecond, interrupt.Echo},
		}},
		{"somebody presses Ctrl-C again", []seen{
			{syscall.SIGINT, 0, interrupt.First}, {syscall.SIGINT, interrupt.EchoWithin, interrupt.Second},
		}},
		{"an echo does not lengthen the time for echoes", []seen{
			{syscall.SIGINT, 0, interrupt.First}, {syscall.SIGINT, 200 * time.Millisecond, interrupt.Echo}, {syscall.SIGINT, 300 * time.Millisecond, interrupt.Second},
		}},
		{"another signal is never an echo", []seen{
			{syscall.SIGTERM, 0, interrupt.First}, {syscall.SIGINT, 0, interrupt.Second},
		}},
	} {
		var w interrupt.Watch
		for i, s := range tt.seen {
			if got := w.See(s.sig, start.Add(s.after)); got != s.want {
				t.Errorf("%s: signal %d: got %d, want %d", tt.name, i, got, s.want)
			}
		}
	}
}
