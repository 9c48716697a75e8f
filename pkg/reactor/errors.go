// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"errors"
	"fmt"
	"syscall"
)

// Errors that OnClose may carry besides a plain syscall.Errno, which is the
// answer of the kernel as it is (ECONNREFUSED, ECONNRESET, EPIPE, EMFILE …).
var (
	// ErrPanic: a callback of this connection panicked.
	ErrPanic = errors.New("reactor: panic in a connection's handler")
	// ErrLoopStopped: the loop ended while the connection was open.
	ErrLoopStopped = errors.New("reactor: loop stopped")
	// ErrTruncated: the peer ended a connection with a Transport without saying so
	// in it, so that what came may have been cut short by anybody.
	ErrTruncated = errors.New("reactor: connection ended without the peer's close notification")
	// ErrStalled: CloseAfterFlush gave up on a peer that took no output.
	ErrStalled = errors.New("reactor: peer takes no output")

	errNoPlace = fmt.Errorf("reactor: all places of accepted connections are taken: %w", syscall.EMFILE)
)
