// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"net/netip"
	"time"
)

// Defaults of a connection; see SetWatermark and SetReadLimit.
const (
	DefaultWatermark = 64 << 10
	DefaultReadLimit = 128 << 10
)

// Handler is told what happens to a connection, on the goroutine of its loop.
// Byte slices die when the callback returns. After OnClose nothing more is called.
type Handler interface {
	// OnConnect: a dialled connection is open. Accepted ones start open.
	OnConnect(c *Conn)
	// OnData presents input and returns how much of it is done with. The rest
	// stays in c and is presented again, together with what came since, when
	// more arrives, after Resume, or after Redeliver.
	OnData(c *Conn, in []byte) (consumed int)
	// OnEOF: the peer has half-closed, after all its bytes were presented;
	// writing may go on. A connection whose both directions have ended closes by
	// itself, once its input is consumed.
	OnEOF(c *Conn)
	// OnHighWater: more than the watermark waits to be written. It may be
	// called from inside Write and Commit. OnLowWater: less than half of the
	// watermark waits again.
	OnHighWater(c *Conn)
	OnLowWater(c *Conn)
	// OnClose is called exactly once for each connection, never from inside a
	// verb. err is nil for a close that we asked for without a reason, and for
	// one after both directions ended; else the reason given to Close, an error of this package or
	// the kernel's syscall.Errno.
	OnClose(c *Conn, err error)
}

// Conn is a stream connection of one loop. A handler may keep it as long as it
// likes: after the close its verbs do nothing.
type Conn struct {
	// set once
	loop *Loop
	id   uint64
	fd   int32 // -1: there never was one
	slot uint32

	handler Handler
	err     error    // given to OnClose
	left    *input   // what the handler left over; nil when nothing
	linger  *linger  // nil until CloseAfterFlush
	secure  *secured // nil for a plain connection
	out     *chunk   // oldest first; nil when nothing waits
	last    *chunk   // end of out
	waiting int      // bytes in out
	read    uint64   // bytes
	written uint64   // bytes
	high    int32    // bytes
	limit   int32    // bytes that left may hold
	pauses  int32
	spent   uint32 // the tick in which the read budget was last used up
	state   state
	flags   flags
	local   netip.AddrPort
	remote  netip.AddrPort
	told    *told // nil: addresses are the socket's
}

// told is what SetAddrs has covered.
type told struct {
	direct   netip.AddrPort
	restored bool
}

type state uint8

const (
	connecting state = iota
	open
	lingering // after CloseAfterFlush: the handler sees no more but OnClose
	closed
)

type flags uint32

const (
	readable    flags = 1 << iota // the kernel may have input: the last read was not short
	writable                      // the last write was not short
	doubtful                      // a short read does not mean drained
	ended                         // the peer's FIN was read
	finWanted                     // FIN after what waits
	finSent                       //
	overHigh                      // OnHighWater was called, OnLowWater not yet
	isDirty                       // in Loop.dirty
	isPending                     // in Loop.pending
	redeliver                     // present left again
	writeBroken                   // output fails; input that the kernel holds is still presented
	accepted                      // holds one of Config.Accepting
	dialled                       // holds one of Config.Dialling
	endsOnReset                   // a reset ends it at once, whatever the kernel still holds
	tellsEOF                      // OnEOF is due to a handler that took over after it
	greedy                        // used up its read budget when it last had its turn
	gathers                       // see Gather
	isKept                        // in Loop.kept
)

func (c *Conn) has(f flags) bool { return c.flags&f != 0 }

// Loop returns the loop that c belongs to.
func (c *Conn) Loop() *Loop { return c.loop }

// ID is unique among the connections of the process that have loops with
// different Config.Index.
func (c *Conn) ID() uint64 { return c.id }

// Handler returns who is told about c.
func (c *Conn) Handler() Handler { return c.handler }

// SetHandler hands c to another handler, which sees what is left over only when
// more arrives or on Redeliver.
func (c *Conn) SetHandler(h Handler) {
	c.loop.owner.check()
	c.handler = h
}

// HandOver hands c to another handler as if it were new: h is presented what is left
// over, in the next tick and not from inside HandOver, then told of the end of the
// peer's direction, if that was told to the handler before.
func (c *Conn) HandOver(h Handler) {
	c.SetHandler(h)
	if c.has(ended) {
		c.flags |= tellsEOF
		c.loop.pend(c)
	}
	c.Redeliver()
}

