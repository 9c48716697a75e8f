// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/handover"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// heritage is the sockets that this process did not bind itself, but got from the
// process before it or from the service manager. A nil one has none.
type heritage struct {
	binder *reactor.Inherited
	others []handover.File // of the admin port and of DNS
	// waits says that a predecessor still serves on them.
	waits bool
}

// newHeritage takes over the files. An address that this build cannot read is an error.
func newHeritage(files []handover.File, waits bool) (*heritage, error) {
	h := &heritage{waits: waits}
	var groups []reactor.SocketGroup
	for i, f := range files {
		if f.Use != handover.UseListener {
			h.others = append(h.others, f)
			continue
		}
		addr, err := reactor.ParseAddr(f.Address)
		if err == nil {
			_, err = reactor.CheckListening(f.FD)
		}
		if err != nil {
			handover.CloseFiles(files[i:])
			h.close(groups)
			return nil, fmt.Errorf("socket %q: %w", f.Address, err)
		}
		groups = append(groups, reactor.SocketGroup{Addr: addr, FDs: []int{f.FD}})
	}
	h.binder = reactor.NewInherited(groups)
	return h, nil
}

func (h *heritage) close(groups []reactor.SocketGroup) {
	handover.CloseFiles(h.others)
	for i := range groups {
		groups[i].Close()
	}
}

// has reports whether there is a listening socket of an address.
func (h *heritage) has(address string) bool {
	if h == nil {
		return false
	}
	addr, err := reactor.ParseAddr(explicit(address))
	return err == nil && h.binder.Has(addr)
}

// listener takes a stream socket of a use and address, as it was written; nil without one.
func (h *heritage) listener(use handover.Use, address string) (net.Listener, error) {
	f := h.take(use, address)
	if f == nil {
		return nil, nil
	}
	defer f.Close()
	return net.FileListener(f)
}

// dns takes the sockets of DNS, all of them.
func (h *heritage) dns() (streams []net.Listener, packets []net.PacketConn, err error) {
	if h == nil {
		return nil, nil, nil
	}
	for _, o := range slices.Clone(h.others) {
		if o.Use != handover.UseDNSStream && o.Use != handover.UseDNSPacket {
			continue
		}
		f := h.take(o.Use, o.Address)
		if o.Use == handover.UseDNSStream {
			l, lerr := net.FileListener(f)
			if err = errors.Join(err, lerr); lerr == nil {
				streams = append(streams, l)
			}
		} else {
			p, perr := net.FilePacketConn(f)
			if err = errors.Join(err, perr); perr == nil {
				packets = append(packets, p)
			}
		}
		_ = f.Close() // a copy is in use
	}
	return streams, packets, err
}

func (h *heritage) take(use handover.Use, address string) *os.File {
	if h == nil {
		return nil
	}
	i := slices.IndexFunc(h.others, func(f handover.File) bool { return f.Use == use && f.Address == address })
	if i < 0 {
		return nil
	}
	fd := h.others[i].FD
	h.others = slices.Delete(h.others, i, i+1)
	return os.NewFile(uintptr(fd), address)
}

// closeRest closes what nobody has asked for, and says what that was.
func (h *heritage) closeRest() []string {
	if h == nil {
		return nil
	}
	handover.CloseFiles(h.others)
	h.others = nil
	return h.binder.CloseUnclaimed()
}

// isWaiting reports whether a predecessor still serves.
func (h *heritage) isWaiting() bool { return h != nil && h.waits }

// binderOf is the Binder of the data path, nil for the kernel's.
func (h *heritage) binderOf() reactor.Binder {
	if h == nil {
		return nil
	}
	return h.binder
}
