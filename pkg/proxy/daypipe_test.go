// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// The part of tunnels in a day, of whatever kind: two ends that talk in both directions
// at once, through a TCP proxy, an upgrade or CONNECT. Each says its own name over and
// over, so that it is seen at the far end what was lost, changed, or came from another.

// dayEnd is an end of a tunnel.
type dayEnd struct {
	d      *day
	wire   dayWire
	name   string
	text   dayText
	server bool
	far    *dayEnd // nil until either of both has heard the other's name
	early  []byte  // heard before that
	web    *dayWeb // it talks in frames of WebSocket

	total, said, heard int

	open   bool // it may talk: an endpoint has agreed, or there is nothing to agree to
	silent bool // it does not end what it says of its own accord
	rough  bool // it ends in another way than by saying so, or does nothing more
	stuck  bool // its host does nothing
	fin    bool // it has said all
	eof    bool // the far end has
	broke  bool // it was ended otherwise
	over   bool

	// Of a client's.
	kind     dayKind
	records  int
	recorded record.Record
}

// dayKind is what a tunnel is made by.
type dayKind string

const (
	byTCP     dayKind = "TCP"
	byUpgrade dayKind = "upgrade"
	byConnect dayKind = "CONNECT"
)

// dayWire is what an end writes to.
type dayWire interface {
	write(b []byte)
	unsent() int
	closeWrite()
	cut(reset bool) // at once, whatever is under way
	hold(on bool)   // reads no more, or goes on
}

// peerWire is a connection that carries one tunnel.
type peerWire struct{ p *sim.Peer }

func (w peerWire) write(b []byte) { w.p.Write(b) }
func (w peerWire) unsent() int    { return w.p.Unsent() }
func (w peerWire) closeWrite()    { w.p.CloseWrite() }
func (w peerWire) cut(reset bool) {
	if reset {
		w.p.Reset()
	} else {
		w.p.Close()
	}
}
func (w peerWire) hold(on bool) {
	if on {
		w.p.Hold()
	} else {
		w.p.Release()
	}
}

// newEnd makes an end with a name of its own: <17> is a client's, [17] a server's.
func (d *day) newEnd(server bool, wire dayWire) *dayEnd {
	rng := d.rng
	d.lastID++
	e := &dayEnd{d: d, wire: wire, server: server, name: "<" + strconv.FormatUint(d.lastID, 10) + ">"}
	if server {
		e.name = "[" + strconv.FormatUint(d.lastID, 10) + "]"
	}
	e.text = dayText{e.name}
	e.total, e.silent = rng.IntN(3)*rng.IntN(3000), maybe(rng, 1, 10)
	if maybe(rng, 1, 12) {
		e.total = rng.IntN(150_000)
	}
	if e.total > 0 { // a part of a name would say nothing
		e.total += len(e.name)
	}
	d.ends[e.name] = e
	return e
}

func (e *dayEnd) id() uint64 {
	n, _ := strconv.ParseUint(e.name[1:len(e.name)-1], 10, 64)
	return n
}

// later runs f then, if the end is still there.
func (e *dayEnd) later(after time.Duration, f func()) {
	e.d.world.At(after, func() {
		if !e.over && !e.stuck {
			e.d.traffic = e.d.world.Now()
			f()
		}
	})
}

// begin has the end talk, and perhaps misbehave.
func (e *dayEnd) begin() {
	rng := e.d.rng
	e.open = true
	e.later(time.Duration(rng.IntN(20)*rng.IntN(2))*ms, e.talk)
	if e.web != nil && e.web.lasting {
		e.web.keepUp()
		return
	}
	if !maybe(rng, 1, 4) {
		return
	}
	e.later(time.Duration(rng.IntN(500))*ms, func() {
		switch rng.IntN(4) {
		case 0, 1:
			e.wire.hold(true)
			e.later(time.Duration(rng.IntN(1500))*ms, func() { e.wire.hold(false) })
		case 2:
			e.leave(maybe(rng, 1, 2))
		case 3:
			e.silent = e.silent || !e.eof && !e.d.calming
		}
	})
}