// RemoteAddr returns the address of the peer, zero for Unix sockets, or what SetAddrs
// has put in its place.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// DirectRemoteAddr returns the address of the peer of the socket itself.
func (c *Conn) DirectRemoteAddr() netip.AddrPort {
	if c.told != nil {
		return c.told.direct
	}
	return c.remote
}

// Restored reports whether LocalAddr is where the peer meant to connect, as it was
// told or found out, and not what the socket says.
func (c *Conn) Restored() bool { return c.told != nil && c.told.restored }

// SetAddrs puts other addresses in the place of the socket's, for a connection that
// was redirected or comes through another proxy. An invalid one leaves what there is.
func (c *Conn) SetAddrs(local, remote netip.AddrPort) {
	c.loop.owner.check()
	if c.told == nil {
		c.told = &told{direct: c.remote}
	}
	if local.IsValid() {
		c.local, c.told.restored = netip.AddrPortFrom(local.Addr().Unmap(), local.Port()), true
	}
	if remote.IsValid() {
		c.remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	}
}

// OriginalDst returns where the peer meant to connect before a rule of the kernel
// redirected it here (SO_ORIGINAL_DST). Where none did, it is zero or our own address.
func (c *Conn) OriginalDst() netip.AddrPort {
	if c.state != open || !c.remote.IsValid() {
		return netip.AddrPort{}
	}
	return c.loop.sys.OriginalDst(int(c.fd), c.DirectRemoteAddr().Addr().Unmap().Is6())
}

// ComesBack reports whether c was accepted and is a connection that the process has
// dialled itself, led back to it by a rule of the kernel (Config.Ends).
func (c *Conn) ComesBack() bool {
	from := c.DirectRemoteAddr()
	if !c.loop.config.Ends.From(from) {
		return false
	}
	to := c.OriginalDst()
	return to.IsValid() && to != c.loop.sys.LocalAddr(int(c.fd)) && c.loop.Dialled(from, to)
}

// LocalAddr returns our address, zero for Unix sockets; of a dialled connection it may be
// zero before OnConnect.
func (c *Conn) LocalAddr() netip.AddrPort {
	if !c.local.IsValid() && c.remote.IsValid() && (c.state == open || c.state == lingering) {
		c.local = c.loop.sys.LocalAddr(int(c.fd))
	}
	return c.local
}

// ReadBytes returns how many bytes were read so far, of plaintext with a Transport.
func (c *Conn) ReadBytes() uint64 { return c.read }

// WrittenBytes returns how many bytes the kernel has accepted so far, of plaintext
// with a Transport.
func (c *Conn) WrittenBytes() uint64 { return c.written }

// Closed reports whether c is closed or about to be: OnClose is called at the
// end of the tick at the latest, or was.
func (c *Conn) Closed() bool { return c.state == closed }

// EOF reports whether OnEOF was called.
func (c *Conn) EOF() bool { return c.has(ended) }

// SetReadLimit bounds the bytes that c holds for a handler that does not consume
// them: no more is read until it does. The default is DefaultReadLimit.
func (c *Conn) SetReadLimit(bytes int) {
	c.loop.owner.check()
	c.limit = int32(max(bytes, 1))
	if c.left != nil {
		c.loop.pend(c)
	}
}

// Unconsumed returns how many bytes c holds that OnData has not consumed.
func (c *Conn) Unconsumed() int {
	if c.left == nil {
		return 0
	}
	return c.left.w - c.left.r
}

// Pause stops reading. Pauses are counted: as many Resumes are needed. Input
// that was read already and not consumed stays in c. A reset by the peer is
// still noticed once the kernel holds no more input for us, or at once after
// EndOnReset; a FIN is not.
func (c *Conn) Pause() {
	c.loop.owner.check()
	c.pauses++
}

// EndOnReset makes a reset by the peer close c also while reading is paused and
// the kernel holds input, which is lost: for handlers to which input is worth
// nothing once nobody waits for an answer.
func (c *Conn) EndOnReset() {
	c.loop.owner.check()
	c.flags |= endsOnReset
}

