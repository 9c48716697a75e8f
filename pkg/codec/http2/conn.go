// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"encoding/binary"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/hpack"
)

// Role is the side of a connection.
type Role uint8

// The roles.
const (
	Server Role = iota
	Client
)

// Preface is what a client sends first (RFC 9113 §3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// IsPreface reports whether a connection's first bytes are the preface, or, while
// they are fewer, may still become it.
func IsPreface(b []byte) (yes, maybe bool) {
	if len(b) >= len(Preface) {
		yes = string(b[:len(Preface)]) == Preface
		return yes, yes
	}
	return false, string(b) == Preface[:len(b)]
}

// Sink receives what a Conn reads. Tunnel is never called: the bytes of a tunnel
// are Data of its stream. Append functions and Reset of the same Conn may be
// called from within a callback, Decode may not.
type Sink interface {
	codec.Sink
	// Reset: the stream has ended abnormally. local: this side reset it because
	// of what the peer sent; RST_STREAM is pending, and ResetCause says why. It is
	// also called for a stream whose head was refused, which the sink has never
	// heard of. A peer's NoError after a whole response only says that the rest
	// of the request is not wanted.
	Reset(stream uint32, code ErrorCode, local bool)
	// Drained: windows now allow all that AppendData had to keep of the stream;
	// it goes out with the next AppendPending, and Queued is 0.
	Drained(stream uint32)
	// GoAway: the peer takes no new streams. Those above last were not looked
	// at: for each of them that this side opened, Reset with RefusedStream
	// follows.
	GoAway(last uint32, code ErrorCode)
}

// Conn is one side of a connection.
type Conn struct {
	role  Role
	lim   Limits
	now   int64
	err   *Error // sticky
	cause *Error

	// Reading: what is left of the frame that is being passed on, the header
	// block that goes on in CONTINUATION frames, and scratch for heads.
	preface uint8 // bytes of the client's preface seen
	settled bool  // the peer's SETTINGS have come
	acked   bool  // ours were acknowledged
	body    body
	block   block
	decoder hpack.Decoder
	list    hpack.List
	req     codec.RequestHead
	resp    codec.ResponseHead
	trailer codec.Header

	// Streams.
	streams  table
	free     []*stream
	past     history
	lastPeer uint32 // highest number that the peer opened
	next     uint32 // number of the next stream of a client

	// Flow control of what is received.
	recvWindow, credit int64
	recvInitial        int64 // of new streams

	// Writing.
	pending          []byte
	controlFrames    int // in pending
	queuedPieces     int // in all streams
	encoder          hpack.Encoder
	scratch          []byte
	peer             peer
	sendWindow       int64
	waiting, sending ring
	regrant          bool // windows came back that others may wait for

	away goAway
	ping ping
	budgets
}

// peer are the peer's settings.
type peer struct {
	window     int64
	frameSize  uint32
	maxStreams uint32
	connect    bool
}

// New returns a connection with its preface and SETTINGS pending.
func New(role Role, l Limits) *Conn {
	c := &Conn{role: role, lim: l.complete(), next: 1}
	c.peer = peer{window: defaultWindow, frameSize: DefaultMaxFrameSize, maxStreams: c.lim.MaxConcurrentStreams}
	c.sendWindow = defaultWindow
	// Until the peer has acknowledged our settings it may go by the defaults.
	c.recvInitial = max(int64(c.lim.InitialStreamWindow), defaultWindow)
	c.recvWindow = int64(c.lim.InitialConnWindow)
	c.decoder.Init(4096)
	c.decoder.SetAllowed(max(c.lim.HeaderTableSize, 4096))
	c.encoder.Init(c.lim.HeaderTableSize)
	c.list.MaxBytes, c.list.MaxCount = c.lim.HeadBytes, c.lim.HeaderCount
	c.sending.which = 1
	c.away.last = maxStreamID
	c.budgets.init(&c.lim)
	if role == Client {
		c.pending = append(c.pending, Preface...)
	}
	c.pending = c.appendSettings(c.pending)
	return c
}

