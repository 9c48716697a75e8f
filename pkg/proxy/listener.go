// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// listener is a listener that is open, process-wide. An update of it on the same
// addresses is one store of config.
type listener struct {
	name   string
	config atomic.Pointer[listenerConfig]
	open   []openSocket
	// active counts connections of all workers, for connection limits.
	active atomic.Int64
	total  atomic.Uint64
	// refused by the limit; unmatched: no filter chain was for them.
	refused, unmatched atomic.Uint64
	// looking counts connections that listener filters look at, lookTimeout those
	// that they looked at for too long.
	looking     atomic.Int64
	lookTimeout atomic.Uint64
	drains      atomic.Bool
	// all counts the connections of all listeners; those refused, as there were too many
	// of them, and by overload.
	all                            *atomic.Int64
	globalRefused, overloadRefused atomic.Uint64
}

type openSocket struct {
	addr reactor.Addr
	set  *reactor.SocketSet
}

// listenerOn is a listener on one worker.
type listenerOn struct {
	shared  *listener
	w       *worker
	sockets []openSocket // set once
	open    []*reactor.Listener
}

// applyListeners opens, updates and closes listeners. Errors are joined; each
// names its listener, which keeps what it was.
func (p *Proxy) applyListeners(s *resource.Snapshot) error {
	var errs []error
	refused := p.refused(s.Listeners)
	for name, res := range inOrder(s.Listeners) {
		l := p.listeners[name]
		was := l.resource()
		err := refused[name]
		if err == nil {
			err = p.applyListener(l, res)
		}
		p.counts.listener(was, res, err)
		if err != nil {
			p.failed[name] = err
			errs = append(errs, err)
			continue
		}
		delete(p.failed, name)
	}
	for name, l := range inOrder(p.listeners) {
		if _, stays := s.Listeners[name]; !stays {
			p.closeListener(l)
			p.counts.listenerRemoved++
		}
	}
	// Last, behind all that stop accepting: an address may have another listener now,
	// on the same sockets, and a loop watches a socket once.
	for _, l := range p.moved {
		if !p.holding {
			p.attach(l)
		}
	}
	p.moved = nil
	for name := range p.failed {
		if _, stays := s.Listeners[name]; !stays {
			delete(p.failed, name)
		}
	}
	p.refreshScopes()
	return errors.Join(errs...)
}

func (p *Proxy) applyListener(l *listener, res *resource.Listener) error {
	if l == nil {
		return p.openListener(res)
	}
	prev := l.config.Load()
	if prev.res == res && !p.recompile {
		return nil
	}
	next, commit, err := p.compileListener(res, prev)
	if err != nil {
		return err
	}
	if !slices.Equal(prev.res.Addresses, res.Addresses) {
		if err := p.moveListener(l, res); err != nil {
			return err
		}
	}
	tapped := prev.tapped()
	commit()
	l.config.Store(next)
	kept := next.all()
	for _, ch := range prev.all() {
		if !slices.Contains(kept, ch) {
			p.retireChain(ch)
		}
	}
	p.replaceTaps(l, tapped)
	return nil
}

func (p *Proxy) openListener(res *resource.Listener) error {
	l := &listener{name: res.Name, all: &p.connections}
	c, commit, err := p.compileListener(res, nil)
	if err != nil {
		return err
	}
	commit()
	l.config.Store(c)
	if l.open, err = p.openSockets(res); err != nil {
		return err
	}
	p.listeners[res.Name] = l
	p.moved = append(p.moved, l)
	return nil
}

// moveListener opens the new addresses before it lets go of the old ones. What comes
// meanwhile waits in the backlog.
func (p *Proxy) moveListener(l *listener, res *resource.Listener) error {
	next, err := p.openSockets(res)
	if err != nil {
		return err
	}
	old := l.open
	l.open = next
	p.detach(l)
	p.moved = append(p.moved, l)
	p.afterWorkers(func() {
		for _, o := range old {
			o.set.Release()
		}
	})
	return nil
}

func (p *Proxy) openSockets(res *resource.Listener) ([]openSocket, error) {
	if !res.BindToPort {
		return nil, nil
	}
	var open []openSocket
	for _, a := range res.Addresses {
		addr, err := parseAddress(a)
		if err == nil {
			var set *reactor.SocketSet
			set, err = p.sockets.Open(addr, len(p.workers), reactor.ListenOptions{Backlog: res.Backlog})
			open = append(open, openSocket{addr, set})
		}
		if err != nil {
			for _, o := range open {
				if o.set != nil {
					o.set.Release()
				}
			}
			return nil, fmt.Errorf("listener %q: %w", res.Name, err)
		}
	}
	return open, nil
}

// attach makes every worker accept from the listener's sockets, from its next tick on.
func (p *Proxy) attach(l *listener) {
	open := l.open
	for i, w := range p.workers {
		w.loop.PostOffLoop(func() {
			on := &listenerOn{shared: l, w: w, sockets: open}
			for _, o := range open {
				for _, s := range o.set.Of(i) {
					ln, err := w.loop.AddListener(s, on)
					if err != nil {
						p.log.Error("listener cannot accept", "listener", l.name, "address", o.addr.String(), "worker", i, "error", err)
						continue
					}
					on.open = append(on.open, ln)
				}
			}
			w.holdAccepting(on)
			w.listeners[l] = append(w.listeners[l], on)
		})
	}
}