// Resume takes back one Pause. After the last one, what is left over is
// presented again and reading goes on, in the next tick and not from inside Resume.
func (c *Conn) Resume() {
	c.loop.owner.check()
	if c.pauses == 0 {
		return
	}
	c.pauses--
	if c.pauses == 0 {
		c.Redeliver()
	}
}

// Paused reports whether reading is paused.
func (c *Conn) Paused() bool { return c.pauses > 0 }

// Redeliver presents what is left over again in the next tick, for a handler
// that has become able to consume it without having paused.
func (c *Conn) Redeliver() {
	c.loop.owner.check()
	if c.state != open {
		return
	}
	c.flags |= redeliver // deliver looks at it, if this is called from inside OnData
	if c.left != nil || c.has(readable|tellsEOF) || c.secure != nil && c.secure.early {
		c.loop.pend(c)
	}
}

// CloseWrite sends FIN after what waits to be written. Later Writes are dropped.
func (c *Conn) CloseWrite() {
	c.loop.owner.check()
	if c.state == connecting || c.state == open {
		c.flags |= finWanted
		c.loop.markDirty(c)
	}
}

// Close closes c and drops what waits to be written, but for what Gather has kept back
// and the kernel has room for; OnClose(c, reason) follows
// at the end of the tick. If the peer's bytes were not all read, the kernel
// answers them with a reset: see CloseAfterFlush.
func (c *Conn) Close(reason error) {
	c.loop.owner.check()
	if c.has(isKept) {
		c.loop.flush(c) // without Gather it had left before
	}
	c.loop.close(c, reason)
}

// Abort closes c with a reset (RST) in place of FIN. What waits to be written goes
// before it as far as the kernel has room, so that a peer that reads has what was
// said before the end. OnClose gets nil.
func (c *Conn) Abort() {
	c.loop.owner.check()
	if c.state == open {
		c.loop.flush(c)
	}
	if c.state != closed && c.fd >= 0 {
		c.loop.sys.Reset(int(c.fd))
	}
	c.loop.close(c, nil)
}

// stallTime is how long CloseAfterFlush waits for a peer that takes none of the
// output that waits for it.
const stallTime = 10 * time.Second

// lingerLimit bounds CloseAfterFlush as a whole: a peer that takes a byte now and
// then is no reason to keep what waits for it.
const lingerLimit = 60 * time.Second

// linger is the state of a connection after CloseAfterFlush.
type linger struct {
	timer   Timer
	conn    *Conn
	drain   time.Duration
	written uint64 // when the timer was armed
	until   int64  // the end in any case
}

// CloseAfterFlush writes what waits, sends FIN, then reads and discards until
// the peer ends too or the time given is over, so that a peer which is still
// sending gets our last words and not a reset. With no time, c closes right
// after FIN. A peer that takes no output for 10 s is closed with ErrStalled.
// The handler sees no more but OnClose.
func (c *Conn) CloseAfterFlush(drain time.Duration) {
	c.loop.owner.check()
	if c.state == connecting {
		c.loop.close(c, nil)
	}
	if c.state != open {
		return
	}
	c.state = lingering
	c.flags |= finWanted
	c.releaseInput()
	if c.secure != nil && c.secure.transport == nil {
		c.loop.takeOff(c, c.waiting) // it will never be sealed
		c.waiting = 0
	}
	c.linger = &linger{conn: c, drain: drain, written: c.written, until: c.loop.now + int64(lingerLimit)}
	c.linger.timer.Target = c.linger
	c.loop.pend(c)      // what came while reading was paused: the peer may wait for us to take it
	if c.has(finSent) { // nothing waits
		c.loop.drain(c)
		return
	}
	c.loop.Schedule(&c.linger.timer, stallTime)
	c.loop.markDirty(c)
}

// OnTimer ends the wait for the peer, be it for its FIN or for room to write.
func (g *linger) OnTimer(*Timer) {
	c := g.conn
	switch {
	case c.has(finSent):
		c.loop.close(c, nil)
	case c.written == g.written || c.loop.now >= g.until:
		c.loop.close(c, ErrStalled)
	default:
		g.written = c.written
		c.loop.Schedule(&g.timer, stallTime)
	}
}

func (c *Conn) releaseInput() {
	if c.left != nil {
		c.loop.pools.freeInput(c.left)
		c.left = nil
	}
}
