// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/outrigger-mesh/outrigger/pkg/handover"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// succession is what a data plane does when it passes from one process to the next.
type succession interface {
	// Freeze holds the configuration and its copy on disk where they are, until
	// Freeze(false) or HandOver: a successor reads them.
	Freeze(bool)
	// Sockets are copies of everything that listens; they are the caller's.
	Sockets() ([]handover.File, error)
	// HandOver lets what is under way end after a Freeze, while a successor accepts; see
	// proxy.HandOver. count is called with all counters, first when nobody can ask this
	// process for them any more, which the successor waits for, then at the end.
	HandOver(ctx context.Context, has func(listener string) bool, give func([]proxy.HandedConn) (int, error), count func(map[string]uint64)) error
	// AcceptAgain tells HandOver that the successor has gone; see proxy.AcceptAgain.
	AcceptAgain()
	// Leave is HandOver, after a Freeze, of a process that ends at once: what a successor
	// owns stays as it is.
	Leave()
	// Listeners are the names of the listeners.
	Listeners() []string
	// Take begins to accept in the predecessor's place, and to own the data folder.
	Take()
	// Adopt goes on with connections of the predecessor.
	Adopt([]proxy.HandedConn)
	// Inherit goes on from the predecessor's counters; the map becomes its own.
	Inherit(map[string]uint64)
}

// Freeze implements succession.
func (d *plane) Freeze(is bool) {
	if is {
		d.gate.Lock()
	}
	d.lastGood.SetForeign(is)
	if !is {
		d.gate.Unlock()
	}
}

// Sockets implements succession.
func (d *plane) Sockets() (all []handover.File, err error) {
	defer func() {
		if err != nil {
			handover.CloseFiles(all)
			all = nil
		}
	}()
	groups, err := d.proxy.DuplicateSockets()
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		for _, fd := range g.FDs {
			all = append(all, handover.File{Socket: handover.Socket{Use: handover.UseListener, Address: g.Addr.String()}, FD: fd})
		}
	}
	add := func(use handover.Use, address string, c any) error {
		conn, ok := c.(syscall.Conn)
		if !ok {
			return fmt.Errorf("%s %s: %T cannot be handed over", use, address, c)
		}
		fd, err := handover.Duplicate(conn)
		if err == nil {
			all = append(all, handover.File{Socket: handover.Socket{Use: use, Address: address}, FD: fd})
		}
		return err
	}
	if d.admin != nil {
		if err := add(handover.UseAdmin, d.adminAddress(), d.admin.Socket()); err != nil {
			return all, err
		}
	}
	if d.dns == nil {
		return all, nil
	}
	streams, packets := d.dns.Sockets()
	for _, l := range streams {
		err = errors.Join(err, add(handover.UseDNSStream, l.Addr().String(), l))
	}
	for _, p := range packets {
		err = errors.Join(err, add(handover.UseDNSPacket, p.LocalAddr().String(), p))
	}
	return all, err
}

// HandOver implements succession. The admin port goes first, so that nobody is told of
// two processes by turns; then names, then traffic.
func (d *plane) HandOver(ctx context.Context, has func(string) bool, give func([]proxy.HandedConn) (int, error), count func(map[string]uint64)) error {
	d.left.Store(true)
	d.gate.Unlock()
	var errs []error
	if d.admin != nil {
		d.admin.Disown()
		limited, cancel := context.WithTimeout(ctx, closeLimit)
		errs = append(errs, d.admin.Close(limited))
		cancel()
	}
	count(d.counters(ctx))
	if d.dns != nil {
		d.dns.Leave()
	}
	errs = append(errs, d.proxy.HandOver(ctx, has, give), d.emptyRings(ctx))
	count(d.counters(ctx))
	return errors.Join(errs...)
}

// counters are those of the admin port; none where there is none, or where a worker does
// not answer.
func (d *plane) counters(ctx context.Context) map[string]uint64 {
	if d.admin == nil {
		return nil
	}
	all, err := d.admin.Counters(ctx)
	if err != nil {
		d.env.Logger.Warn("the successor counts from less than was counted", "error", err)
	}
	return all
}

// Inherit implements succession.
func (d *plane) Inherit(counters map[string]uint64) {
	if d.admin != nil {
		d.admin.Inherit(counters)
	}
	d.inherit.Do(func() { close(d.counted) })
}

// AcceptAgain implements succession.
func (d *plane) AcceptAgain() { d.proxy.AcceptAgain() }

// Leave implements succession.
func (d *plane) Leave() {
	d.left.Store(true)
	d.gate.Unlock()
	if d.admin != nil {
		d.admin.Disown()
	}
	d.proxy.Disown()
}

// Take implements succession.
func (d *plane) Take() {
	for _, address := range d.env.Heritage.closeRest() {
		d.env.Logger.Warn("nobody listens any more at an address that the process before had", "address", address)
	}
	d.lastGood.SetForeign(false)
	d.proxy.StartAccepting()
	if d.admin != nil {
		d.admin.Own()
	}
	close(d.taken)
}

// Listeners implements succession.
func (d *plane) Listeners() (names []string) {
	for _, l := range listeners(d.latest.Load()) {
		names = append(names, l.Name)
	}
	return names
}

// Adopt implements succession.
func (d *plane) Adopt(list []proxy.HandedConn) { d.proxy.AdoptOffLoop(list) }

// asSuccessorHas is what a process that has handed over takes of new configuration:
// all but listeners, whose sockets are the successor's.
func (d *plane) asSuccessorHas(s *resource.Snapshot) *resource.Snapshot {
	latest := d.latest.Load()
	if !d.left.Load() || latest == nil {
		return s
	}
	out := *s
	out.Listeners = latest.Listeners
	return &out
}

// adminAddress is where the admin port is to listen; empty: there is none.
func (d *plane) adminAddress() string {
	addr := d.env.Options.Admin
	if addr == "" && d.boot.Admin != nil {
		addr = addressText(d.boot.Admin.Address)
	}
	return addr
}

// inheritedAdmin is the predecessor's admin port, nil where there was none.
func (d *plane) inheritedAdmin(address string) (net.Listener, error) {
	l, err := d.env.Heritage.listener(handover.UseAdmin, address)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	return l, nil
}

// spoolFolders are where spools of taps may be: while a process hands over, its
// successor has one of its own.
var spoolFolders = [...]string{"tap", "tap-2", "tap-3"}

// openSpool opens the first spool that no other process has, one with something in it
// before the others: a process that was killed while it handed over left it.
func openSpool(data string) (*tap.Spool, error) {
	full, empty := []string(nil), []string(nil)
	for _, name := range spoolFolders {
		dir := filepath.Join(data, name)
		if tap.HasRecords(dir) {
			full = append(full, dir)
		} else {
			empty = append(empty, dir)
		}
	}
	var first error
	for _, dir := range slices.Concat(full, empty) {
		s, err := tap.OpenSpool(tap.SpoolConfig{Dir: dir})
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return s, err
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}