// Decode reads what it can of in, calls sink for each event, and returns how
// many bytes it is done with. The caller keeps the others and presents them
// again, with more behind them; they are never more than a frame. now is in
// nanoseconds of any clock that does not go back.
//
// The error is an *Error, the connection's: GOAWAY is pending, no event comes
// any more, and the connection must be closed once that is written. Or it is
// what sink returned, unchanged: consumed then includes the event, and Decode
// may be called again.
//
// Data handed to the sink has not been credited to the peer: see Consumed.
func (c *Conn) Decode(in []byte, now int64, sink Sink) (consumed int, err error) {
	c.now = now
	if c.err != nil {
		return 0, c.err
	}
	n := 0
	if c.role == Server && int(c.preface) < len(Preface) {
		n = min(len(in), len(Preface)-int(c.preface))
		if string(in[:n]) != Preface[c.preface:int(c.preface)+n] {
			return 0, c.fail(errPreface)
		}
		c.preface += uint8(n)
	}
	for {
		m, err := c.read(in[n:], sink)
		n += m
		if c.regrant && c.err == nil {
			c.grant(sink)
		}
		if err == nil && c.err != nil {
			err = c.err // of an Append function in a callback
		}
		if err != nil || m == 0 {
			return n, err
		}
	}
}

// read reads one frame, or a piece of one. It returns 0 where it needs more.
func (c *Conn) read(in []byte, sink Sink) (n int, err error) {
	if c.body.left > 0 {
		return c.content(in, sink)
	}
	if len(in) < frameHeaderSize {
		return 0, nil
	}
	f := parseFrame(in)
	if e := c.check(f); e != nil {
		return 0, c.fail(e)
	}
	if f.kind == frameData {
		return c.data(f, in, sink)
	}
	if f.kind > frameContinuation {
		c.body = body{left: f.length}
		return frameHeaderSize, c.idleFrame()
	}
	n = frameHeaderSize + int(f.length)
	if len(in) < n {
		return 0, nil
	}
	return n, c.frame(f, in[frameHeaderSize:n], sink)
}

// check judges a frame by its header alone.
func (c *Conn) check(f frame) *Error {
	switch {
	case !c.settled && (f.kind != frameSettings || f.has(flagAck)):
		return errFirstFrame
	case c.block.stream != 0 && (f.kind != frameContinuation || f.stream != c.block.stream):
		return errNoContinuation
	case f.length > c.lim.MaxFrameSize:
		return errFrameSize
	}
	onStream, size := true, -1
	switch f.kind {
	case frameData, frameHeaders:
	case framePriority: // its length is the stream's error
	case frameReset:
		size = 4
	case frameSettings:
		onStream = false
		if f.length%6 != 0 || f.has(flagAck) && f.length != 0 {
			return errFrameLength
		}
	case framePush:
		return errPush
	case framePing:
		onStream, size = false, 8
	case frameGoAway:
		onStream = false
		if f.length < 8 {
			return errFrameLength
		}
	case frameWindowUpdate:
		onStream, size = f.stream != 0, 4
	case frameContinuation:
		if c.block.stream == 0 {
			return errContinuation
		}
	default:
		return nil
	}
	switch {
	case onStream != (f.stream != 0):
		return errFrameStream
	case size >= 0 && int(f.length) != size:
		return errFrameLength
	}
	return nil
}

// frame handles a whole frame.
func (c *Conn) frame(f frame, payload []byte, sink Sink) error {
	switch f.kind {
	case frameHeaders:
		return c.headers(f, payload, sink)
	case frameContinuation:
		return c.continuation(f, payload, sink)
	case framePriority:
		return c.priority(f, payload, sink)
	case frameReset:
		return c.reset(f, ErrorCode(binary.BigEndian.Uint32(payload)), sink)
	case frameSettings:
		return c.settings(f, payload, sink)
	case framePing:
		return c.pinged(f, payload)
	case frameGoAway:
		return c.goneAway(payload, sink)
	}
	return c.windowUpdate(f, payload, sink)
}

