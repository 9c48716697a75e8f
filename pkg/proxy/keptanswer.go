// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/responsecache"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Where a fallback asks for it, good answers are kept, and the last one stands for one
// that fails. What is kept is the upstream's answer before we edit it. Who does not ask
// for it pays for a look at a pointer.

// keptAnswers are those of all workers.
type keptAnswers = responsecache.Cache

func newKeptAnswers() *keptAnswers { return responsecache.New() }

// keptState is what an exchange has to do with answers that are kept.
type keptState struct {
	key       []byte // of the request as it goes upstream; empty: nothing
	owner     *cluster
	anonymous bool                 // it came without what says who is asking
	wanted    bool                 // so it did, and its fallback asks for an answer to it
	usable    bool                 // else the request may change what is kept
	draft     *responsecache.Draft // of the answer that is coming; nil: none
}

func (k *keptState) reset() {
	key := k.key[:0]
	if cap(key) > maxHeadKept {
		key = nil
	}
	*k = keptState{key: key}
}

// noteCaller notes whether the request says who is asking, before anything can take that
// away: what a filter or the upstream has made of it is for that caller only. Of
// x-forwarded-client-cert it counts what they see. It is for each GET, whose route nobody
// knows yet, and so it looks only for names that the head has bits for.
func (x *exchange) noteCaller() {
	x.kept.anonymous = x.Request.Method == codec.MethodGet && responsecache.Anonymous(&x.Request.Header)
}

// noteWanted notes whether the fallback of the route that was found may have an answer to
// the request as it came.
func (x *exchange) noteWanted() {
	f := x.configuredFallback()
	x.kept.wanted = f != nil && f.Cached != nil && x.kept.anonymous && responsecache.Usable(&x.Request)
}

// noteKey notes what the request is known by, before an attempt may change its head. What
// filters and routes have added counts as what has come.
func (x *exchange) noteKey() {
	x.kept.usable = x.kept.wanted && responsecache.Usable(&x.Request) && !grpc.Is(&x.Request.Header)
	if x.kept.usable || !responsecache.Safe(x.Request.Method) && x.tunnel == noTunnel && !x.w.proxy.answers.Empty() {
		x.kept.owner = x.cluster
		x.kept.key = responsecache.AppendKey(x.kept.key[:0], x.Request.Known(codec.NameXForwardedProto), &x.Request)
	}
}

// keepAnswer begins to keep the answer whose head has come, or drops those that it makes
// untrue (RFC 9111 §4.4).
func (x *exchange) keepAnswer(a *attempt) {
	if len(x.kept.key) == 0 {
		return
	}
	c := x.w.proxy.answers
	if !x.kept.usable {
		if s := x.Response.Status; s >= 200 && s < 400 {
			c.Forget(x.kept.key)
		}
		return
	}
	f := x.configuredFallback()
	if x.fallen.from != nil || f == nil || f.Cached == nil {
		return
	}
	x.kept.draft = c.Begin(&responsecache.Answer{
		Owner: x.kept.owner.name, Key: x.kept.key, Request: &x.Request, Head: &x.Response,
		Took: time.Duration(a.headAt - a.sentAt), Now: a.headAt, Wall: x.w.loop.Wall(), MaxBody: f.Cached.MaxBody,
	})
	if x.responseLast {
		x.keepPiece(nil, true)
	}
}

// keepPiece keeps a piece of the answer's body; last: it is whole, but for trailers,
// which are not kept.
func (x *exchange) keepPiece(chunk []byte, last bool) {
	d := x.kept.draft
	switch {
	case d == nil:
	case !d.Append(chunk):
		x.kept.draft = nil
	case last:
		d.Keep()
		x.kept.draft = nil
	}
}

// dropKept gives up an answer that does not come to its end.
func (x *exchange) dropKept() {
	if d := x.kept.draft; d != nil {
		d.Drop()
		x.kept.draft = nil
	}
}

// replyKept makes the last good answer the reply; false: there is none.
func (x *exchange) replyKept(f *resource.CachedFallback) bool {
	if !x.kept.usable {
		return false
	}
	found, ok := x.w.proxy.answers.Find(x.kept.owner.name, x.kept.key, &x.Request, x.w.loop.Now(), f.MaxAge)
	if !ok {
		return false
	}
	x.tellFallback(breaker.FallbackSuccess)
	h := &x.Response
	h.CopyFrom(found.Head)
	h.KeepAlive, h.Protocol = true, codec.HTTP11
	x.w.value = strconv.AppendInt(x.w.value[:0], int64(found.Age/time.Second), 10)
	h.Set("age", x.w.value)
	b := append(x.w.value[:0], "outrigger; "...)
	if x.Record.Attempts == 0 { // RFC 9211: a hit is what nobody else was asked for
		b = append(b, "hit"...)
	} else {
		b = append(b, "fwd=stale"...)
	}
	b = strconv.AppendInt(append(b, "; ttl="...), int64(found.TTL/time.Second), 10)
	x.w.value = append(b, "; detail=fallback"...)
	h.Add([]byte("cache-status"), x.w.value)
	x.Local.Status, x.Local.Body = h.Status, found.Body
	x.fallen.kept, x.FellBack = true, true
	x.Record.Details = "fallback_cached"
	return true
}

// answers shows what is kept.
func (s *sampler) answers(c *responsecache.Cache) {
	n := c.StatsOffLoop()
	s.add("outrigger.response_cache.entries", "Answers that are kept for fallbacks.", gauge, uint64(max(n.Entries, 0)))
	s.add("outrigger.response_cache.bytes", "What they take.", gauge, uint64(max(n.Bytes, 0)))
	s.add("outrigger.response_cache.stored_total", "Answers that were kept.", counter, n.Stored)
	s.add("outrigger.response_cache.evicted_total", "Answers that made room for others.", counter, n.Evicted)
	s.add("outrigger.response_cache.refused_total", "Answers that there was no room for.", counter, n.Refused)
	s.add("outrigger.response_cache.served_total", "Requests that were answered with one that was kept.", counter, n.Served)
	s.add("outrigger.response_cache.missed_total", "Requests that failed, for which none was kept that may be used.", counter, n.Missed)
}
