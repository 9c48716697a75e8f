// SPDX-License-Identifier: Apache-2.0

package responsecache

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

const (
	second = int64(time.Second)
	wall   = 1_700_000_000 * second // Tue, 14 Nov 2023 22:13:20 GMT
	start  = 1000 * second
	hour   = time.Hour
)

func request(fields ...string) *codec.RequestHead {
	h := new(codec.RequestHead)
	h.SetMethod([]byte("GET"))
	h.SetPath([]byte("/a?b"))
	h.SetAuthority([]byte("Shop.example"))
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == ":method" {
			h.SetMethod([]byte(value))
			continue
		}
		h.AddString(name, value)
	}
	return h
}

func response(fields ...string) *codec.ResponseHead {
	h := &codec.ResponseHead{Status: 200, BodyLength: 2}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == ":status" {
			_, _ = fmt.Sscan(value, &h.Status)
			continue
		}
		h.AddString(name, value)
	}
	return h
}

func keyOf(q *codec.RequestHead) []byte { return AppendKey(nil, []byte("http"), q) }

// keep reports whether the answer is kept.
func keep(c *Cache, q *codec.RequestHead, r *codec.ResponseHead, now int64) bool {
	if !Usable(q) {
		return false
	}
	d := c.Begin(&Answer{Owner: "c", Key: keyOf(q), Request: q, Head: r, Took: time.Second, Now: now, Wall: wall + now - start, MaxBody: 1000})
	if d == nil {
		return false
	}
	if d.Append([]byte("ok")) {
		d.Keep()
	}
	return true
}

func words(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, " | ")
}

