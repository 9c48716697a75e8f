// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

// maxTCPOutbound is what a control plane takes of the flags together, in bytes.
const maxTCPOutbound = 512

// validateTCPOutbound checks ADDRESS=SERVICE:PORT of every --tcp-outbound, and writes the
// addresses with their hosts.
func (o *Options) validateTCPOutbound(c *check) {
	const flag = "tcp-outbound"
	addresses, targets := map[string]bool{o.Inbound: true, o.Outbound: true, o.Admin: true}, map[string]bool{}
	for i, v := range o.TCPOutbound {
		address, target, ok := strings.Cut(v, "=")
		if !ok || strings.Contains(v, ",") {
			c.fault(flag, "%q: want ADDRESS=SERVICE:PORT, such as 127.0.0.1:5432=db:5432", v)
			continue
		}
		c.listen(flag, address)
		c.hostPort(flag, target, false)
		service, port, _ := strings.Cut(target, ":")
		if !mesh.ValidServiceName(service) {
			c.fault(flag, "%q: %q is no name of a service", v, service)
		}
		if port == "0" || strings.HasSuffix(address, ":0") {
			c.fault(flag, "%q: want ports from 1 to 65535", v)
		}
		if addresses[address] || targets[target] {
			c.fault(flag, "%q: the address, or the port of the service, is given twice", v)
		}
		addresses[address], targets[target] = true, true
		o.TCPOutbound[i] = explicit(address) + "=" + target
	}
	if n := len(strings.Join(o.TCPOutbound, ",")); n > maxTCPOutbound {
		c.fault(flag, "all together have %d bytes, at most %d are taken", n, maxTCPOutbound)
	}
}

// tcpOutbounds knows which of --tcp-outbound nobody listens for. It is of who publishes.
type tcpOutbounds struct {
	missing map[string]bool // by target
}

// update tells once of each target that the mesh has no listener for, and once of one that
// has come: the control plane sends its listener as soon as it knows the port. open is
// whether somebody listens at an address.
func (t *tcpOutbounds) update(flags []string, open func(address string) bool, log *slog.Logger) {
	for _, v := range flags {
		address, target, _ := strings.Cut(v, "=")
		switch is := open(address); {
		case !is && !t.missing[target]:
			if t.missing == nil {
				t.missing = map[string]bool{}
			}
			t.missing[target] = true
			log.Warn("--tcp-outbound: "+noSuchPort, "address", address, "target", target)
		case is && t.missing[target]:
			delete(t.missing, target)
			log.Info("--tcp-outbound: the service has come", "address", address, "target", target)
		}
	}
}

// listening is whether a listener of the proxy is open at an address.
func (d *plane) listening(address string) bool {
	return slices.ContainsFunc(d.proxy.Listeners(), func(l proxy.ListenerStatus) bool {
		return l.Address.String() == address || slices.ContainsFunc(l.Additional, func(a proxy.AddressStatus) bool { return a.String() == address })
	})
}
