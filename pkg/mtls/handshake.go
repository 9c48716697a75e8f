// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/tls"
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

const (
	recordHeader = 5
	// maxUnread bounds what a handshake holds of a peer that sends faster than it
	// is read; the rest stays in the reactor.Conn, and then in the kernel. All that a
	// peer says fits but for long chains, which take a turn more; requests that come
	// right behind the end do not, and are not copied here and back.
	maxUnread = 4 << 10
	// maxHandshake bounds what crypto/tls is given before the handshake is done: it
	// would keep 256 KiB of a Certificate message. Four certificates of ML-DSA with
	// what is around them take half of this.
	maxHandshake = 64 << 10
)

// Handshake is one handshake under way: the reactor.Handler of its connection
// until it is done. It belongs to the loop.
type Handshake struct {
	gate   *Gate
	owner  Owner
	conn   *reactor.Conn
	server *ServerContext // either
	client *ClientContext // or
	hello  Hello
	source netip.Addr
	timer  reactor.Timer
	pipe   *pipe // nil until the goroutine is started
	tls    *tls.Conn
	full   bool // there was no place: refused as soon as it may be told
	eof    bool
	ended  bool // the owner was told
}

func (h *Handshake) begin(timeout time.Duration, full bool) {
	h.gate.counters.Started++
	h.full = full
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	if full {
		timeout = 0
	}
	h.timer.Target = h
	h.gate.loop.Schedule(&h.timer, timeout)
}

// OnTimer ends a handshake that took too long.
func (h *Handshake) OnTimer(*reactor.Timer) {
	if h.full {
		h.fail(Failure{Reason: TooMany})
		return
	}
	h.fail(Failure{Reason: TimedOut})
}

// OnConnect implements reactor.Handler.
func (h *Handshake) OnConnect(c *reactor.Conn) {
	h.conn = c
	if !h.ended && !h.full {
		h.start()
	}
}

// OnData implements reactor.Handler.
func (h *Handshake) OnData(c *reactor.Conn, in []byte) int {
	if h.ended || h.full {
		return len(in)
	}
	if h.pipe == nil {
		if !firstRecord(in) {
			return 0
		}
		h.start()
	}
	return h.pipe.feed(in)
}

// firstRecord reports whether in holds a record, or surely will never.
func firstRecord(in []byte) bool {
	if len(in) == 0 {
		return false
	}
	if in[0] != 22 { // handshake; let crypto/tls say what it thinks of others
		return true
	}
	if len(in) < recordHeader {
		return false
	}
	return len(in) >= recordHeader+min(int(in[3])<<8|int(in[4]), 16<<10)
}

// OnEOF implements reactor.Handler.
func (h *Handshake) OnEOF(c *reactor.Conn) {
	h.eof = true
	switch {
	case h.ended:
	case h.pipe == nil:
		h.fail(Failure{Reason: Closed})
	default:
		h.pipe.end()
	}
}

// OnHighWater implements reactor.Handler: what a handshake writes is bounded.
func (h *Handshake) OnHighWater(*reactor.Conn) {}

// OnLowWater implements reactor.Handler.
func (h *Handshake) OnLowWater(*reactor.Conn) {}

// OnClose implements reactor.Handler.
func (h *Handshake) OnClose(c *reactor.Conn, err error) {
	h.conn = c
	h.finish(Failure{Reason: Closed, Err: err})
}

// start runs the handshake in a goroutine of its own.
func (h *Handshake) start() {
	h.pipe = newPipe(h)
	go h.run(h.pipe, h.conn.RemoteAddr())
}

// run is the goroutine, for a peer at an address. It touches what is set once, and
// the pipe: the connection is the loop's.
func (h *Handshake) run(p *pipe, to netip.AddrPort) {
	cpu := h.cpu()
	err := p.enter(cpu)
	if err == nil {
		if h.server != nil {
			h.tls = tls.Server(p, h.server.current())
		} else {
			h.tls = tls.Client(p, h.client.config(to, h.hello))
		}
		err = h.tls.Handshake()
	}
	var info *Info
	if err == nil {
		info = h.describe()
	}
	p.leave(cpu)
	h.gate.loop.PostOffLoop(func() { h.done(info, err) })
}

// cpu is where h computes.
func (h *Handshake) cpu() CPU {
	if h.server != nil {
		return h.gate.accepted
	}
	return h.gate.dialled
}

func (h *Handshake) describe() *Info {
	if h.server != nil {
		return h.server.describe(h.tls, h.pipe.sync.shown)
	}
	return h.client.describe(h.tls)
}

// send writes what the goroutine has written. On the loop.
func (h *Handshake) send() {
	if b := h.pipe.written(); !h.ended {
		h.conn.WriteRaw(b)
	}
}

// room lets the loop hand on what it has held back. On the loop.
func (h *Handshake) room() {
	if !h.ended {
		h.conn.Redeliver()
	}
}

// done ends the handshake on the loop.
func (h *Handshake) done(info *Info, err error) {
	if h.ended || h.conn.Closed() { // OnClose, which is due, tells the owner
		h.tls = nil
		return
	}
	c := h.conn
	if err != nil {
		h.send()
		h.fail(failureOf(err, h.server != nil))
		h.tls, h.pipe = nil, nil // the connection, which waits for the alert to be read, keeps h
		return
	}
	h.send()
	h.leave()
	k := &h.gate.counters
	k.Done++
	if info.Resumed {
		k.Resumed++
	}
	if info.Version == tls.VersionTLS13 {
		k.Versions[1]++
	} else {
		k.Versions[0]++
	}
	s := newSession(h.gate, h.tls, h.pipe, info)
	c.SetTransport(s)
	next := h.owner.OnSecure(c, s)
	if c.Closed() {
		return
	}
	if next == nil {
		c.Close(nil)
		return
	}
	c.SetHandler(next)
	if h.client != nil {
		next.OnConnect(c)
	}
}

// leave ends what h holds; the goroutine, if there still is one, ends by itself.
func (h *Handshake) leave() {
	h.ended = true
	h.timer.Stop()
	h.gate.leave(h)
}

// finish tells the owner that there is no secure connection, once.
func (h *Handshake) finish(f Failure) {
	if h.ended {
		return
	}
	h.leave()
	if h.pipe != nil {
		h.pipe.cancel()
	}
	h.gate.counters.Failures[f.Reason]++
	h.owner.OnInsecure(h.conn, f)
}

// fail ends the handshake and the connection.
func (h *Handshake) fail(f Failure) {
	c := h.conn
	h.finish(f)
	if c == nil {
		return
	}
	if f.Reason == TooMany || f.Reason == TimedOut {
		c.Close(nil)
		return
	}
	c.CloseAfterFlush(alertTime) // so that the alert is read
}