func TestASharedCacheKeepsOnlyWhatItMay(t *testing.T) {
	for _, tt := range []struct {
		request, response string
		want              bool
	}{
		{"", "", true},
		{"", "cache-control: max-age=60", true},
		{"", "cache-control: public", true},
		{"", "expires: Thu, 01 Jan 1970 00:00:00 GMT", true},
		{"authorization: Basic x", "", false},
		{"authorization: Basic x", "cache-control: public, s-maxage=60", false},
		{"proxy-authorization: Basic x", "", false},
		{"cookie: a=b", "", false},
		{"x-forwarded-client-cert: URI=spiffe://a", "", false},
		{"range: bytes=0-1", "", false},
		{"cache-control: no-store", "", false},
		{":method: HEAD", "", false},
		{":method: POST", "cache-control: max-age=60", false},
		{"", "set-cookie: a=b", false},
		{"", "cache-control: private", false},
		{"", "cache-control: max-age=60 | cache-control: PRIVATE", false},
		{"", `cache-control: private="x-a, x-b"`, false},
		{"", `cache-control: a="x, no-store", max-age=60`, true},
		{"", `cache-control: a="x\", no-store", max-age=60`, true},
		{"", "cache-control: private; max-age=0", false}, // what is no list forbids all
		{"", "cache-control: no-store;max-age=0", false},
		{"", "cache-control: private no-store", false},
		{"", "cache-control: max-age=60 private", false},
		{"", "cache-control: max-age=60; private", false},
		{"", `cache-control: ext="a, private`, false},
		{"", `cache-control: ext="a\", private`, false},
		{"", `cache-control: ext="a\`, false},
		{"", `cache-control: ext="a" private, max-age=60`, false},
		{"", `cache-control: ext="a"", private`, false},
		{"", `cache-control: ext=a"b, private"`, false},
		{"", "cache-control: =private", false},
		{"", "cache-control: ext=", false},
		{"", `cache-control: max-age=60 | cache-control: ext="a`, false},
		{"", `cache-control: , max-age = "60" ,, ext="", a`, true},
		{"cache-control: no-store; max-age=0", "", false},
		{"", "cache-control: no-store", false},
		{"", "cache-control: no-store, must-understand", false},
		{"", "cache-control: no-cache", false},
		{"", "cache-control: must-revalidate", false}, // never fresh, and never to be stale
		{"", "cache-control: must-revalidate, max-age=5", true},
		{"", "cache-control: proxy-revalidate", false},
		{"", "cache-control: s-maxage=0", false},
		{"", "cache-control: s-maxage=x", false},
		{"", "vary: *", false},
		{"", "vary: accept | vary: x, *", false},
		{"", "vary: Accept, X-A", true},
		{"", "content-range: bytes 0-1/2", false},
		{"", ":status: 206", false},
		{"", ":status: 301", false},
		{"", ":status: 500", false},
	} {
		if got := keep(New(), request(words(tt.request)...), response(words(tt.response)...), start); got != tt.want {
			t.Errorf("%q answered %q: kept is %v", tt.request, tt.response, got)
		}
	}
	for _, length := range []int64{codec.BodyToClose, 1001} {
		r := response()
		if r.BodyLength = length; keep(New(), request(), r, start) {
			t.Errorf("a body of length %d is kept", length)
		}
	}
}

func TestAnAnswerIsUsedAsLongAsItMay(t *testing.T) {
	for _, tt := range []struct {
		response, request string
		after             int64 // seconds
		want              string
	}{
		{"", "", 0, "1 -1"}, // the second that the answer took
		{"", "", 3598, "3599 -3599"},
		{"", "", 3600, "none"},
		{"age: 100", "", 9, "110 -110"},
		{"date: Tue, 14 Nov 2023 22:13:00 GMT", "", 0, "20 -20"},
		{"date: Tuesday, 14-Nov-23 22:13:00 GMT", "", 0, "20 -20"},
		{"date: Tue Nov 14 22:13:00 2023", "", 0, "20 -20"},
		{"date: Tue, 14 Nov 0023 22:13:00 GMT", "", 0, "1 -1"},
		{"date: Tue, 14 Nov 2023 22:13:20 GMT | expires: Tue, 14 Nov 2023 22:14:20 GMT", "", 4, "5 55"},
		{"expires: nonsense", "", 4, "5 -5"},
		{"cache-control: max-age=60", "", 4, "5 55"},
		{"cache-control: max-age=60, max-age=10", "", 4, "5 5"},
		{"cache-control: max-age=60, s-maxage=10", "", 4, "5 5"},
		{"cache-control: max-age=60, s-maxage=10", "", 9, "none"},
		{"cache-control: max-age=10, must-revalidate", "", 8, "9 1"},
		{"cache-control: max-age=10, must-revalidate", "", 9, "none"},
		{"cache-control: max-age=10, proxy-revalidate", "", 9, "none"},
		{"cache-control: max-age=10, stale-if-error=20", "", 29, "30 -20"},
		{"cache-control: max-age=10, stale-if-error=20", "", 30, "none"},
		{"cache-control: max-age=99999999999999999999", "", 4, "5 2147483643"},
		{"cache-control: max-age=10", "cache-control: no-cache", 0, "none"},
		{"cache-control: max-age=10", "cache-control: no-store", 0, "none"},
		{"cache-control: max-age=10", "pragma: no-cache", 0, "none"},
		{"cache-control: max-age=10", "cache-control: max-age=3", 1, "2 8"},
		{"cache-control: max-age=10", "cache-control: max-age=3", 3, "none"},
		{"cache-control: max-age=10", "cache-control: max-age=30", 11, "none"}, // it does not want what is stale
		{"cache-control: max-age=10", "cache-control: max-age=30, max-stale=5", 11, "12 -2"},
		{"cache-control: max-age=10", "cache-control: max-stale=5", 15, "none"},
		{"cache-control: max-age=10", "cache-control: max-stale", 99, "100 -90"},
		{"cache-control: max-age=10", "cache-control: min-fresh=5", 3, "4 6"},
		{"cache-control: max-age=10", "cache-control: min-fresh=5", 5, "none"},
		{"", "authorization: x", 0, "none"},
		{"", "cookie: a=b", 0, "none"},
		{"", "range: bytes=0-0", 0, "none"},
		{"", "if-range: x", 0, "none"},
		{"", "if-match: x", 0, "none"},
		{"", "if-unmodified-since: x", 0, "none"},
		{"", "if-none-match: x", 0, "1 -1"},
		{"vary: accept", "", 0, "1 -1"},
		{"vary: accept", "accept: a", 0, "none"},
		{"vary: accept", "accept: ", 0, "none"},
	} {
		c := New()
		if !keep(c, request(), response(words(tt.response)...), start) {
			t.Errorf("%q is not kept", tt.response)
			continue
		}
		q := request(words(tt.request)...)
		got := "none"
		if f, ok := c.Find("c", keyOf(q), q, start+tt.after*second, hour); ok {
			got = fmt.Sprint(int64(f.Age/time.Second), " ", int64(f.TTL/time.Second))
			if string(f.Body) != "ok" || f.Head.Get("age") != nil {
				t.Errorf("found %q with age %q", f.Body, f.Head.Get("age"))
			}
		}
		if got != tt.want {
			t.Errorf("%q, asked %q after %d s: %s, want %s", tt.response, tt.request, tt.after, got, tt.want)
		}
	}
}

func TestAnswersAreToldApart(t *testing.T) {
	c := New()
	vary := response("vary: Accept-Language, Host")
	for _, language := range []string{"de", "en", ""} {
		q := request("accept-language: " + language)
		if !keep(c, q, response("vary: Accept-Language, Host", "x-language: "+language), start) {
			t.Fatal("not kept")
		}
	}
	if !keep(c, request("accept-language: de", "accept-language: en"), vary, start) {
		t.Fatal("not kept")
	}
	find := func(owner string, q *codec.RequestHead) string {
		f, ok := c.Find(owner, keyOf(q), q, start, hour)
		if !ok {
			return "none"
		}
		return string(f.Head.Get("x-language"))
	}
	for q, want := range map[string]string{"accept-language: de": "de", "accept-language: en": "en", "accept-language: fr": "none", "accept-language: de | accept-language: en": ""} {
		if got := find("c", request(words(q)...)); got != want {
			t.Errorf("%q finds %q, want %q", q, got, want)
		}
	}
	if got := find("other", request("accept-language: de")); got != "none" {
		t.Errorf("another cluster's request finds %q", got)
	}
	q := request("accept-language: de")
	q.SetAuthority([]byte("elsewhere"))
	if got := find("c", q); got != "none" {
		t.Errorf("another authority finds %q", got)
	}
	c.Forget(keyOf(request()))
	if got := find("c", request("accept-language: de")); got != "none" || !c.Empty() || c.bytes.Load() != 0 {
		t.Errorf("after Forget: found %q, %+v", got, c.StatsOffLoop())
	}
}

func TestANewerAnswerTakesThePlaceOfTheOlderOne(t *testing.T) {
	c, q := New(), request()
	for _, step := range []struct {
		at       int64
		response string
		kept     bool
		want     string
	}{
		{0, "x-n: 1", true, "1"},
		{second / 2, "x-n: 2", false, "1"}, // too early to be worth it
		{2 * second, "x-n: 3", true, "3"},
		{4 * second, "x-n: 4 | cache-control: private", false, "none"}, // it is not for others any more
		{5 * second, "x-n: 5", true, "5"},
		{6 * second, ":status: 503", false, "5"},
		{7 * second, ":status: 404", false, "none"},
	} {
		if got := keep(c, q, response(words(step.response)...), start+step.at); got != step.kept {
			t.Errorf("%s: kept is %v", step.response, got)
		}
		got := "none"
		if f, ok := c.Find("c", keyOf(q), q, start+step.at, hour); ok {
			got = string(f.Head.Get("x-n"))
		}
		if got != step.want {
			t.Errorf("%s: found %s, want %s", step.response, got, step.want)
		}
	}
}

// Two loops fill the cache beyond its bound.
func TestTheCacheIsBounded(t *testing.T) {
	c := New()
	body := make([]byte, 100<<10)
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := range 400 {
				q := request()
				q.SetPath(fmt.Appendf(nil, "/%d/%d", w, i))
				d := c.Begin(&Answer{Owner: "c", Key: keyOf(q), Request: q, Head: &codec.ResponseHead{Status: 200, BodyLength: codec.BodyChunked}, Now: start, Wall: wall, MaxBody: 200 << 10})
				if d == nil {
					t.Error("no room for a draft")
					return
				}
				if d.Append(body) {
					d.Keep()
				}
				if c.bytes.Load() > MaxBytes+2*(110<<10) { // one of each may be about to find its room
					t.Errorf("%d bytes are kept", c.bytes.Load())
				}
			}
		})
	}
	wg.Wait()
	held, n := int64(0), int64(0)
	for i := range c.table {
		for j := range c.table[i] {
			if e := c.table[i][j].Load(); e != nil {
				held, n = held+e.size, n+1
				if cap(e.body) > len(body)*5/4 {
					t.Errorf("%d bytes hold %d", cap(e.body), len(body))
				}
			}
		}
	}
	s := c.StatsOffLoop()
	if s.Bytes != held || s.Entries != n || held > MaxBytes || held < MaxBytes/2 || s.Evicted == 0 || c.drafts.Load() != 0 {
		t.Errorf("%d entries of %d bytes are there, %d bytes of drafts; counted %+v", n, held, c.drafts.Load(), s)
	}
	for range buckets / 8 {
		c.ExpireOffLoop(start + int64(MaxAge) + 1)
	}
	if !c.Empty() || c.bytes.Load() != 0 {
		t.Errorf("after a day there are %+v", c.StatsOffLoop())
	}
}

