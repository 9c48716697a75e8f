// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// HandedConn is an idle plaintext HTTP/1.1 connection that goes from one process to its
// successor: the socket, and what cannot be read from it.
type HandedConn struct {
	FD       int    // whoever holds the value owns it
	Listener string // its name
	// Remote is the peer of the socket; zero for Unix sockets. ToldLocal and ToldRemote
	// are what a redirection or a PROXY header said; zero: nothing.
	Remote, ToldLocal, ToldRemote netip.AddrPort
	Requests                      uint32        // that came so far
	Age, Idle                     time.Duration // since it was accepted; since it last did something
}

func (w *worker) takeIdle(has func(string) bool) (out []HandedConn) {
	for d, next := w.downs.first, (*downstreamConn)(nil); d != nil; d = next {
		next = d.next
		if !has(d.listener.name) {
			continue
		}
		if h, ok := d.detach(); ok {
			out = append(out, h)
		}
	}
	return out
}

// idles reports whether nothing is under way on the connection that its socket and a
// HandedConn do not say.
func (d *downstreamConn) idles() bool {
	return d.x == nil && !d.closing && !d.tunnel && !d.looped && !d.held && !d.newborn && d.security == nil &&
		(d.dec.Done() || d.dec.Idle()) && d.conn.Handler() == reactor.Handler(d) && d.chain.tls.Load() == nil
}

// detach takes an idle connection out of this process, as far as traffic goes.
func (d *downstreamConn) detach() (h HandedConn, ok bool) {
	if !d.idles() {
		return h, false
	}
	c, now := d.conn, d.w.loop.Now()
	h = HandedConn{
		Listener: d.listener.name, Remote: c.DirectRemoteAddr(), Requests: d.requests,
		Age: time.Duration(now - d.started), Idle: time.Duration(now - d.idle),
	}
	if c.Restored() {
		h.ToldLocal = c.LocalAddr()
	}
	if c.RemoteAddr() != h.Remote {
		h.ToldRemote = c.RemoteAddr()
	}
	if h.FD, ok = c.Detach(); !ok {
		return h, false
	}
	d.closing = true
	d.timer.Stop()
	d.left()
	d.w.stats.handedOver++
	return h, true
}

// takeOver makes a connection of this worker of one of the predecessor's.
func (w *worker) takeOver(l *listener, h HandedConn) {
	if err := w.loop.Adopt(h.FD, h.Remote, &adopter{w: w, l: l, h: h}); err != nil {
		w.stats.adoptFailed++
		w.proxy.log.Warn("a connection of the predecessor is lost", "listener", h.Listener, "error", err)
	}
}

// adopter seats a connection of a predecessor.
type adopter struct {
	w *worker
	l *listener // nil: there is none of that name
	h HandedConn
}

// OnAccept implements reactor.Acceptor.
func (a *adopter) OnAccept(c *reactor.Conn) reactor.Handler {
	w, l, h := a.w, a.l, &a.h
	if h.ToldLocal.IsValid() || h.ToldRemote.IsValid() {
		c.SetAddrs(h.ToldLocal, h.ToldRemote)
	}
	if l == nil {
		w.stats.adoptFailed++
		return nil
	}
	conf := l.config.Load()
	l.active.Add(1)
	l.all.Add(1)
	t := traits{local: c.LocalAddr(), remote: c.RemoteAddr(), direct: c.DirectRemoteAddr(), transport: transportRaw}
	if h.Requests > 0 && slices.ContainsFunc(conf.res.Filters, func(f resource.ListenerFilter) bool { return f.Kind == resource.HTTPInspector }) {
		t.alpn = []byte(alpnHTTP11)
	}
	ch := conf.match(&t)
	if ch == nil || ch.tls.Load() != nil || ch.manager.Load() == nil || ch.manager.Load().res.Codec == resource.CodecHTTP2 {
		l.leave()
		w.stats.adoptFailed++ // the chain has become one that speaks otherwise
		return nil
	}
	handler := w.seat(c, l, conf, ch, false)
	d, ok := handler.(*downstreamConn)
	if !ok {
		return handler
	}
	w.stats.adopted++
	now := w.loop.Now()
	d.started, d.idle, d.requests = now-int64(h.Age), now-int64(h.Idle), h.Requests
	if d.requests > 0 {
		d.headSince = 0
	}
	if t := d.chain.manager.Load().res.IdleTimeout; t > 0 {
		d.ensure(d.idle + int64(t))
	}
	return d
}

var _ reactor.Acceptor = (*adopter)(nil)
