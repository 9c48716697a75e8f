// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// pickOriginal returns the host of a destination, for a connection whose socket's peer
// is from. What would come back is not dialled: the sidecar's own ports, and what it has
// dialled already when the connection is that one, led back by a rule of the kernel. One
// that is led here on purpose, because a sidecar calls its own service, looks the same:
// it goes on where the cluster has a source address that it does not have itself, which
// is what rules let pass. If they do not, it has that address the next time.
func (on *clusterOn) pickOriginal(to, from netip.AddrPort) *lb.Host {
	if p := on.spec.res.OriginalDst.Port; p != 0 {
		to = netip.AddrPortFrom(to.Addr(), p)
	}
	if on.w.ownPort(to.Port()) || on.spec.dialsAs(from) && on.w.loop.Dialled(from, to) {
		on.w.stats.loopsRefused++
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
	for _, list := range w.listeners {
		for _, on := range list {
			for _, o := range on.sockets {
				if o.addr.AddrPort.Port() == port {
					return true
				}
			}
		}
	}
	return false
}

// refuseLoop refuses a connection of the sidecar itself that a rule of the kernel has led
// to a listener for the application's: it would be routed to where it was going, and led
// here again. An inbound listener is where connections to this host's own address are led
// on purpose.
func (l *listener) refuseLoop(w *worker, c *reactor.Conn, conf *listenerConfig) bool {
	if conf.res.Direction != resource.Outbound || !c.ComesBack() {
		return false
	}
	l.leave()
	w.stats.loopsRefused++
	conf.log.accepted(w, c, w.loop.Now(), "", record.UH, detailsLoop, nil)
	return true
}

const detailsLoop = "redirected_back_to_sidecar"

// comesBack is refuseLoop of a connection that has a request now. Another worker may
// have dialled it and not have noted it yet when it was accepted; what it sends, it has
// sent after that.
func (d *downstreamConn) comesBack() bool {
	conf := d.listener.config.Load()
	if conf.res.Direction != resource.Outbound || !d.conn.ComesBack() {
		return false
	}
	d.w.stats.loopsRefused++
	d.looped = true // OnClose logs it
	d.shut()
	return true
}