func TestDraftsAreBounded(t *testing.T) {
	c := New()
	var drafts []*Draft
	begin := func(i int) *Draft {
		q := request()
		q.SetPath(fmt.Appendf(nil, "/%d", i))
		return c.Begin(&Answer{Owner: "c", Key: keyOf(q), Request: q, Head: &codec.ResponseHead{Status: 200, BodyLength: codec.BodyChunked}, Now: start, Wall: wall, MaxBody: 1 << 20})
	}
	for i := range 3 {
		if d := begin(i); d != nil {
			drafts = append(drafts, d)
		}
	}
	if len(drafts) != 3 {
		t.Fatalf("%d drafts have room of which nothing has come", len(drafts))
	}
	if drafts[0].Append(make([]byte, 1<<20+1)) {
		t.Error("a body beyond its bound goes on")
	}
	piece := make([]byte, 300<<10)
	for _, d := range drafts[1:] {
		for range 2 {
			if !d.Append(piece) {
				t.Fatal("no room for 600 KiB")
			}
		}
	}
	if n := c.drafts.Load(); n < 1200<<10 || n > MaxDraftBytes {
		t.Errorf("%d bytes are reserved for 1200 KiB", n)
	}
	last := begin(3)
	if last == nil || last.Append(make([]byte, 1<<20)) || c.StatsOffLoop().Refused != 1 {
		t.Errorf("a piece that there is no room for: %+v", c.StatsOffLoop())
	}
	for len(drafts) < 10_000 { // nor are there more heads than have room
		d := begin(len(drafts))
		if d == nil {
			break
		}
		drafts = append(drafts, d)
	}
	if n := len(drafts); n < 1000 || n == 10_000 || c.drafts.Load() > MaxDraftBytes {
		t.Errorf("%d drafts take %d bytes", n, c.drafts.Load())
	}
	for _, d := range drafts[2:] {
		d.Drop()
	}
	drafts[1].Keep()
	if c.drafts.Load() != 0 {
		t.Errorf("%d bytes are reserved for nothing", c.drafts.Load())
	}
}

