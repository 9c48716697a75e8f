// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/codec/sniff"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

// helloBytes is how much of what a client sends first is kept, whatever the rules copy,
// while it may be a TLS hello that is not whole. A longer hello says no server name.
const helloBytes = 8 << 10

// maxALPN bounds the names of protocols that are kept, commas included; names that do not
// fit are left out, whole: a part of one could not be searched for secrets.
const maxALPN = 256

// connectionFilter serves the connections of one chain on one worker. All is loop-owned.
type connectionFilter struct {
	direction string
	rules     []ruleState
	ring      *tap.Ring // nil without rules
	free      []*connection
	hello     sniff.Hello // scratch
	texts     []string    // what the rules say, in full: equal ones are the same rule
	// stay are the rules that next has too.
	next *connectionFilter
	stay uint32
}

// connection is what is kept of a running one.
type connection struct {
	f       *connectionFilter
	rec     *record.Record
	mask    uint32 // rules that may still match
	until   int64  // monotonic: a rule that copies bytes ends, and with it the copying
	looking bool   // the client may still say a server name
	name    []byte // server name, lower case
	alpn    []byte // joined by commas
	req     body   // what the client sends
	resp    body
	meta    []byte // scratch of push
}

func newConnectionFilter(c *tap.Config, hub *tap.Hub, worker int) *connectionFilter {
	f := &connectionFilter{direction: c.Direction, rules: make([]ruleState, len(c.Rules))}
	f.hello.Max = helloBytes
	for i, r := range c.Rules {
		f.rules[i] = newRuleState(r)
		f.texts = append(f.texts, ruleText(r))
	}
	if len(c.Rules) > 0 {
		f.ring = hub.Ring(worker)
	}
	return f
}

// OnConnection picks the rules that may match. A connection that none can match costs
// no memory, and none of its bytes are looked at.
func (f *connectionFilter) OnConnection(r *record.Record, started int64, random uint64) filter.ConnectionObserver {
	mask := uint32(0)
	for i := range f.rules {
		if f.rules[i].begins(r.Start, random, uint64(i)) && f.rules[i].Match.HoldsPeer(r.Security) {
			mask |= 1 << i
		}
	}
	if mask == 0 {
		return nil
	}
	c := f.take()
	c.rec, c.mask, c.looking, c.until = r, mask, true, math.MaxInt64
	c.limit()
	c.req.limit = max(c.req.limit, helloBytes)
	c.req.claim(f.ring)
	c.resp.claim(f.ring)
	for m := mask; m != 0; m &= m - 1 {
		k := &f.rules[bits.TrailingZeros32(m)]
		if k.Expires != 0 && k.Capture.RequestBody+k.Capture.ResponseBody > 0 {
			c.until = min(c.until, started+k.Expires-r.Start)
		}
	}
	return c
}

// limit sets how much is kept: as much as the rules want that may still match.
func (c *connection) limit() {
	c.req.limit, c.resp.limit = 0, 0
	for m := c.mask; m != 0; m &= m - 1 {
		k := &c.f.rules[bits.TrailingZeros32(m)]
		c.req.limit = max(c.req.limit, k.Capture.RequestBody)
		c.resp.limit = max(c.resp.limit, k.Capture.ResponseBody)
	}
}

// OnBytes implements filter.ConnectionObserver.
func (c *connection) OnBytes(fromUpstream bool, b []byte, now int64) (more bool) {
	if now >= c.until {
		c.req.cut, c.resp.cut = true, true
	}
	switch {
	case fromUpstream:
		c.resp.keep(c.f.ring, b)
		return c.resp.wants()
	case c.looking:
		c.look(b)
	default:
		c.req.keep(c.f.ring, b)
	}
	return c.looking || c.req.wants()
}

// claim takes the memory that is left of another connection into account: this one may
// keep it for days.
func (b *body) claim(ring *tap.Ring) {
	if n := cap(b.data); n > 0 && b.limit > 0 && ring.Reserve(n) {
		b.reserved = n
		return
	}
	b.data = nil
}

// wants reports whether more of the body would be kept.
func (b *body) wants() bool { return !b.cut && len(b.data) < b.limit }

// look finds out what server name the client asks for.
func (c *connection) look(b []byte) {
	if len(c.req.data) == 0 && !c.req.cut {
		if v := c.f.hello.Read(b); v != sniff.More { // nearly always: nothing is kept for it
			c.learn(v)
			c.req.keep(c.f.ring, b)
			return
		}
	}
	c.req.keep(c.f.ring, b)
	v := c.f.hello.Read(c.req.data)
	if v != sniff.More || !c.req.wants() {
		c.learn(v)
	}
}

// learn ends the look at a client's hello. Rules for other server names go, and with the
// last of them all that was kept.
func (c *connection) learn(v sniff.Verdict) {
	c.looking = false
	if v == sniff.Yes {
		c.name = appendLower(c.name[:0], c.f.hello.ServerName())
		c.alpn = c.alpn[:0]
		for list := c.f.hello.Protocols(); len(list) > 0; {
			var p []byte
			if p, list = sniff.NextProtocol(list); len(c.alpn)+1+len(p) > maxALPN {
				break
			}
			if len(c.alpn) > 0 {
				c.alpn = append(c.alpn, ',')
			}
			c.alpn = append(c.alpn, p...)
		}
	} else if s := c.rec.Security; s != nil {
		c.name, c.alpn = appendLower(c.name[:0], s.ServerName), append(c.alpn[:0], s.ALPN...)
	}
	for m := c.mask; m != 0; m &= m - 1 {
		i := bits.TrailingZeros32(m)
		if !c.f.rules[i].Match.HoldsServerName(c.name) {
			c.mask &^= 1 << i
		}
	}
	c.limit()
	for _, b := range [...]*body{&c.req, &c.resp} {
		if b.limit == 0 && b.reserved > 0 { // the rest of the connection may take days
			c.f.ring.Release(b.reserved)
			b.data, b.reserved = nil, 0
		}
	}
}

