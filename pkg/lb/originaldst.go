// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"net/netip"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// maxOriginals bounds the hosts of one cluster on one loop.
const maxOriginals = 4096

// metadata6 is the address of a cloud's metadata service that is not link-local.
var metadata6 = netip.MustParseAddr("fd00:ec2::254")

// Originals are one loop's hosts of a cluster whose hosts are where connections
// were meant to go. They are made on demand, and leave when they have had no
// connection for the cluster's cleanup interval. Counts of a host are the loop's
// own; the cluster's limits are exact over all.
type Originals struct {
	cfg      resource.OriginalDst
	hosts    map[netip.AddrPort]*original
	locality resource.Locality
	swept    int64
}

type original struct {
	host *Host
	used int64 // when it was picked, or seen busy, last
}

// NewOriginals makes the hosts' place, with none in it.
func NewOriginals(cfg resource.OriginalDst) *Originals {
	return &Originals{cfg: cfg, hosts: map[netip.AddrPort]*original{}}
}

// Pick returns the host of a destination, nil where traffic must not go there or
// there are too many. now is the loop's clock in nanoseconds. left says that hosts
// have gone: their connections are to be given up.
func (o *Originals) Pick(to netip.AddrPort, now int64) (h *Host, left bool) {
	if o.cfg.Port != 0 {
		to = netip.AddrPortFrom(to.Addr(), o.cfg.Port)
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if Forbidden(to) {
		return nil, false
	}
	if now-o.swept >= int64(o.cfg.Cleanup) {
		left = o.sweep(now)
	}
	if e := o.hosts[to]; e != nil {
		e.used = now
		return e.host, left
	}
	if len(o.hosts) >= maxOriginals {
		return nil, left
	}
	e := &original{used: now, host: newHost(&resource.Endpoint{
		Address: resource.Address{Host: to.Addr().String(), Port: to.Port()}, Weight: 1,
	}, &o.locality)}
	o.hosts[to] = e
	return e.host, left
}

// sweep drops hosts that nobody has used for the interval.
func (o *Originals) sweep(now int64) (left bool) {
	o.swept = now
	for to, e := range o.hosts {
		switch {
		case e.host.Active.Load() > 0:
			e.used = now
		case now-e.used >= int64(o.cfg.Cleanup):
			e.host.setFlag(flagGone, true)
			delete(o.hosts, to)
			left = true
		}
	}
	return left
}

// Close flags all hosts as gone.
func (o *Originals) Close() {
	for to, e := range o.hosts {
		e.host.setFlag(flagGone, true)
		delete(o.hosts, to)
	}
}

// Len is the number of hosts.
func (o *Originals) Len() int { return len(o.hosts) }

// Forbidden reports whether a destination that a client names must not be
// connected to on its behalf: this host itself, metadata services and other
// link-local addresses, and what is no address of one host.
func Forbidden(to netip.AddrPort) bool {
	a := to.Addr().Unmap()
	return !a.IsValid() || to.Port() == 0 || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() ||
		a.IsLinkLocalUnicast() || a.Zone() != "" || a == metadata6 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
