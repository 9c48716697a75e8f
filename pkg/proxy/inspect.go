// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"net/netip"

	"github.com/outrigger-mesh/outrigger/pkg/codec/proxyproto"
	"github.com/outrigger-mesh/outrigger/pkg/codec/sniff"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// What inspectors find, as traits have it.
const (
	transportTLS = "tls"
	transportRaw = "raw_buffer"
	alpnHTTP2    = "\x03h2c"
	alpnHTTP10   = "\x08http/1.0"
	alpnHTTP11   = "\x08http/1.1"
)

// peekLimit bounds what is held of a connection that is looked at.
const peekLimit = max(sniff.MaxPeek, proxyproto.MaxHeader)

// inspection is the handler of a connection while listener filters look at it. What
// they look at stays with the connection and is the first that the chain's
// handler sees; only a PROXY header is taken away.
type inspection struct {
	w        *worker
	conn     *reactor.Conn
	listener *listener
	filters  []resource.ListenerFilter // those left
	conf     *listenerConfig
	traits   traits
	began    int64
	timer    reactor.Timer
	waiting  bool // for the first byte of a client who may wait for the server's
	silence  bool // the client was given a chain without having said anything
	eof      bool
	counted  bool // in listener.looking
	name     [256]byte
	alpn     [maxALPN]byte
}

// maxALPN is how much of a client's list of protocols is matched, in bytes.
const maxALPN = 512

// inspect starts to look at a connection. It returns its handler, nil to close it.
func (w *worker) inspect(c *reactor.Conn, l *listener, conf *listenerConfig) reactor.Handler {
	i := &inspection{w: w, conn: c, listener: l, conf: conf, filters: conf.res.Filters, began: w.loop.Now()}
	i.timer.Target = i
	if i.look(nil, &verdict{}) || i.knownSilent() {
		return i.leave()
	}
	l.looking.Add(1)
	i.counted = true
	c.SetReadLimit(peekLimit)
	i.arm()
	return i
}

// verdict is what a look at the bytes came to.
type verdict struct {
	taken int    // of the bytes: a header that is not the chain's
	fault string // the connection is to be closed
}

// accepted is when the connection that is being seated was accepted: the time that
// listener filters took counts.
func (w *worker) accepted() int64 {
	if w.inspected != nil {
		return w.inspected.began
	}
	return w.loop.Now()
}

// look runs the filters that are left over what there is of the connection. It is
// true when all have decided.
func (i *inspection) look(in []byte, v *verdict) bool {
	for len(i.filters) > 0 {
		f, taken := &i.filters[0], v.taken
		decided := true
		if f.Disabled != nil && f.Disabled.Holds(i.conn.LocalAddr().Port()) {
			i.filters = i.filters[1:]
			continue
		}
		switch f.Kind {
		case resource.RestoreOriginalDst:
			// A connection that was not redirected may be told its own address.
			if to := i.conn.OriginalDst(); to.IsValid() && to != i.conn.LocalAddr() {
				i.conn.SetAddrs(to, netip.AddrPort{})
			}
		case resource.ProxyProtocol:
			decided = i.lookPROXY(f, in, v)
		case resource.TLSInspector:
			decided = i.lookTLS(f, in, v)
		case resource.HTTPInspector:
			decided = i.lookHTTP(in)
		}
		if !decided || v.fault != "" {
			return false
		}
		in = in[v.taken-taken:]
		i.filters = i.filters[1:]
	}
	return true
}

func (i *inspection) lookPROXY(f *resource.ListenerFilter, in []byte, v *verdict) bool {
	var h proxyproto.Header
	n, err := proxyproto.Parse(in, &h)
	switch {
	case err == proxyproto.ErrNone && f.HeaderOptional:
		return true
	case err == nil && n > 0 && f.RefuseVersion[h.Version]:
		v.fault = "proxy_protocol.version_not_allowed"
		return false
	case err != nil:
		v.fault = err.Error()
		return false
	case n == 0:
		if i.eof {
			if v.fault = proxyproto.ErrLine.Error(); f.HeaderOptional {
				v.fault = ""
				return true
			}
		}
		return false
	}
	v.taken += n
	if h.Transport == proxyproto.TCP {
		i.conn.SetAddrs(h.Destination, h.Source)
	}
	return true
}

func (i *inspection) lookTLS(f *resource.ListenerFilter, in []byte, v *verdict) bool {
	hello := &i.w.hello
	hello.Max = f.MaxHello
	switch hello.Read(in) {
	case sniff.More:
		return i.eof
	case sniff.Broken:
		switch {
		case hello.TooLarge():
			v.fault = "tls_inspector.client_hello_too_large"
		case f.CloseOnMalformedHello:
			v.fault = "tls_inspector.malformed_client_hello"
		}
	case sniff.Yes:
		i.traits.transport = transportTLS
		i.traits.name = bytes.ToLower(append(i.name[:0], hello.ServerName()...))
		i.traits.alpn = i.alpn[:0]
		for list := hello.Protocols(); len(list) > 0; {
			p, rest := sniff.NextProtocol(list)
			if len(i.traits.alpn)+1+len(p) > maxALPN {
				break
			}
			i.traits.alpn = append(i.traits.alpn, list[:1+len(p)]...)
			list = rest
		}
	case sniff.No:
	}
	return true
}

