// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// ListenerStatus is an open listener, in the shape of Envoy's
// envoy.admin.v3.ListenerStatus.
type ListenerStatus struct {
	Name       string          `json:"name"`
	Address    AddressStatus   `json:"local_address"`
	Additional []AddressStatus `json:"additional_local_addresses,omitempty"`
}

// AddressStatus is an address, in the shape of Envoy's core.v3.Address.
type AddressStatus struct {
	Socket *SocketAddressStatus `json:"socket_address,omitempty"`
	Pipe   *PipeStatus          `json:"pipe,omitempty"`
	text   string
}

// SocketAddressStatus is an IP address with its port.
type SocketAddressStatus struct {
	Address string `json:"address"`
	Port    uint16 `json:"port_value"`
}

// PipeStatus is a Unix socket.
type PipeStatus struct {
	Path string `json:"path"`
}

// String is the address as text: "10.0.0.1:80", "[::1]:80", "/run/app.sock".
func (a AddressStatus) String() string { return a.text }

func addressStatus(a reactor.Addr) AddressStatus {
	if a.Unix != "" {
		return AddressStatus{Pipe: &PipeStatus{a.Unix}, text: a.Unix}
	}
	return AddressStatus{
		Socket: &SocketAddressStatus{a.AddrPort.Addr().String(), a.AddrPort.Port()},
		text:   a.AddrPort.String(),
	}
}

// Listeners lists the listeners that are open, by name, with the addresses they
// are bound to. Any goroutine but a loop may call it.
func (p *Proxy) Listeners() []ListenerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []ListenerStatus{}
	for _, l := range p.listeners {
		if len(l.open) == 0 {
			continue
		}
		s := ListenerStatus{Name: l.name, Address: addressStatus(l.open[0].set.Addr())}
		for _, o := range l.open[1:] {
			s.Additional = append(s.Additional, addressStatus(o.set.Addr()))
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b ListenerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// WriteListeners writes the open listeners as Envoy's /listeners does: a line
// "name::address" for each address, or envoy.admin.v3.Listeners as JSON.
func (p *Proxy) WriteListeners(w io.Writer, asJSON bool) error {
	list := p.Listeners()
	if asJSON {
		return writeJSON(w, struct {
			Statuses []ListenerStatus `json:"listener_statuses,omitempty"`
		}{list})
	}
	for _, l := range list {
		for _, a := range append([]AddressStatus{l.Address}, l.Additional...) {
			if _, err := fmt.Fprintf(w, "%s::%s\n", l.Name, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// FailedListeners are the listeners that could not be opened or updated, each
// with the reason; they are tried again with the next configuration.
func (p *Proxy) FailedListeners() map[string]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := make(map[string]error, len(p.failed))
	for name, err := range p.failed {
		m[name] = err
	}
	return m
}

// writeJSON writes v as Envoy's admin port does, indented by one blank.
func writeJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// listenerSamples adds the stats of listener.<address> and listener_manager.
func (p *Proxy) listenerSamples(s *sampler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var draining uint64
	for _, l := range p.listeners {
		if l.drains.Load() {
			draining++
		}
		name, ok := l.statName()
		if !ok {
			continue
		}
		s.in(metrics.NewScope("listener."+name, "listener", metrics.Tag{Name: "envoy_listener_address", Value: name}))
		total, active := l.connections()
		s.add("downstream_cx_total", "Connections accepted.", counter, total)
		s.add("downstream_cx_active", "Connections open now.", gauge, active)
		s.add("downstream_pre_cx_active", "Connections that listener filters look at.", gauge, uint64(max(l.looking.Load(), 0)))
		s.add("downstream_pre_cx_timeout", "Connections that listener filters looked at for too long.", counter, l.lookTimeout.Load())
		s.add("downstream_cx_overflow", "Connections refused by the listener's limit.", counter, l.refused.Load())
		s.add("downstream_global_cx_overflow", "Connections refused because there are too many in the process.", counter, l.globalRefused.Load())
		s.add("downstream_cx_overload_reject", "Connections refused because the process is overloaded.", counter, l.overloadRefused.Load())
		s.add("no_filter_chain_match", "Connections that no filter chain was for.", counter, l.unmatched.Load())
		s.add("downstream_cx_destroy", "Connections closed.", counter, total-active)
	}
	p.rates.samples(s)
	s.in(nil)
	s.add("listener_manager.total_listeners_active", "Listeners in service.", gauge, uint64(len(p.listeners)))
	s.add("listener_manager.total_listeners_draining", "Listeners that take leave of their connections.", gauge, draining)
	s.add("listener_manager.workers_started", "1 once the workers run.", gauge, 1)
	s.add("outrigger.listeners_failed", "Listeners that could not be opened or updated.", gauge, uint64(len(p.failed)))
}

// statName is what stats call the listener; false where it has no name and is not
// open. Under p.mu.
func (l *listener) statName() (name string, ok bool) {
	if prefix := l.config.Load().res.StatPrefix; prefix != "" {
		return statName(prefix), true
	}
	if len(l.open) == 0 {
		return "", false
	}
	return statName(addressStatus(l.open[0].set.Addr()).text), true
}

// connections are the accepted and the open ones, read at one time as far as can
// be: their difference is shown as a counter, which must not go back.
func (l *listener) connections() (total, active uint64) {
	for range 8 {
		total = l.total.Load()
		active = uint64(max(l.active.Load(), 0))
		if l.total.Load() == total && active <= total {
			break
		}
	}
	return total, min(active, total)
}
