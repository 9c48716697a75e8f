// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// compileTap makes what looks on at a TCP proxy's connections, for each worker.
func (p *Proxy) compileTap(f *resource.ConnectionFilter) ([]filter.ConnectionFilter, error) {
	if f == nil {
		return nil, nil
	}
	spec := p.options.Filters.Lookup(f.TypeURL)
	if spec == nil || spec.Connection == nil {
		return nil, fmt.Errorf("tap: no filter of type %s looks on at connections", f.TypeURL)
	}
	var taps []filter.ConnectionFilter
	for w := range p.workers {
		taps = append(taps, spec.Connection.New(f.Config, filter.Worker{Index: w, Loop: p.workers[w].loop}))
	}
	return taps, nil
}

// observe asks whether anybody follows the connection. Those that nobody does are as if
// there were no tap, and so is each direction of which enough was seen.
func (t *tunnel) observe() {
	if t.proxy.taps == nil {
		return
	}
	t.observer = t.proxy.taps[t.w.index].OnConnection(&t.rec, t.started, t.w.random.Uint64())
	t.down.seen, t.up.seen = t.observer != nil, t.observer != nil
	if t.chain.removed.Load() { // while it shook hands
		t.replaceTap(t.listener.config.Load())
	}
}

// follower is the proxy of the connections to come that a chain would have got, nil for
// none. A chain that has gone is followed by that of its name: connections outlive it.
func (c *listenerConfig) follower(ch *chain) *tcpProxy {
	if !ch.removed.Load() {
		return ch.tcp.Load()
	}
	for _, o := range c.all() {
		if ch.name != "" && o.name == ch.name && !o.removed.Load() {
			return o.tcp.Load()
		}
	}
	return nil
}

// tapped lists the proxies of the chains whose connections somebody looks on at.
func (c *listenerConfig) tapped() map[*chain]*tcpProxy {
	m := map[*chain]*tcpProxy{}
	for _, ch := range c.all() {
		if t := ch.tcp.Load(); t != nil && t.taps != nil {
			m[ch] = t
		}
	}
	return m
}

// replaceTaps has workers tell who looks on at connections of the listener that this is
// configured in another way now, or no longer. Was is what tapped said before.
func (p *Proxy) replaceTaps(l *listener, was map[*chain]*tcpProxy) {
	conf := l.config.Load()
	for ch, t := range was {
		if f := conf.follower(ch); f != nil && f.res.Tap == t.res.Tap {
			continue
		}
		for _, w := range p.workers {
			w.loop.PostOffLoop(func() { w.replaceTaps(l) })
		}
		return
	}
}

func (w *worker) replaceTaps(l *listener) {
	conf := l.config.Load()
	for t := w.tunnels; t != nil; t = t.next {
		if t.listener == l {
			t.replaceTap(conf)
		}
	}
}

func (t *tunnel) replaceTap(conf *listenerConfig) {
	if t.observer == nil {
		return
	}
	f := conf.follower(t.chain)
	var by filter.ConnectionFilter
	switch {
	case f == nil || f.taps == nil:
	case f.res.Tap == t.proxy.res.Tap:
		return
	default:
		by = f.taps[t.w.index]
	}
	if !t.observer.OnReplaced(by, t.w.loop.Wall()) {
		t.observer, t.down.seen, t.up.seen = nil, false, false
	}
}

// observed tells who followed the connection of its end.
func (t *tunnel) observed() {
	if o := t.observer; o != nil {
		t.observer, t.down.seen, t.up.seen = nil, false, false
		o.OnDone(t.w.loop.Now())
	}
}