// talk says the next piece.
func (e *dayEnd) talk() {
	rng := e.d.rng
	switch {
	case e.over || e.fin || e.stuck:
	case e.wire.unsent() > 0:
		e.later(3*ms, e.talk)
	case e.said < e.total:
		from := e.said
		e.said += 1 + rng.IntN(e.total-e.said)
		b := e.text.appendTo(nil, from, e.said)
		if e.web != nil {
			b = e.web.frames(b, e.total-e.said)
		}
		e.wire.write(b)
		e.later(time.Duration(rng.IntN(50)*rng.IntN(3))*ms, e.talk)
	case !e.silent:
		e.finish()
	}
}

// finish ends what it says.
func (e *dayEnd) finish() {
	if !e.fin {
		e.fin = true
		e.wire.closeWrite()
	}
	e.closeIfDone()
}

func (e *dayEnd) closeIfDone() {
	switch {
	case e.over || !e.fin || !e.eof:
	case e.wire.unsent() > 0:
		e.later(2*ms, e.closeIfDone)
	default:
		e.over = true
		e.wire.cut(false)
	}
}

// leave ends it without a word.
func (e *dayEnd) leave(reset bool) {
	if !e.over {
		e.rough, e.over = true, true
		e.wire.cut(reset)
	}
}

// hears takes what arrives.
func (e *dayEnd) hears(b []byte) {
	d := e.d
	d.traffic = d.world.Now()
	if e.over {
		return
	}
	if e.web != nil {
		if b = e.web.hears(b); len(b) == 0 {
			return
		}
	}
	e.early = append(e.early, b...)
	if e.far == nil {
		i := bytes.IndexAny(e.early, ">]")
		if i < 0 {
			return
		}
		far := d.ends[string(e.early[:i+1])]
		if far == nil {
			d.fail("%s hears %q, who does not exist", e, e.early)
		}
		e.joins(far)
	}
	b, e.early = e.early, nil
	if !e.far.text.check(e.heard, b) {
		d.fail("%s hears at %d what %s has not said: %q", e, e.heard, e.far, b[:min(len(b), 100)])
	}
	if e.heard += len(b); e.heard > e.far.said {
		d.fail("%s hears more than %s has said", e, e.far)
	}
}

func (e *dayEnd) joins(far *dayEnd) {
	if far.server == e.server || far.far != nil && far.far != e {
		e.d.fail("%s and %s are ends of one tunnel", e, far)
	}
	e.far, far.far = far, e
	e.d.sums.tunnels++
}

// ended is the far end's end.
func (e *dayEnd) ended() {
	e.d.traffic = e.d.world.Now()
	if e.over || e.eof {
		return
	}
	if e.eof = true; e.silent || !e.open {
		e.later(time.Duration(e.d.rng.IntN(100))*ms, e.finish)
	}
	e.closeIfDone()
}

// broken is every other end.
func (e *dayEnd) broken() {
	e.d.traffic = e.d.world.Now()
	if !e.over {
		e.broke, e.over = !e.fin || !e.eof, true
		e.wire.cut(false)
	}
}

// freeze is what happens to it with its host.
func (e *dayEnd) freeze() {
	if !e.over {
		e.rough, e.stuck = true, true
		e.wire.hold(true)
	}
}

// calmDown has an end that is still there come to its end.
func (e *dayEnd) calmDown() {
	if e.over || e.web != nil && e.web.lasting {
		return
	}
	e.silent, e.stuck = false, false
	e.wire.hold(false)
	if e.open {
		e.talk()
	}
}

// logged takes the record of a client's tunnel, or of what was to become one.
func (e *dayEnd) logged(r *record.Record) {
	if e.records++; e.records > 1 {
		e.d.fail("%s: %d records", e, e.records)
	}
	e.recorded = *r
	e.recorded.Captures = nil
}

