// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// refused names the listeners that ask for an address which another has: two on one
// socket would take connections by turns. The one that is in service keeps it.
func (p *Proxy) refused(all map[string]*resource.Listener) map[string]error {
	var out map[string]error
	holder := map[resource.Address]string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l := all[name]
		if !l.BindToPort {
			continue
		}
		for _, a := range l.Addresses {
			other, taken := holder[a]
			if a.Path == "" && a.Port == 0 || other == name {
				continue // any port: each gets one of its own
			}
			loser := name
			if taken && p.holds(name, a) && !p.holds(other, a) {
				loser, holder[a] = other, name
			}
			if !taken {
				holder[a] = name
				continue
			}
			if out == nil {
				out = map[string]error{}
			}
			out[loser] = fmt.Errorf("listener %q: address %s is that of listener %q", loser, addressText(a), holder[a])
		}
	}
	return out
}

// holds reports whether a listener in service has the address.
func (p *Proxy) holds(name string, a resource.Address) bool {
	r := p.listeners[name].resource()
	return r != nil && r.BindToPort && slices.Contains(r.Addresses, a)
}

func addressText(a resource.Address) string {
	addr, err := parseAddress(a)
	if err != nil {
		return fmt.Sprintf("%s:%d", a.Host, a.Port)
	}
	return addr.String()
}
