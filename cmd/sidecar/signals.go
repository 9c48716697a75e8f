// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/interrupt"
)

// signals is what the process is told from outside: SIGTERM and SIGINT end it in
// order, SIGUSR1 reopens the access logs, SIGUSR2 starts a successor from the program
// on disk, SIGHUP reads the bootstrap again. `exec` hands the others on to its command.
type signals struct {
	received chan os.Signal
	watch    interrupt.Watch // of those that end
}

// notify takes the signals over until stop.
func notify(more ...os.Signal) *signals {
	s := &signals{received: make(chan os.Signal, 16)}
	signal.Notify(s.received, append([]os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP}, more...)...)
	return s
}

func (s *signals) stop() { signal.Stop(s.received) }

func (*signals) ends(sig os.Signal) bool { return sig == syscall.SIGTERM || sig == syscall.SIGINT }

// echo says that a signal that ends is the first one again. The one goroutine that
// receives asks it, once for each.
func (s *signals) echo(sig os.Signal) bool {
	return s.ends(sig) && s.watch.See(sig, time.Now()) == interrupt.Echo
}

// ended reports whether a signal that ends has come before.
func (s *signals) ended() bool { return s.watch.Seen() }