// detach makes workers stop accepting from the sockets attached before.
func (p *Proxy) detach(l *listener) {
	for _, w := range p.workers {
		w.loop.PostOffLoop(func() {
			for _, on := range w.listeners[l] {
				for _, ln := range on.open {
					ln.Remove()
				}
			}
			delete(w.listeners, l)
			w.habits.drop(l)
		})
	}
}

func (p *Proxy) closeListener(l *listener) {
	delete(p.listeners, l.name)
	l.drains.Store(true)
	p.detach(l)
	for _, ch := range l.config.Load().all() {
		p.retireChain(ch)
	}
	p.replaceTaps(l, l.config.Load().tapped())
	// The workers drop the descriptor from their epoll sets before it is closed:
	// the release is posted behind the removal on every loop.
	p.afterWorkers(func() {
		for _, o := range l.open {
			o.set.Release()
		}
	})
}

// afterWorkers runs f on a goroutine of its own (Options.Go) once every worker has
// run what was posted to it before.
func (p *Proxy) afterWorkers(f func()) {
	var left atomic.Int32
	left.Store(int32(len(p.workers)))
	for _, w := range p.workers {
		w.loop.PostOffLoop(func() {
			if left.Add(-1) == 0 {
				p.options.Go(f)
			}
		})
	}
}

// retireChain tells the connections of a chain to go: each gets
// "connection: close" with its next response, idle ones are closed.
func (p *Proxy) retireChain(ch *chain) {
	ch.removed.Store(true)
	for _, w := range p.workers {
		w.loop.PostOffLoop(func() { w.drainChain(ch) })
	}
}

// refreshScopes rebuilds the key tables of SRDS, which change without their
// listener.
func (p *Proxy) refreshScopes() {
	for _, l := range p.listeners {
		for _, ch := range l.config.Load().all() {
			if m := ch.manager.Load(); m != nil && m.res.Scoped != nil && m.res.Scoped.FromSRDS {
				m.scoped.Store(p.compileScopes(m.res.Scoped))
			}
		}
	}
}

// releaseListeners closes all sockets after the loops have ended.
func (p *Proxy) releaseListeners() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		for _, o := range l.open {
			o.set.Release()
		}
	}
	p.listeners = map[string]*listener{}
}

// parseAddress turns a resource's address into the reactor's.
func parseAddress(a resource.Address) (reactor.Addr, error) {
	if a.Path != "" {
		return reactor.Addr{Unix: a.Path}, nil
	}
	ip, err := netip.ParseAddr(a.Host)
	if err != nil {
		return reactor.Addr{}, fmt.Errorf("address %q is no IP address", a.Host)
	}
	return reactor.TCPAddr(netip.AddrPortFrom(ip, a.Port)), nil
}

// OnAccept implements reactor.Acceptor.
func (on *listenerOn) OnAccept(c *reactor.Conn) reactor.Handler {
	l := on.shared
	conf := l.config.Load()
	if l.tooManyConnections(on.w, conf.res) {
		l.leave()
		return nil
	}
	if l.refuseLoop(on.w, c, conf) {
		return nil
	}
	on.w.delayFlooder(c)
	if len(conf.res.Filters) > 0 {
		return on.w.inspect(c, l, conf)
	}
	var ch *chain
	if len(conf.chains) == 1 && conf.chains[0].plain() {
		ch = conf.chains[0]
	} else {
		ch = conf.match(&traits{local: c.LocalAddr(), remote: c.RemoteAddr(), direct: c.RemoteAddr(), transport: transportRaw})
	}
	if ch == nil {
		l.refuseUnmatched(on.w, c, conf, on.w.loop.Now())
		return nil
	}
	return on.w.seat(c, l, conf, ch, true)
}

// seat gives a connection to the chain that was chosen for it and returns its handler. One
// that is not fresh was a predecessor's, which has charged the rates of connections for it.
func (w *worker) seat(c *reactor.Conn, l *listener, conf *listenerConfig, ch *chain, fresh bool) reactor.Handler {
	if limit := ch.limit.Load(); ch.active.Add(1) > limit && limit > 0 {
		l.left(ch)
		w.stats.listenerRefused++
		l.refused.Add(1)
		return nil
	}
	if fresh && ch.tooMany(w.proxy, w.loop.Now()) {
		l.left(ch)
		w.stats.listenerRefused++
		return nil
	}
	l.total.Add(1)
	c.SetWatermark(watermark(conf.res.BufferLimit))
	if s := ch.tls.Load(); s != nil {
		return w.admit(c, l, ch, s)
	}
	if conf.mixed {
		w.stats.plaintextBesideTLS++
	}
	return w.serve(c, l, ch, w.accepted(), nil)
}

// left takes a connection that a chain had off the books.
func (l *listener) left(ch *chain) {
	l.leave()
	ch.active.Add(-1)
}

// scopeKey joins the fragments of a scope key.
func scopeKey(fragments []string) string { return strings.Join(fragments, "\x00") }
