// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"reflect"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Answers of a day that are kept for fallbacks (docs/fallbacks.md). One that stands for
// an answer that failed
//
//   - is whole, and to the bytes the one that an instance of the route's cluster gave to a
//     GET for the same URI and, where it varies, by the same values;
//   - was 200, and neither it nor its request forbade to keep it (no-store, private);
//   - was given to nobody in particular, and goes to nobody who says who he is or wants
//     no such answer;
//   - tells its age, and is not older than the fallback's maxAge, and not stale where
//     must-revalidate forbids that, or longer than stale-if-error allows;
//   - is not one that was whole before an unsafe request for its URI, which a client saw
//     succeed before this request began (RFC 9111 §4.4);
//   - is told apart in the access log.
//
// No answer that is coming holds room once all is over.

const keptPrefix = "/kept/"

// keptControls are what instances say of such answers.
var keptControls = []string{"", "max-age=1", "max-age=60", "max-age=60", "max-age=60", "no-store", "private", "max-age=1, must-revalidate", "max-age=0, stale-if-error=2"}

// dayKept is what is known of a request for an answer that may be kept, and of the answer.
type dayKept struct {
	key      string
	lang     string
	personal bool   // it says who is asking
	wants    string // its cache-control
	// of the answer of an instance
	answered time.Duration // 0: there was none
	cluster  string
	control  string
	status   int
	length   int
	// of its client
	wholeAt time.Duration // 0: not
}

// drawKept draws the fallback of the route.
func drawKept(d *day, a *resource.RouteAction) {
	a.Fallback = &resource.Fallback{Cached: &resource.CachedFallback{MaxAge: one(d.rng, 300*ms, 2*time.Second, 10*time.Minute), MaxBody: one(d.rng, 64<<10, 1000)}}
	a.Timeout = one(d.rng, 20*ms, 60*ms, 150*ms)
	if maybe(d.rng, 1, 3) {
		a.Fallback.Static = &resource.DirectResponse{Status: 200, Body: []byte("fallback")}
	}
}

// keptHead makes the request one for such an answer.
func (r *dayRequest) keptHead(h *codec.RequestHead) {
	if r.route.prefix != keptPrefix {
		return
	}
	rng := r.c.d.rng
	k := &dayKept{key: one(rng, "1", "2"), lang: one(rng, "a", "b"), personal: maybe(rng, 1, 10), wants: one(rng, "", "", "", "", "", "", "", "", "no-cache", "no-store")}
	r.kept = k
	r.c.d.kept[r.id] = k
	h.SetPath([]byte(keptPrefix + k.key))
	h.AddString("x-lang", k.lang)
	h.AddString("user-agent", strconv.FormatUint(r.id, 10))
	if k.personal {
		h.AddString(one(rng, "authorization", "cookie"), "me=1")
	}
	if k.wants != "" {
		h.AddString("cache-control", k.wants)
	}
}

// keptAnswer adds what an instance says of an answer to one.
func (s *dayServer) keptAnswer(a *dayAsked, r *dayAnswer) {
	d := s.i.d
	k := d.kept[a.id]
	if k == nil {
		return
	}
	k.answered, k.cluster, k.status, k.length = d.world.Now(), s.i.cluster, r.head.Status, r.length
	if k.control = one(d.rng, keptControls...); k.control != "" {
		r.head.AddString("cache-control", k.control)
	}
	if k.key == "2" {
		r.head.AddString("vary", "x-lang")
	}
}

// idOfRecord is the number of a request of the access log.
func idOfRecord(path, agent []byte) uint64 {
	if bytes.HasPrefix(path, []byte(keptPrefix)) {
		return idOf(agent)
	}
	return idOf(path)
}

// fromKept takes the head of an answer that was kept, and reports whether it is one.
func (r *dayRequest) fromKept(h *codec.ResponseHead) bool {
	v := h.Get("cache-status")
	if v == nil {
		return false
	}
	d, k := r.c.d, r.kept
	if k == nil {
		d.fail("%s: an answer of the cache: %q", r, v)
	}
	id, _ := strconv.ParseUint(string(h.Get("x-id")), 10, 64)
	o := d.kept[id]
	if o == nil || o.answered == 0 {
		d.fail("%s: the answer to %d, which was not one to keep", r, id)
	}
	r.fromCache, r.text = true, textOf(id)
	r.want, _ = strconv.Atoi(string(h.Get("x-len")))
	now, f := d.world.Now(), r.route.res.Action.Fallback.Cached
	cluster := r.route.res.Action.Clusters[0].Name
	least := r.began - o.answered // of its age, as it was used
	age, err := strconv.Atoi(string(h.Get("age")))
	switch {
	case r.method != codec.MethodGet || k.personal || k.wants != "":
		d.fail("%s: an answer that was kept, though it says %+v", r, k)
	case o.personal || o.wants == "no-store" || o.control == "no-store" || o.control == "private":
		d.fail("%s: the answer to %d, which may not be kept: %+v", r, id, o)
	case o.key != k.key || o.key == "2" && o.lang != k.lang || o.cluster != cluster:
		d.fail("%s of %+v: the answer to %d, of %+v", r, k, id, o)
	case o.status != 200 || h.Status != 200 || o.length != r.want || o.length > f.MaxBody:
		d.fail("%s: the answer to %d with %d bytes, which was %+v", r, id, r.want, o)
	case err != nil || time.Duration(age)*time.Second > now || time.Duration(age+1)*time.Second < least:
		d.fail("%s: the answer to %d of %v ago says that it is %q seconds old", r, id, now-o.answered, h.Get("age"))
	case least > f.MaxAge:
		d.fail("%s: an answer of %v ago, older than %v", r, now-o.answered, f.MaxAge)
	case o.control == "max-age=1, must-revalidate" && least > time.Second, o.control == "max-age=0, stale-if-error=2" && least > 2*time.Second:
		d.fail("%s: an answer of %v ago that says %q", r, now-o.answered, o.control)
	case o.wholeAt != 0 && r.began > d.changed[k.key].seen && o.wholeAt < d.changed[k.key].began:
		d.fail("%s: the answer to %d, whole at %v, and its URI has changed from %v to %v", r, id, o.wholeAt, d.changed[k.key].began, d.changed[k.key].seen)
	}
	d.sums.fromKept++
	return true
}

// dayChange is when an unsafe request for a URI began, and when its client saw that it
// had succeeded.
type dayChange struct{ began, seen time.Duration }

// keptWhole takes the end of a request as its client sees it.
func (r *dayRequest) keptWhole() {
	k, d := r.kept, r.c.d
	if k == nil || !r.upstream {
		return
	}
	k.wholeAt = d.world.Now()
	if unsafe := r.method == codec.MethodPost || r.method == codec.MethodPut || r.method == codec.MethodDelete; unsafe && r.status < 400 {
		d.changed[k.key] = dayChange{r.began, d.world.Now()}
	}
}

// judgeKept compares it with the access log.
func (r *dayRequest) judgeKept() {
	if told := r.recorded.Details == "fallback_cached"; r.records == 1 && r.status != 0 && told != r.fromCache {
		r.c.d.fail("%s: from the cache %v, as recorded %v", r, r.fromCache, told)
	}
}

// forgetKept drops what can be in no cache any more.
func (d *day) forgetKept() {
	for id, k := range d.kept {
		if d.world.Now()-k.answered > 11*time.Minute {
			delete(d.kept, id)
		}
	}
	if n := reflect.ValueOf(d.p.answers).Elem().FieldByName("drafts").FieldByName("v").Int(); n != 0 {
		d.fail("answers that are coming hold %d bytes", n)
	}
}