// Answers that do not go on hold no more than has come of them.
func TestIdleAnswersLeaveRoomForOthers(t *testing.T) {
	c := New()
	begin := func(i int, length int64, contentType string) *Draft {
		q := request()
		q.SetPath(fmt.Appendf(nil, "/%d", i))
		r := response("content-type: " + contentType)
		r.BodyLength = length
		return c.Begin(&Answer{Owner: "c", Key: keyOf(q), Request: q, Head: r, Now: start, Wall: wall, MaxBody: 64 << 10})
	}
	for i := range 400 {
		d := begin(i, []int64{codec.BodyChunked, 64 << 10}[i%2], "text/plain")
		if d == nil || !d.Append([]byte("one piece")) {
			t.Fatalf("no room beside %d answers that are idle", i)
		}
	}
	before := c.drafts.Load()
	for _, stream := range []string{"text/event-stream", "Text/Event-Stream ; charset=utf-8"} {
		if begin(1000, codec.BodyChunked, stream) != nil || c.drafts.Load() != before {
			t.Errorf("a draft of %s", stream)
		}
	}
	d := begin(1001, codec.BodyChunked, "text/event-stream-not")
	for i := range 64 {
		if d == nil || !d.Append(make([]byte, 1<<10)) {
			t.Fatalf("no room for the %dth KiB", i)
		}
		if n := c.drafts.Load() - before - d.e.weight(); n > 2*int64(len(d.e.body)) || n != int64(cap(d.e.body)) {
			t.Fatalf("%d bytes are reserved for %d", n, len(d.e.body))
		}
	}
	d.Keep()
	if s := c.StatsOffLoop(); s.Entries != 1 || c.drafts.Load() != before {
		t.Errorf("%+v, %d bytes are reserved", s, c.drafts.Load()-before)
	}
}

