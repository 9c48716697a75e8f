// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/handover"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/systemd"
)

// The names that a socket unit may give its sockets (FileDescriptorName=). Others are
// for the listener that has their address.
const (
	socketInbound  = "inbound"
	socketOutbound = "outbound"
	socketAdmin    = "admin"
)

// activated takes over the sockets that systemd has bound, nil without any. A socket
// with one of the names says where that listener is.
func activated(o *Options) (*heritage, error) {
	sockets, err := systemd.Sockets()
	if err != nil || len(sockets) == 0 {
		return nil, err
	}
	var files []handover.File
	for _, s := range sockets {
		addr, err := reactor.CheckListening(s.FD)
		if err != nil {
			handover.CloseFiles(files)
			return nil, fmt.Errorf("socket %q of systemd: want a stream socket that listens: %w", s.Name, err)
		}
		f := handover.File{Socket: handover.Socket{Use: handover.UseListener, Address: addr.String()}, FD: s.FD}
		switch s.Name {
		case socketInbound:
			o.Inbound = f.Address
		case socketOutbound:
			o.Outbound = f.Address
		case socketAdmin:
			o.Admin = f.Address
			f.Use = handover.UseAdmin
		}
		files = append(files, f)
	}
	return newHeritage(files, false)
}

// notifier tells systemd how this process is; elsewhere it does nothing.
type notifier struct{ log *slog.Logger }

func (n notifier) tell(lines ...string) {
	if err := systemd.Notify(lines...); err != nil {
		n.log.Warn(err.Error())
	}
}

func (n notifier) ready()     { n.tell("READY=1", "STATUS=serving") }
func (n notifier) reloading() { n.tell("RELOADING=1", systemd.Monotonic()) }
func (n notifier) stopping()  { n.tell("STOPPING=1", "STATUS=draining") }

// succeeded says which process is the service's from now on. It must come from the one
// that was until now.
func (n notifier) succeeded(pid int) { n.tell("MAINPID=" + strconv.Itoa(pid)) }

// watch feeds systemd's watchdog until ctx ends, as long as every worker makes progress:
// three times within its limit.
func (n notifier) watch(ctx context.Context, alive func(context.Context) error) {
	limit := systemd.Watchdog()
	if limit == 0 {
		return
	}
	n.log.Info("feeding systemd's watchdog", "limit", limit)
	ticker := time.NewTicker(limit / 3)
	defer ticker.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, limit/3)
		err := alive(limited)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			n.log.Error("systemd's watchdog is not fed", "error", err)
		default:
			n.tell("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Alive implements dataPlane.
func (d *plane) Alive(ctx context.Context) error {
	if n := d.proxy.AwaitTurn(ctx); n > 0 {
		return fmt.Errorf("%d workers make no progress", n)
	}
	return nil
}
