// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// dayRequest is a request as its client, the instances and the access log see it.
type dayRequest struct {
	c       *dayClient
	id      uint64
	route   *dayRoute
	method  codec.Method
	length  int
	chunked bool
	trailer *codec.Header
	text    dayText
	session netip.AddrPort // that it belongs to
	astray  bool           // it was elsewhere at first
	kept    *dayKept       // of a route whose answers are kept

	began, end time.Duration // end: 0, nobody knows yet what became of it
	sentHead   bool
	sent       bool // to its end
	expecting  bool // HTTP/1: its answer is being read
	forgotten  bool // its client does not look at it any more

	status   int // of the answer, 0: none
	upstream bool
	// fromCache: the answer is one that was kept, and text is its.
	fromCache bool
	want      int // bytes of the answer that its instance announced; -1: none
	got       int
	whole     bool
	cut       bool
	code      http2.ErrorCode

	arrivals int // at instances, but for mirrors
	records  int
	recorded record.Record
}

var dayMethods = []string{"GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE"}

// request draws a request.
func (d *day) request(c *dayClient) *dayRequest {
	rng := d.rng
	d.lastID++
	d.sums.requests++
	r := &dayRequest{c: c, id: d.lastID, route: d.plan.route(rng), began: d.world.Now(), want: -1, text: textOf(d.lastID)}
	name := one(rng, dayMethods...)
	if r.route.prefix == keptPrefix && maybe(rng, 6, 7) {
		name = "GET"
	}
	r.method = codec.ParseMethod([]byte(name))
	if name == "POST" || name == "PUT" {
		if r.length = rng.IntN(3) * rng.IntN(2000); maybe(rng, 1, 20) {
			r.length = rng.IntN(150_000) // more than is kept for a retry
		}
		if r.chunked = maybe(rng, 1, 3); r.chunked && maybe(rng, 1, 2) {
			r.trailer = new(codec.Header)
			r.trailer.AddString("x-end", strconv.FormatUint(r.id, 10))
		}
	}
	d.requests[r.id] = r
	return r
}

// head is the request's head.
func (r *dayRequest) head(rng *rand.Rand) *codec.RequestHead {
	h := &codec.RequestHead{Method: r.method, Protocol: codec.HTTP11, KeepAlive: !maybe(rng, 1, 30), BodyLength: int64(r.length)}
	for _, m := range dayMethods {
		if codec.ParseMethod([]byte(m)) == r.method {
			h.SetMethod([]byte(m))
		}
	}
	h.SetScheme([]byte("http"))
	h.SetAuthority([]byte("day"))
	h.SetPath([]byte(r.route.prefix + strconv.FormatUint(r.id, 10)))
	if r.chunked {
		h.BodyLength = codec.BodyChunked
	}
	h.AddString("x-id", strconv.FormatUint(r.id, 10))
	h.AddString("x-len", strconv.Itoa(r.length))
	r.resume(h)
	r.keptHead(h)
	return h
}

// gotHead takes the head of the answer.
func (r *dayRequest) gotHead(h *codec.ResponseHead) {
	d := r.c.d
	r.status = h.Status
	if r.fromKept(h) {
		return
	}
	if v := h.Get("x-id"); v != nil {
		if string(v) != strconv.FormatUint(r.id, 10) {
			d.fail("%s: the answer to %s", r, v)
		}
		if string(h.Get("x-from")) == "m" {
			d.fail("%s: a mirror's answer", r)
		}
		r.upstream = true
		r.told(h, string(h.Get("x-at")))
		if n, err := strconv.Atoi(string(h.Get("x-len"))); err == nil && !h.NoBody && r.method != codec.MethodHead {
			r.want = n
		}
	}
}

func (r *dayRequest) gotData(b []byte) {
	if (r.upstream || r.fromCache) && !r.text.check(r.got, b) {
		r.c.d.fail("%s: the body of another at %d: %q", r, r.got, b[:min(len(b), 100)])
	}
	r.got += len(b)
}

// complete is the regular end of the answer.
func (r *dayRequest) complete() {
	d := r.c.d
	if r.want >= 0 && r.got != r.want {
		d.fail("%s: whole with %d of %d bytes", r, r.got, r.want)
	}
	r.whole = true
	r.ends()
	r.keptWhole()
	d.sums.answers++
}