func (i *inspection) lookHTTP(in []byte) bool {
	if i.traits.transport == transportTLS {
		return true
	}
	switch sniff.HTTP2(in) {
	case sniff.Yes:
		i.traits.alpn = append(i.alpn[:0], alpnHTTP2...)
		return true
	case sniff.More:
		return i.eof
	}
	minor, v := sniff.HTTP1(in)
	switch {
	case v == sniff.More:
		return i.eof
	case v == sniff.Yes && minor == 0:
		i.traits.alpn = append(i.alpn[:0], alpnHTTP10...)
	case v == sniff.Yes:
		i.traits.alpn = append(i.alpn[:0], alpnHTTP11...)
	}
	return true
}

// OnConnect is not called for accepted connections.
func (i *inspection) OnConnect(*reactor.Conn) {}

// OnData looks again. The chain's handler gets what was looked at in the same breath.
func (i *inspection) OnData(c *reactor.Conn, in []byte) int {
	var v verdict
	if !i.look(in, &v) {
		if v.fault != "" {
			i.refuse(v.fault)
			return len(in)
		}
		return v.taken
	}
	if i.eof {
		i.handOver()
		return v.taken
	}
	h := i.leave()
	if h == nil {
		h = nobody{}
		c.Close(nil)
	}
	c.SetHandler(h)
	if c.Closed() || c.Paused() || v.taken == len(in) {
		return v.taken
	}
	return v.taken + h.OnData(c, in[v.taken:])
}

// OnEOF decides with what there is: no more comes. A client that has said nothing at
// all has left.
func (i *inspection) OnEOF(c *reactor.Conn) {
	i.eof = true
	if c.Unconsumed() == 0 {
		i.refuse("")
		return
	}
	c.Redeliver()
}

// OnHighWater is not called: nothing is written.
func (i *inspection) OnHighWater(*reactor.Conn) {}

// OnLowWater is not called.
func (i *inspection) OnLowWater(*reactor.Conn) {}

// OnClose implements reactor.Handler: the client has gone, or was refused.
func (i *inspection) OnClose(*reactor.Conn, error) {
	i.listener.leave()
	i.end()
}

// OnTimer ends the wait for a silent client, or the look.
func (i *inspection) OnTimer(*reactor.Timer) {
	i.w.loop.Blame(i.conn)
	switch {
	case i.waiting && i.conn.ReadBytes() == 0:
		i.silent()
	case i.waiting: // it said something, and there is still time
		i.armEnd()
	case i.conf.res.ContinueOnTimeout:
		i.handOver()
	default:
		i.listener.lookTimeout.Add(1)
		i.refuse("listener_filters_timeout")
	}
}

// handOver gives the connection to the chain's handler from outside of OnData.
func (i *inspection) handOver() {
	c := i.conn
	if h := i.leave(); h != nil {
		c.HandOver(h)
		return
	}
	c.SetHandler(nobody{})
	c.Close(nil)
}

// refuse closes a connection that no chain gets.
func (i *inspection) refuse(details string) {
	if details != "" {
		i.listener.config.Load().log.accepted(i.w, i.conn, i.began, "", 0, details, nil)
	}
	i.conn.Close(nil)
}

// leave chooses the chain and returns its handler, nil where there is none. The
// inspection is over.
func (i *inspection) leave() reactor.Handler {
	w, c, l := i.w, i.conn, i.listener
	i.end()
	t := &i.traits
	if t.transport == "" {
		t.transport = transportRaw
	}
	t.local, t.remote, t.direct = c.LocalAddr(), c.RemoteAddr(), c.DirectRemoteAddr()
	conf := l.config.Load()
	c.SetReadLimit(reactor.DefaultReadLimit)
	ch := conf.match(t)
	if ch == nil {
		l.refuseUnmatched(w, c, conf, i.began)
		return nil
	}
	w.inspected = i
	h := w.seat(c, l, conf, ch, true)
	w.inspected = nil
	return h
}

// end stops what the inspection has running.
func (i *inspection) end() {
	i.timer.Stop()
	if i.counted {
		i.counted = false
		i.listener.looking.Add(-1)
	}
}

// nobody handles a connection that is about to close.
type nobody struct{}

func (nobody) OnConnect(*reactor.Conn)               {}
func (nobody) OnData(_ *reactor.Conn, in []byte) int { return len(in) }
func (nobody) OnEOF(*reactor.Conn)                   {}
func (nobody) OnHighWater(*reactor.Conn)             {}
func (nobody) OnLowWater(*reactor.Conn)              {}
func (nobody) OnClose(*reactor.Conn, error)          {}

// refuseUnmatched counts a connection that no filter chain is for.
func (l *listener) refuseUnmatched(w *worker, c *reactor.Conn, conf *listenerConfig, began int64) {
	l.leave()
	w.stats.noFilterChain++
	conf.log.accepted(w, c, began, "", record.NR, "filter_chain_not_found", nil)
	l.unmatched.Add(1)
}
