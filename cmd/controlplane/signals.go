// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/interrupt"
)

var errInterrupted = errors.New("interrupted")

// untilSignal is a context that the first SIGINT or SIGTERM ends; serve drains
// then. A second one ends the process at once with exitFailed: the store survives
// that, as it survives a crash. stop gives the signals back.
func untilSignal(ctx context.Context, errOut io.Writer) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	received := make(chan os.Signal, 16)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { // ended by stop
		var watch interrupt.Watch
		for {
			select {
			case <-done:
				return
			case sig := <-received:
				switch watch.See(sig, time.Now()) {
				case interrupt.First:
					cancel(fmt.Errorf("%w by %s", errInterrupted, sig))
				case interrupt.Second:
					fmt.Fprintln(errOut, paint(errOut, red, "error:")+" second signal: ended without waiting for what was under way")
					os.Exit(exitFailed)
				}
			}
		}
	})
	return ctx, func() {
		signal.Stop(received)
		close(done)
		watching.Wait()
		cancel(nil)
	}
}

// interrupted is why ctx ended, where a signal ended it.
func interrupted(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errInterrupted) {
		return cause
	}
	return nil
}
