// SPDX-License-Identifier: Apache-2.0

package responsecache

import (
	"bytes"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// Draft is an answer that is coming and will be kept once it is whole. It ends with Keep
// or Drop, and is of no use afterwards.
type Draft struct {
	cache    *Cache
	e        *entry
	most     int
	reserved int64
}

// Answer is the head of a response, with what is needed to tell its age.
type Answer struct {
	Owner   string // whose answers are not mixed with others'
	Key     []byte // of AppendKey, before the request was changed
	Request *codec.RequestHead
	Head    *codec.ResponseHead
	Took    time.Duration // from the request to the head
	Now     int64         // monotonic nanoseconds
	Wall    int64         // nanoseconds since 1970
	MaxBody int           // bytes
}

// Begin returns a draft of an answer to a usable request; nil where it may not or need
// not be kept, or where there is no room. An answer that may not be kept, or that says
// that the resource has gone, takes the place of one that was.
func (c *Cache) Begin(a *Answer) *Draft {
	switch a.Head.Status {
	case 200:
	case 404, 410:
		c.Forget(a.Key)
		return nil
	default:
		return nil
	}
	if e := c.newest(a.Owner, a.Key, a.Request); e != nil && a.Now-e.storedAt < int64(renewAfter) {
		return nil
	}
	if d := read(&a.Request.Header); d.noStore {
		return nil
	}
	e := a.entry()
	if e == nil {
		c.Forget(a.Key)
		return nil
	}
	length := a.Head.BodyLength
	if length == codec.BodyToClose || length > int64(a.MaxBody) || endless(a.Head) {
		return nil // nobody knows whether it is whole; too long; it has no end
	}
	d := &Draft{cache: c, e: e, most: a.MaxBody}
	if length >= 0 {
		d.most = int(length)
	}
	if !d.reserve(e.weight()) {
		return nil
	}
	return d
}

// endless reports whether a response is a stream of events, which goes on for as long as
// anybody listens.
func endless(h *codec.ResponseHead) bool {
	t, _, _ := bytes.Cut(h.Known(codec.NameContentType), []byte(";"))
	return codec.EqualFold(bytes.TrimRight(t, " \t"), "text/event-stream")
}

// reserve takes n bytes more for the draft. Not ok: there is no room.
func (d *Draft) reserve(n int64) bool {
	if d.cache.drafts.Add(n) > MaxDraftBytes {
		d.cache.drafts.Add(-n)
		d.cache.counts[refused].Add(1)
		return false
	}
	d.reserved += n
	return true
}

// entry makes the entry of an answer, without its body; nil where a shared cache may not
// keep it (RFC 9111 §3), or where it could never be used.
func (a *Answer) entry() *entry {
	h := a.Head
	d := read(&h.Header)
	if d.noStore || d.private || d.noCache || h.HasKnown(codec.NameSetCookie) || h.Get("content-range") != nil {
		return nil
	}
	date, _ := httpDate(h.Known(codec.NameDate))
	e := &entry{owner: a.Owner, storedAt: a.Now, noStale: d.noStale, staleIfError: -1}
	e.lifetime = lifetime(&d, h, date, a.Wall/1e9) * int64(time.Second)
	if d.staleIfError >= 0 {
		e.staleIfError = d.staleIfError * int64(time.Second)
	}
	if e.lifetime == 0 && e.noStale {
		return nil
	}
	var ok bool
	if e.vary, ok = appendVariant(nil, h, a.Request); !ok {
		return nil
	}
	// The age that it has come with: §4.2.3.
	e.age = int64(a.Took)
	if v := h.Get("age"); v != nil {
		e.age += seconds(v) * int64(time.Second)
	}
	if date != 0 {
		e.age = max(e.age, a.Wall-date*int64(time.Second))
	}
	e.key = slices.Clone(a.Key)
	e.head.CopyFrom(h)
	for _, name := range [...]string{"age", "trailer", "x-envoy-upstream-service-time", "x-envoy-attempt-count"} {
		e.head.Remove(name)
	}
	return e
}

// Append takes a piece of the body. Not ok: it is too long, or there is no room for it,
// and the draft has ended.
func (d *Draft) Append(chunk []byte) bool {
	if n := len(d.e.body) + len(chunk); n > d.most || n > cap(d.e.body) && !d.grow(n) {
		d.Drop()
		return false
	}
	d.e.body = append(d.e.body, chunk...)
	return true
}

// grow makes room for n bytes of the body, at most twice what it has: bodies that are
// slow to come, or never do, hold no more than has come of them.
func (d *Draft) grow(n int) bool {
	n = min(max(n, 2*cap(d.e.body)), d.most)
	if !d.reserve(int64(n - cap(d.e.body))) {
		return false
	}
	d.e.body = append(make([]byte, 0, n), d.e.body...)
	return true
}

// Keep puts the answer, which is whole, into the cache.
func (d *Draft) Keep() {
	e := d.e
	if cap(e.body)-len(e.body) > len(e.body)/4 {
		e.body = slices.Clone(e.body)
	}
	e.size = e.weight() + int64(cap(e.body))
	d.cache.put(e)
	d.Drop()
}

// Drop gives up what the draft holds.
func (d *Draft) Drop() { d.cache.drafts.Add(-d.reserved) }