// priority is read for its errors alone.
func (c *Conn) priority(f frame, payload []byte, sink Sink) error {
	if !c.priorities.spend(c.now, c.useful, priorityRate, c.lim.Priorities) {
		return c.fail(errPriorities)
	}
	var e *Error
	switch {
	case len(payload) != 5:
		e = errPriorityLength
	case binary.BigEndian.Uint32(payload)&maxStreamID == f.stream:
		e = errSelfDependency
	default:
		return nil
	}
	if c.idle(f.stream) {
		return c.fail(e) // RST_STREAM cannot be sent for it
	}
	return c.streamError(f.stream, e, sink)
}

func (c *Conn) reset(f frame, code ErrorCode, sink Sink) error {
	s := c.streams.find(f.stream)
	if s == nil {
		if c.idle(f.stream) {
			return c.fail(errIdle)
		}
		return c.idleFrame()
	}
	if c.role == Server && c.now-s.born < earlyReset && !c.spendReset() {
		return c.fail(errResets)
	}
	c.past.noteEnd(f.stream)
	c.end(s)
	sink.Reset(f.stream, code, false)
	return nil
}

// idle reports whether a stream was never opened.
func (c *Conn) idle(id uint32) bool {
	if c.role == Server {
		return id&1 == 0 || id > c.lastPeer
	}
	return id&1 == 0 || id >= c.next
}

// fail ends the connection.
func (c *Conn) fail(e *Error) error {
	if c.err == nil {
		c.err = e
		c.pending = appendGoAway(c.pending, c.lastPeer, e.Code)
	}
	return c.err
}

// Err is the connection error that ended the connection, or nil.
func (c *Conn) Err() *Error { return c.err }

// ResetCause is the error of the stream that Sink.Reset was last called for with
// local.
func (c *Conn) ResetCause() *Error { return c.cause }

// Partial reports whether the peer has begun something that is not to take long, and
// when: a header block that goes on in further frames, or its preface and SETTINGS,
// for which began is 0.
func (c *Conn) Partial() (began int64, partial bool) {
	if !c.settled {
		return 0, true
	}
	return c.block.began, c.block.stream != 0
}

// Streams is the number of streams that are open or half closed.
func (c *Conn) Streams() int { return c.streams.count }

// CanOpen reports whether NewStream would succeed.
func (c *Conn) CanOpen() bool { return c.Room() > 0 }

// Room is how many streams NewStream would open now.
func (c *Conn) Room() int {
	if c.role != Client || c.err != nil || c.Draining() {
		return 0
	}
	numbers := (maxStreamID + 2 - int(c.next)) / 2
	return max(0, min(int(min(c.lim.MaxConcurrentStreams, c.peer.maxStreams))-c.streams.count, numbers))
}

// NewStream opens a stream of a client. ok is false where the peer's or the own
// limit of concurrent streams, a GOAWAY of either side, an error or the end of
// the numbers forbids it. Requests must be appended in the order of the numbers.
func (c *Conn) NewStream() (id uint32, ok bool) {
	if !c.CanOpen() {
		return 0, false
	}
	id = c.next
	c.next += 2
	c.open(id)
	return id, true
}

// ExtendedConnect reports whether the peer takes extended CONNECT (RFC 8441 §3).
func (c *Conn) ExtendedConnect() bool { return c.peer.connect }

// PeerSettled reports whether the peer's SETTINGS have come.
func (c *Conn) PeerSettled() bool { return c.settled }

// PeerTakesNone reports whether the peer allows no stream at all for now.
func (c *Conn) PeerTakesNone() bool { return c.peer.maxStreams == 0 }

// Trim lets go of memory that only busy connections need. It has an effect only
// while no stream is open.
func (c *Conn) Trim() {
	if c.streams.count > 0 {
		return
	}
	c.free, c.streams = nil, table{}
	c.list.Buf, c.list.Fields = nil, nil
	c.block.bytes, c.scratch = nil, nil
	c.req, c.resp, c.trailer = codec.RequestHead{}, codec.ResponseHead{}, codec.Header{}
	if len(c.pending) == 0 {
		c.pending = nil
	}
}
