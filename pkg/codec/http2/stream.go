// SPDX-License-Identifier: Apache-2.0

package http2

import "github.com/outrigger-mesh/outrigger/pkg/codec"

// stream is an open or half-closed stream. One that has ended is not in the
// table: then its number says whether it is idle or closed.
type stream struct {
	id    uint32
	flags streamFlags
	info  uint8 // informational responses seen
	born  int64

	bodyLeft int64 // of the content-length announced; lengthUnknown

	// Receiving: what the peer may send, what is to be credited, and what the
	// sink holds.
	recvWindow, credit, held int64

	// Sending: the window; bytes that wait in queue from off on, of which granted
	// have their windows and go out next.
	sendWindow int64
	queue      []byte
	off        int
	granted    int
	pieces     int           // AppendData calls that queue is made of
	trailer    *codec.Header // to follow the queue, if hasTrailer

	links [2]link
}

const lengthUnknown = -1

type streamFlags uint16

const (
	localClosed  streamFlags = 1 << iota
	remoteClosed             // END_STREAM has come
	headSent                 // the (final) head was appended
	headSeen                 // a request, or a final response, was announced
	isHead                   // the request is HEAD
	isConnect                // the request is CONNECT
	noBody                   // DATA must be empty
	endQueued                // END_STREAM goes with the end of queue
	hasTrailer               // trailer goes behind queue
	restUnwanted             // RST_STREAM follows END_STREAM, if the peer has not ended
)

func (s *stream) is(f streamFlags) bool { return s.flags&f != 0 }

// ungranted is the number of bytes that wait for window.
func (s *stream) ungranted() int { return len(s.queue) - s.off - s.granted }

// keepQueue is how much memory of a queue stays with a stream that is reused.
const keepQueue = 16 << 10

// table finds streams by number: open addressing. Numbers follow each other, so
// that one slot after the other is used.
type table struct {
	slots []*stream
	count int
}

func (t *table) place(id uint32) uint32 { return id >> 1 & uint32(len(t.slots)-1) }

func (t *table) find(id uint32) *stream {
	if t.count == 0 {
		return nil
	}
	mask := uint32(len(t.slots) - 1)
	for i := t.place(id); t.slots[i] != nil; i = (i + 1) & mask {
		if t.slots[i].id == id {
			return t.slots[i]
		}
	}
	return nil
}

func (t *table) put(s *stream) {
	if 2*(t.count+1) > len(t.slots) {
		old := t.slots
		t.slots = make([]*stream, max(8, 2*len(old)))
		t.count = 0
		for _, o := range old {
			if o != nil {
				t.put(o)
			}
		}
	}
	mask := uint32(len(t.slots) - 1)
	i := t.place(s.id)
	for t.slots[i] != nil {
		i = (i + 1) & mask
	}
	t.slots[i] = s
	t.count++
}

// remove closes the gap that it makes, so that find may stop at an empty slot.
func (t *table) remove(s *stream) {
	mask := uint32(len(t.slots) - 1)
	i := t.place(s.id)
	for t.slots[i] != s {
		i = (i + 1) & mask
	}
	t.slots[i] = nil
	t.count--
	for j := (i + 1) & mask; t.slots[j] != nil; j = (j + 1) & mask {
		home := t.place(t.slots[j].id)
		if (j-home)&mask >= (j-i)&mask {
			t.slots[i], t.slots[j] = t.slots[j], nil
			i = j
		}
	}
}

// history remembers which streams ended last, and how: frames may still be on
// their way for one that this side reset, and are an error for others.
type history struct {
	reset [128]uint32
	ended [32]uint32
	r, e  uint32
	// underway is how many bytes the peer may have sent for streams that were reset, before
	// it heard of that.
	underway int64
}

func (h *history) noteReset(id uint32) {
	h.reset[h.r%uint32(len(h.reset))] = id
	h.r++
}

func (h *history) noteEnd(id uint32) {
	h.ended[h.e%uint32(len(h.ended))] = id
	h.e++
}

