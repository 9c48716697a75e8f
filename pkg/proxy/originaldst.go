// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// pickOriginal returns the host of a destination. The sidecar's own ports are
// never dialled: that would be a loop.
func (on *clusterOn) pickOriginal(to netip.AddrPort) *lb.Host {
	if on.w.ownPort(to.Port()) {
		return nil
	}
	h, left := on.originals.Pick(to, on.w.loop.Now())
	if left && on.c.spec.Load() != nil { // where it has gone, the worker is told anyway
		on.refresh()
	}
	return h
}

// destination is where the exchange was meant to go: what the header says, where
// the cluster reads one and it is an address, and the connection's own otherwise.
func (on *clusterOn) destination(x *exchange) netip.AddrPort {
	if name := on.spec.res.OriginalDst.Header; name != "" {
		if v, ok := requestValue(&x.Request, name, &on.scratch); ok {
			if to, err := netip.ParseAddrPort(string(v)); err == nil {
				return to
			}
		}
	}
	return x.Record.Local
}

// ownPort reports whether one of the worker's listeners has that port.
func (w *worker) ownPort(port uint16) bool {
	for l := range w.listeners {
		for _, o := range l.open {
			if o.addr.AddrPort.Port() == port {
				return true
			}
		}
	}
	return false
}