// broken is every other end that the client sees.
func (r *dayRequest) broken() {
	r.cut = true
	r.ends()
	r.c.d.sums.cut++
}

// forget has the client not look at the answer.
func (r *dayRequest) forget() {
	r.forgotten = true
	r.ends()
}

func (r *dayRequest) ends() {
	if r.end == 0 {
		r.end = max(r.c.d.world.Now(), 1)
	}
}

// arrived counts it at an instance.
func (r *dayRequest) arrived(i *dayInstance) {
	if i.cluster == "m" {
		return
	}
	r.mayCome(i)
	r.arrivals++
	d := r.c.d
	if most := d.plan.turns * (1 + max(r.route.retries, 1)); r.arrivals > most {
		d.fail("%s: %d times upstream, want %d at most", r, r.arrivals, most)
	}
	if r.arrivals > 1 && r.route.retries == 0 && !r.method.Idempotent() {
		d.fail("%s: sent again though it may have been processed", r)
	}
}

// logged takes the record.
func (r *dayRequest) logged(x *record.Record) {
	d := r.c.d
	if r.records++; r.records > 1 {
		d.fail("%s: %d records", r, r.records)
	}
	r.recorded = *x
	r.recorded.Captures = nil
	// Requests by HTTP/2 wait, not routed yet, for clients that do not read.
	const late = int64(10 * ms)
	p := &d.plan
	if most := time.Duration(p.turns)*r.route.timeout + p.faultDelay; x.RequestEnd != record.Never && !r.c.rude && !p.slow && r.route.timeout > 0 && x.End-x.RequestEnd > int64(most)+late {
		d.fail("%s: took %v behind its end, its timeout is %v", r, time.Duration(x.End-x.RequestEnd), r.route.timeout)
	}
	if p.maxDuration > 0 && r.route.res != nil && r.route.res.Action.MaxDuration == 0 && x.End > int64(p.maxDuration)+late {
		d.fail("%s: took %v, the most is %v", r, time.Duration(x.End), p.maxDuration)
	}
	if most := p.turns * (1 + max(r.route.retries, 1)); int(x.Attempts) > most {
		d.fail("%s: %d attempts, want %d at most", r, x.Attempts, most)
	}
}

// judge compares what all have seen of the requests of a wave.
func (d *day) judge() {
	d.forgetPlaces()
	d.forgetKept()
	for id, r := range d.requests {
		r.judgeSession()
		r.judgeKept()
		switch {
		case r.status != 0 && r.sent && r.records != 1 && !r.letGo():
			d.fail("%s: answered, with %d records", r, r.records)
		case r.arrivals > 0 && r.records != 1:
			d.fail("%s: upstream %d times, with %d records", r, r.arrivals, r.records)
		case r.whole && r.records == 1 && int(r.recorded.Status) != r.status:
			d.fail("%s: recorded with status %d", r, r.recorded.Status)
		case r.upstream && r.arrivals == 0:
			d.fail("%s: answered by an instance that it never came to", r)
		}
		if r.records > 0 {
			d.judged[id] = true
		}
		delete(d.requests, id)
	}
}

// letGo reports whether a load-shed point may have answered before it knew the request,
// which then has no record (http1_server_abort_dispatch).
func (r *dayRequest) letGo() bool {
	return r.c.d.plan.pressure && r.c.h2 == nil && r.status == 503 && r.records == 0 && r.arrivals == 0
}

func (r *dayRequest) String() string {
	return fmt.Sprintf("request %d of %s to %s (%d bytes, chunked %v) begun at %v, sent %v, ended at %v, status %d, upstream %v, %d bytes, whole %v, cut %v %v, forgotten %v, arrivals %d, records %d {status %d, attempts %d, details %s, flags %v}",
		r.id, r.c, r.route.prefix, r.length, r.chunked, r.began, r.sent, r.end, r.status, r.upstream, r.got, r.whole, r.cut, r.code, r.forgotten, r.arrivals, r.records,
		r.recorded.Status, r.recorded.Attempts, r.recorded.Details, r.recorded.Flags)
}