func TestAHotAnswerCostsNoMemory(t *testing.T) {
	c, q := New(), request("accept: text/html")
	r := response("vary: accept")
	keep(c, q, r, start)
	a := &Answer{Owner: "c", Key: keyOf(q), Request: q, Head: r, Now: start, Wall: wall, MaxBody: 1000}
	if n := testing.AllocsPerRun(100, func() {
		if c.Begin(a) != nil {
			t.Error("kept again")
		}
	}); n != 0 {
		t.Errorf("%.1f allocations", n)
	}
}

var (
	quotes = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"`)
	tokens = regexp.MustCompile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")
)

func FuzzDirectives(f *testing.F) {
	for _, s := range []string{
		`max-age=1, private="a,b\""`, `s-maxage`, `=`, `,,`, `a="`, `max-age=99999999999999999999`,
		`private; max-age=0`, `no-store;max-age=0`, `ext="a, private`, `private no-store`, `a="b" no-cache`, `a=b"c, private"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var h codec.Header
		h.AddString("cache-control", s)
		d := read(&h)
		for _, n := range []int64{d.maxAge, d.sMaxAge, d.staleIfError, d.minFresh, d.maxStale} {
			if n < -1 || n > maxSeconds {
				t.Errorf("%q has the number %d", s, n)
			}
		}
		// Whatever is around it: a word that forbids to keep the answer is heard where it
		// is neither in quotes nor another directive's argument.
		v := h.Get("cache-control")
		bare := quotes.ReplaceAll(v, []byte(`"`))
		for _, at := range tokens.FindAllIndex(bare, -1) {
			before := bytes.TrimRight(bare[:at[0]], " \t")
			switch word := strings.ToLower(string(bare[at[0]:at[1]])); {
			case word != "private" && word != "no-store" && word != "no-cache", bytes.HasSuffix(before, []byte("=")):
			case !d.noStore && !d.noCache && !d.private:
				t.Errorf("%q may be kept in spite of %s", v, word)
			}
		}
		if bytes.Count(bare, []byte(`"`)) != len(quotes.FindAll(v, -1)) && !d.noStore {
			t.Errorf("%q may be kept in spite of an open quote", v)
		}
	})
}