// expectRest notes what may still come for a stream that this side resets.
func (c *Conn) expectRest(s *stream) {
	c.past.underway = min(c.past.underway+max(s.recvWindow, 0), int64(c.lim.InitialConnWindow))
}

// wasUnderway reports whether n bytes for a stream that was reset may have been sent
// before the peer heard of it.
func (h *history) wasUnderway(n int64) bool {
	if n == 0 || n > h.underway {
		return false
	}
	h.underway -= n
	return true
}

func contains(ids []uint32, id uint32) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}

// open makes a stream.
func (c *Conn) open(id uint32) *stream {
	var s *stream
	if n := len(c.free); n > 0 {
		s, c.free = c.free[n-1], c.free[:n-1]
	} else {
		s = &stream{}
	}
	s.id = id
	s.born = c.now
	s.bodyLeft = lengthUnknown
	s.recvWindow = c.recvInitial
	s.sendWindow = c.peer.window
	c.streams.put(s)
	c.useful++
	c.updatesEarned += updatesPerStream
	return s
}

// end takes a stream out of everything. Windows that were granted and not used go
// back.
func (c *Conn) end(s *stream) {
	c.waiting.remove(s)
	c.sending.remove(s)
	c.streams.remove(s)
	if s.granted > 0 {
		c.sendWindow += int64(s.granted)
		c.regrant = true
	}
	c.queuedPieces -= s.pieces
	queue, trailer := s.queue[:0], s.trailer
	if cap(queue) > keepQueue {
		queue = nil
	}
	if trailer != nil {
		trailer.Reset()
		trailer.Shrink(keepQueue)
	}
	*s = stream{queue: queue, trailer: trailer}
	c.free = append(c.free, s)
}

// endLocal says that END_STREAM was appended.
func (c *Conn) endLocal(s *stream) {
	s.flags |= localClosed
	switch {
	case s.is(remoteClosed):
		c.complete(s)
	case s.is(restUnwanted):
		id := s.id
		c.expectRest(s)
		c.end(s)
		c.past.noteReset(id)
		c.pending = appendReset(c.pending, id, NoError)
	}
}

// StopRequest says of a stream whose response waits for windows that the rest of the
// request is not wanted: RST_STREAM with NO_ERROR follows the response's end (RFC
// 9113 §8.1). Else the stream would stay open for as long as the peer likes.
func (c *Conn) StopRequest(stream uint32) {
	if s := c.live(stream); s != nil && c.role == Server {
		s.flags |= restUnwanted
	}
}

func (c *Conn) complete(s *stream) {
	c.completed++
	c.past.noteEnd(s.id)
	c.end(s)
}

// streamError ends a stream because of what the peer sent. It counts: a peer
// must not be able to have work begun and dropped without end.
func (c *Conn) streamError(id uint32, e *Error, sink Sink) error {
	if !c.spendReset() {
		return c.fail(errForcedResets)
	}
	if s := c.streams.find(id); s != nil {
		c.expectRest(s)
		c.end(s)
	}
	c.past.noteReset(id)
	c.pending = appendReset(c.pending, id, e.Code)
	if err := c.queued(); err != nil {
		return err
	}
	c.cause = e
	sink.Reset(id, e.Code, true)
	return nil
}

// Reset ends a stream: RST_STREAM is pending, and what the peer still sends on
// it is ignored. A stream that is gone stays so.
func (c *Conn) Reset(stream uint32, code ErrorCode) {
	s := c.live(stream)
	if s == nil {
		return
	}
	if s.granted > 0 {
		// Its windows cannot go back: there is no sink to tell others of it.
		c.pending = c.appendGranted(c.pending, s, s.granted, false)
	}
	sent := c.role == Server || s.is(headSent)
	c.expectRest(s)
	c.end(s)
	c.past.noteReset(stream)
	if sent {
		c.pending = appendReset(c.pending, stream, code)
	}
}

// live finds a stream that may still be written to.
func (c *Conn) live(id uint32) *stream {
	if c.err != nil {
		return nil
	}
	return c.streams.find(id)
}