// ruleText is all that a rule says. What lies behind pointers and inside functions is
// not seen: a redactor's patterns have names that say all of them.
func ruleText(r *tap.Rule) string {
	flat := *r
	flat.Redactor = nil
	text := fmt.Sprintf("%#v", flat)
	if r.Redactor != nil {
		text += fmt.Sprintf("%#v", *r.Redactor)
	}
	return text
}

// staying are the rules that another filter has too.
func (f *connectionFilter) staying(by *connectionFilter) uint32 {
	if by == nil {
		return 0
	}
	if f.next != by {
		f.next, f.stay = by, 0
		for i := range f.texts {
			if slices.Contains(by.texts, f.texts[i]) {
				f.stay |= 1 << i
			}
		}
	}
	return f.stay
}

// OnReplaced drops the rules that were taken away. Those whose time is over have ended
// by themselves: what they have of the connection is recorded at its end.
func (c *connection) OnReplaced(by filter.ConnectionFilter, wall int64) (follows bool) {
	next, _ := by.(*connectionFilter)
	stay := c.f.staying(next)
	for m := c.mask &^ stay; m != 0; m &= m - 1 {
		i := bits.TrailingZeros32(m)
		if e := c.f.rules[i].Expires; e == 0 || wall < e {
			c.mask &^= 1 << i
		}
	}
	c.f.free = nil // nothing begins here any more
	if c.mask == 0 {
		c.f.ring.Release(c.req.reserved + c.resp.reserved)
		*c = connection{}
		return false
	}
	c.limit()
	if c.looking {
		c.req.limit = max(c.req.limit, helloBytes)
	}
	c.req.shrink(c.f.ring)
	c.resp.shrink(c.f.ring)
	return true
}

// shrink forgets what is beyond the limit.
func (b *body) shrink(ring *tap.Ring) {
	if len(b.data) <= b.limit {
		return
	}
	data := make([]byte, b.limit)
	copy(data, b.data)
	ring.Release(b.reserved - len(data))
	b.data, b.reserved = data, len(data)
}

// OnDone pushes the records of the rules that matched.
func (c *connection) OnDone(now int64) {
	if c.looking {
		c.learn(sniff.No)
	}
	c.req.total, c.resp.total = c.rec.BytesReceived, c.rec.BytesSent
	for m := c.mask; m != 0; m &= m - 1 {
		k := &c.f.rules[bits.TrailingZeros32(m)]
		if k.Match.HoldsFlags(c.rec.Flags) && k.allow(now) {
			c.push(k)
		}
	}
	c.f.give(c)
}

func (c *connection) push(k *ruleState) {
	c.meta = appendRecord(c.meta[:0], k.Name, c.f.direction, c.rec)
	c.meta = tap.AppendField(c.meta, tap.TagProtocol, "TCP")
	c.meta = tap.AppendField(c.meta, tap.TagDetails, c.rec.CloseDetails)
	c.meta = tap.AppendInt(c.meta, tap.TagRequestEnd, record.Never)
	c.meta = tap.AppendInt(c.meta, tap.TagResponseStart, record.Never)
	c.meta = tap.AppendField(c.meta, tap.TagServerName, c.name)
	c.meta = tap.AppendField(c.meta, tap.TagALPN, c.alpn)
	received := c.req.data[:min(len(c.req.data), k.Capture.RequestBody)]
	sent := c.resp.data[:min(len(c.resp.data), k.Capture.ResponseBody)]
	c.meta = appendSizes(c.meta, &c.req, len(received), tap.TagRequestBytes, tap.TagRequestTruncated)
	c.meta = appendSizes(c.meta, &c.resp, len(sent), tap.TagResponseBytes, tap.TagResponseTruncated)
	c.meta = tap.AppendFieldHead(c.meta, tap.TagRequestBody, len(received))
	mid := len(c.meta)
	c.meta = tap.AppendFieldHead(c.meta, tap.TagResponseBody, len(sent))
	c.f.ring.Push(k.Rule, c.meta[:mid], received, c.meta[mid:], sent)
}

func (f *connectionFilter) take() *connection {
	n := len(f.free)
	if n == 0 {
		return &connection{f: f}
	}
	c := f.free[n-1]
	f.free = f.free[:n-1]
	return c
}

func (f *connectionFilter) give(c *connection) {
	c.req.give(f.ring)
	c.resp.give(f.ring)
	if len(f.free) < maxFree {
		c.rec, c.name, c.alpn = nil, c.name[:0], c.alpn[:0]
		f.free = append(f.free, c)
	}
}

var (
	_ filter.ConnectionFilter   = (*connectionFilter)(nil)
	_ filter.ConnectionObserver = (*connection)(nil)
)
