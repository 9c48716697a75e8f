// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

// What --drain-order may say.
const (
	drainTogether     = "together"
	drainInboundFirst = "inbound-first"
)

const (
	defaultDrainIdle = time.Second
	// defaultSettle is what the news of a deregistration takes to reach the other
	// sidecars; until then they still send here, and are served.
	defaultSettle = 500 * time.Millisecond
	// appPoll is how often the application's port is tried while it is to go.
	appPoll = 100 * time.Millisecond
)

// drainIdle is how long connections without a request may stay in a drain, negative for
// not at all.
func (o *Options) drainIdle() time.Duration {
	if o.DrainStrategy == "immediate" || o.DrainIdle == 0 {
		return -1
	}
	return o.DrainIdle
}

// drain takes the instance out and lets what is under way in a scope end. ctx cuts it
// short.
func (s *process) drain(ctx context.Context, scope proxy.DrainScope) {
	s.deregister(ctx, deregisterLimit, s.o.SettleTime)
	s.drainOnly(ctx, scope, s.o.DrainTime)
}

func (s *process) drainOnly(ctx context.Context, scope proxy.DrainScope, limit time.Duration) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.dp.Drain(limited, scope); err != nil {
		s.log.Warn("drained only in part", "limit", limit, "error", err)
	}
}

// drainInOrder is the end of a process that was told to. With --drain-order
// inbound-first, an application that ends at the same time can still call others until
// it has gone; a quarter of the drain time is left for what it has under way then.
func (s *process) drainInOrder(ctx context.Context) {
	if s.o.DrainOrder != drainInboundFirst {
		s.drain(ctx, proxy.DrainAll)
		return
	}
	began := time.Now()
	s.drain(ctx, proxy.DrainInbound)
	limited, cancel := context.WithDeadline(ctx, began.Add(s.o.DrainTime*3/4))
	gone := appGone(limited, s.o.App)
	cancel()
	s.log.Info("draining the outbound side", "applicationGone", gone)
	s.drainOnly(ctx, proxy.DrainOutbound, max(time.Until(began.Add(s.o.DrainTime)), s.o.DrainTime/4))
}

// appGone waits until nobody listens at an address, and says whether that is so.
func appGone(ctx context.Context, address string) bool {
	ticker := time.NewTicker(appPoll)
	defer ticker.Stop()
	var d net.Dialer
	for {
		limited, cancel := context.WithTimeout(ctx, time.Second)
		c, err := d.DialContext(limited, "tcp", address)
		cancel()
		switch {
		case err == nil:
			_ = c.Close() // it is there
		case ctx.Err() == nil:
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}