// plain reports whether the record says that both ends have ended what they said.
func (e *dayEnd) plain() bool {
	r := &e.recorded
	return e.records == 1 && r.Flags == 0 && r.CloseDetails == "" && (e.kind == byTCP || r.Details == "via_upstream")
}

// judgeEnds compares what both ends and the access log know of the tunnels of a wave.
func (d *day) judgeEnds() {
	for name, e := range inOrder(d.ends) {
		if e.server {
			continue
		}
		f, r := e.far, &e.recorded
		if f == nil {
			if e.heard > 0 {
				d.fail("%s has heard nobody", e)
			}
			continue
		}
		e.judgeWeb()
		switch {
		case e.records != 1:
			d.fail("%s has %d records, want one", e, e.records)
		case e.web == nil && r.BytesReceived > uint64(e.said) || r.BytesReceived < uint64(f.heard):
			d.fail("%s: recorded %d bytes from it, want %d to %d", e, r.BytesReceived, f.heard, e.said)
		case e.web == nil && r.BytesSent > uint64(f.said) || r.BytesSent < uint64(e.heard):
			d.fail("%s: recorded %d bytes to it, want %d to %d", e, r.BytesSent, e.heard, f.said)
		case !e.plain() || e.rough || f.rough:
		case e.broke || f.broke || !e.eof || !f.eof:
			d.fail("%s was broken off, and nobody says why", e)
		case e.heard != f.said || f.heard != e.said:
			d.fail("%s: bytes are lost", e)
		default:
			d.sums.wholeTunnels++
		}
		d.judged[e.id()] = true
		delete(d.ends, name)
		delete(d.ends, f.name)
	}
	// What is left came to no tunnel.
	for name, e := range inOrder(d.ends) {
		d.judged[e.id()] = e.records > 0
		delete(d.ends, name)
	}
	clear(d.pipes)
}

// endsOpen lists ends that are not over.
func (d *day) endsOpen() (list []*dayEnd) {
	for _, e := range inOrder(d.ends) {
		if !e.over {
			list = append(list, e)
		}
	}
	return list
}

func (e *dayEnd) String() string {
	far := "nobody"
	if f := e.far; f != nil {
		far = fmt.Sprintf("%s that said %d of %d and heard %d (fin %v, eof %v, broke %v, rough %v, stuck %v, over %v)", f.name, f.said, f.total, f.heard, f.fin, f.eof, f.broke, f.rough, f.stuck, f.over)
	}
	return fmt.Sprintf("%s %s that said %d of %d and heard %d (open %v, silent %v, fin %v, eof %v, broke %v, rough %v, stuck %v, over %v; %d records: status %d, flags %v, details %q %q, attempts %d, %d bytes received, %d sent) with %s",
		e.kind, e.name, e.said, e.total, e.heard, e.open, e.silent, e.fin, e.eof, e.broke, e.rough, e.stuck, e.over,
		e.records, e.recorded.Status, e.recorded.Flags, e.recorded.Details, e.recorded.CloseDetails, e.recorded.Attempts, e.recorded.BytesReceived, e.recorded.BytesSent, far)
}

// dayText is what a body says: its request's number over and over, so that a byte that
// belongs to another one is seen.
type dayText struct{ unit string }

func textOf(id uint64) dayText { return dayText{"<" + strconv.FormatUint(id, 10) + ">"} }

func (t dayText) appendTo(b []byte, from, to int) []byte {
	for i := from; i < to; i++ {
		b = append(b, t.unit[i%len(t.unit)])
	}
	return b
}

// check compares a piece that begins at from.
func (t dayText) check(from int, piece []byte) bool {
	for i, c := range piece {
		if c != t.unit[(from+i)%len(t.unit)] {
			return false
		}
	}
	return true
}
