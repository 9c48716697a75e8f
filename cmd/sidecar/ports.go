// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// probePorts opens and closes the ports of the common case. Their listeners come
// from the control plane only later, and a sidecar that cannot have its port must
// not register an instance behind it: whoever has the port would get its traffic.
func probePorts(ctx context.Context, o *Options, had *heritage) error {
	if !o.Common() {
		return nil // the bootstrap's own listeners are bound at the start
	}
	ports := []struct{ flag, address string }{{"outbound", o.Outbound}}
	if o.App != "" {
		ports = append(ports, struct{ flag, address string }{"inbound", o.Inbound})
	}
	var errs []error
	for _, p := range ports {
		if strings.HasPrefix(p.address, "unix:") || had.has(p.address) {
			continue // the socket of a sidecar that died is no obstacle, and one's own none
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", explicit(p.address))
		if err != nil {
			errs = append(errs, busyAddress(p.flag, err))
			continue
		}
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// busyAddress names the flag whose address cannot be had, and the way out.
func busyAddress(flag string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("--%s: %w (another process has it: stop that one, or choose another address with --%s)", flag, err, flag)
	}
	return fmt.Errorf("--%s: %w", flag, err)
}

// lostPort says whether a listener of the common case could not be bound because
// somebody took its port since probePorts.
func (d *plane) lostPort(s *resource.Snapshot, err error) bool {
	return d.env.Options.Common() && d.applied.Load() == 0 && len(s.Listeners) > 0 && errors.Is(err, syscall.EADDRINUSE)
}
