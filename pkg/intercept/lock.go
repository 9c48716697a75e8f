// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// lockName is an abstract Unix socket: there is one for each network namespace,
// as there is one set of rules, and the kernel lets go of it with the process.
const lockName = "@outrigger-intercept"

// lock takes the name, waiting for its holder to let go of it until ctx ends.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	var listen net.ListenConfig
	var dial net.Dialer
	for {
		l, err := listen.Listen(ctx, "unix", name)
		if err == nil {
			return func() { _ = l.Close() }, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		conn, err := dial.DialContext(ctx, "unix", name)
		if err == nil {
			// The holder accepts nobody; the connection ends with it.
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			_, _ = conn.Read(make([]byte, 1))
			stop()
			_ = conn.Close()
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: another process of this network namespace holds %s: %w", ErrLocked, name, context.Cause(ctx))
		}
	}
}
