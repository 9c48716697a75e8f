// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// post is a request with a head up to its framing fields, which follow.
const post = "POST /x HTTP/1.1\r\nHost: a\r\n"

const hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

// smuggled are requests that have been read in two ways by two parsers. Each
// is refused with its error, and the request hidden behind it is never seen.
var smuggled = []struct {
	name, in string
	want     *Error
}{
	{"CL.TE", post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", errLengthBoth},
	{"TE.CL", post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + hidden, errLengthBoth},
	{"CL.TE with HTTP/1.0 (CVE-2026-2835)", "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errLengthBoth},
	{"TE on HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errCodingIn10},
	{"TE.TE repeated", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", errCodingRepeated},
	{"TE.TE repeated and equal", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", errCodingRepeated},
	{"TE list of chunked", post + "Transfer-Encoding: chunked, chunked\r\n\r\n", errCoding},
	{"TE chunked not final", post + "Transfer-Encoding: chunked, identity\r\n\r\n", errCoding},
	{"TE identity", post + "Transfer-Encoding: identity\r\n\r\n", errCoding},
	{"TE gzip", post + "Transfer-Encoding: gzip\r\n\r\n", errCoding},
	{"TE gzip, chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n", errCodingUnknown},
	{"TE xchunked (CVE-2019-16276 family)", post + "Transfer-Encoding: xchunked\r\n\r\n", errCoding},
	{"TE with a parameter", post + "Transfer-Encoding: chunked;q=1\r\n\r\n", errCoding},
	{"TE quoted", post + "Transfer-Encoding: \"chunked\"\r\n\r\n", errCoding},
	{"TE empty", post + "Transfer-Encoding:\r\n\r\n", errCoding},
	{"TE with an empty member", post + "Transfer-Encoding: ,chunked\r\n\r\n", errCodingUnknown},
	{"TE behind a vertical tab", post + "Transfer-Encoding:\x0bchunked\r\n\r\n", errControl},
	{"TE with a space before the colon", post + "Transfer-Encoding : chunked\r\n\r\n", errNameSpace},
	{"TE with a tab before the colon", post + "Transfer-Encoding\t: chunked\r\n\r\n", errNameSpace},
	{"TE in a fold", post + "X: y\r\n Transfer-Encoding: chunked\r\n\r\n", errFold},
	{"TE folded itself", post + "Transfer-Encoding:\r\n chunked\r\n\r\n", errFold},
	{"TE behind a bare CR", post + "X: y\rTransfer-Encoding: chunked\r\n\r\n", errBareCR},
	{"TE behind a bare LF", post + "X: y\nTransfer-Encoding: chunked\r\n\r\n", errBareLF},

	{"CL repeated", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", errLengthRepeated},
	{"CL repeated and equal", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", errLengthRepeated},
	{"CL list", post + "Content-Length: 5, 5\r\n\r\nhello", errLength},
	{"CL with a plus", post + "Content-Length: +5\r\n\r\nhello", errLength},
	{"CL with a minus", post + "Content-Length: -5\r\n\r\nhello", errLength},
	{"CL hexadecimal", post + "Content-Length: 0x5\r\n\r\nhello", errLength},
	{"CL with an underscore", post + "Content-Length: 1_0\r\n\r\nhello", errLength},
	{"CL with a fraction", post + "Content-Length: 5.0\r\n\r\nhello", errLength},
	{"CL with a space inside", post + "Content-Length: 5 5\r\n\r\nhello", errLength},
	{"CL empty (CVE-2023-40225)", post + "Content-Length:\r\n\r\nhello", errLength},
	{"CL empty, then one (CVE-2023-40225)", post + "Content-Length:\r\nContent-Length: 5\r\n\r\nhello", errLengthRepeated},
	{"CL of no ASCII digits", post + "Content-Length: \xd9\xa5\r\n\r\nhello", errLength},
	{"CL too large", post + "Content-Length: 18446744073709551621\r\n\r\nhello", errLength},
	{"CL just above what is counted", post + "Content-Length: 1000000000000000000\r\n\r\nhello", errLength},
	{"CL with a NUL", post + "Content-Length: 5\x00\r\n\r\nhello", errControl},
	{"CL with a space before the colon", post + "Content-Length : 5\r\n\r\nhello", errNameSpace},
	{"CL hidden by a long name (CVE-2021-40346)", post + "Content-Length0" + strings.Repeat("a", 255) + " : 0\r\nContent-Length: 34\r\n\r\n", errNameSpace},
	{"name empty (CVE-2023-25725)", post + ": x\r\nContent-Length: 5\r\n\r\nhello", errNameEmpty},
	{"name of white space", post + "\t: x\r\n\r\n", errFold},
	{"name with a NUL", post + "X\x00Y: x\r\n\r\n", errControl},
	{"name with a parenthesis", post + "X(Y): x\r\n\r\n", errName},
	{"name not ASCII", post + "X\xc3\xa9: x\r\n\r\n", errName},
	{"name with a space inside", post + "X Y: x\r\n\r\n", errName},
	{"line without a colon", post + "Transfer-Encoding\r\n\r\n", errNoColon},
	{"value with NUL (CVE-2019-9900)", post + "X: a\x00b\r\n\r\n", errControl},
	{"value with a form feed", post + "X: a\x0cb\r\n\r\n", errControl},
	{"value with DEL", post + "X: a\x7fb\r\n\r\n", errControl},
	{"value with a bare CR", post + "X: a\rb\r\n\r\n", errBareCR},
	{"value that ends in CR CR LF", post + "X: a\r\r\n\r\n", errBareCR},
	{"value that ends in LF", post + "X: a\n\r\n", errBareLF},
	{"head that ends in LF LF", "GET / HTTP/1.1\nHost: a\n\n", errBareLF},
	{"head whose empty line is LF", "GET / HTTP/1.1\r\nHost: a\r\n\n", errBareLF},
	{"head whose empty line is a bare CR", "GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", errBareCR},
	{"fold in the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", errFold},
	{"fold of a tab", post + "X: a\r\n\tb\r\n\r\n", errFold},

	{"chunk size with LF only (CVE-2025-22871)", chunked("5\nhello\r\n0\r\n\r\n"), errBareLF},
	{"chunk extension with LF only (CVE-2025-22871)", chunked("5;a\nhello\r\n0\r\n\r\n"), errBareLF},
	{"chunk size with CR only", chunked("5\rhello\r\n0\r\n\r\n"), errBareCR},
	{"chunk size hexadecimal prefix", chunked("0x5\r\nhello\r\n0\r\n\r\n"), errChunkSize},
	{"chunk size with a plus", chunked("+5\r\nhello\r\n0\r\n\r\n"), errChunkSize},
	{"chunk size with a minus", chunked("-5\r\nhello\r\n0\r\n\r\n"), errChunkSize},
	{"chunk size with an underscore", chunked("0_5\r\nhello\r\n0\r\n\r\n"), errChunkSize},
	{"chunk size behind a space", chunked(" 5\r\nhello\r\n0\r\n\r\n"), errChunkSize},
	{"chunk size before a space", chunked("5 \r\nhello\r\n0\r\n\r\n"), errChunkSize},
	{"chunk size before a space and an extension", chunked("5 ;a\r\nhello\r\n0\r\n\r\n"), errChunkSize},
	{"chunk size empty", chunked("\r\nhello\r\n0\r\n\r\n"), errChunkSize},
	{"chunk size only an extension", chunked(";a\r\nhello\r\n0\r\n\r\n"), errChunkSize},
	{"chunk size overflow", chunked("ffffffffffffffff\r\nhello"), errChunkOverflow},
	{"chunk size wraps to five", chunked("10000000000000005\r\nhello"), errChunkOverflow},
	{"chunk size of too many zeros", chunked("00000000000000005\r\nhello"), errChunkOverflow},
	{"chunk sizes that add up to overflow", chunked("1\r\nx\r\n7fffffffffffffff\r\n"), errBodyBytes},
	{"chunk data too long", chunked("5\r\nhello!\r\n0\r\n\r\n"), errChunkEnd},
	{"chunk data ends with LF", chunked("5\r\nhello\n0\r\n\r\n"), errChunkEnd},
	{"chunk data ends with CR", chunked("5\r\nhello\rX0\r\n\r\n"), errChunkEnd},
	{"chunk data without an end", chunked("5\r\nhello0\r\n\r\n"), errChunkEnd},
	{"chunk extension with a bare CR", chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), errBareCR},
	{"chunk extension with NUL", chunked("5;a\x00\r\nhello\r\n0\r\n\r\n"), errChunkExt},
	{"chunk extension flood (CVE-2023-39326)", chunked(strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 20)), errChunkExtBytes},
	{"last chunk without its line end", chunked("0\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"), errNoColon},
	{"trailer with a fold", chunked("0\r\nX: a\r\n b\r\n\r\n"), errFold},
	{"trailer with a bare LF", chunked("0\r\nX: a\n\r\n"), errBareLF},
	{"trailer section that ends with LF", chunked("0\r\n\n"), errBareLF},

	{"Host repeated (CVE-2021-39242 family)", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", errHostRepeated},
	{"Host missing", "GET / HTTP/1.1\r\n\r\n", errHostMissing},
	{"Host other than the target", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", errHostDiffers},
	{"Host with userinfo", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", errHost},
	{"Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", errHost},
	{"Host with a query", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", errHost},
	{"Host with a fragment (CVE-2023-45539)", "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", errHost},
	{"Host with a backslash", "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", errHost},
	{"Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", errHost},
	{"Host of two names", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", errHost},
	{"Host with a port that is none", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", errHost},
	{"Host with a port too large", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", errHost},
	{"Host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", errHost},
	{"Host not ASCII", "GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", errHost},
	{"target with a fragment (CVE-2021-32779)", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", errFragment},
	{"target without a slash (CVE-2026-33186)", "GET admin HTTP/1.1\r\nHost: a\r\n\r\n", errTargetForm},
	{"target of a backslash", "GET \\admin HTTP/1.1\r\nHost: a\r\n\r\n", errTargetForm},
	{"target that splits the request line", "GET / HTTP/1.1\rX HTTP/1.1\r\nHost: a\r\n\r\n", errBareCR},
	{"second version in the request line", "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", errRequestLine},

	{"CONNECT with a body (CVE-2025-64763 family)", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\nabc", errBodyDisallowed},
	{"headers above 60 KiB (CVE-2020-12605)", post + "X: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", errHeadBytes},
	{"1000 headers", post + strings.Repeat("X: y\r\n", 1000) + "\r\n", errHeadCount},
	{"1000 cookies (CVE-2026-47774 family)", post + strings.Repeat("Cookie: a=b\r\n", 1000) + "\r\n", errHeadCount},
	{"URL of 64 KiB", "GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", errTargetBytes},
	{"PRI preface, then silence (CVE-2026-56853 family)", "PRI * HTTP/2.0\r\n", ErrHTTP2Preface},
}

func chunked(body string) string {
	return post + "Transfer-Encoding: chunked\r\n\r\n" + body
}

func TestAmbiguousRequestsAreRefusedHoweverTheyAreCut(t *testing.T) {
	for _, c := range smuggled {
		t.Run(c.name, func(t *testing.T) {
			in := []byte(c.in + hidden)
			for _, cut := range someCuts(len(in)) {
				p := newRequestPeer(Limits{})
				feedCut(p, in, cut)
				if p.err != error(c.want) {
					t.Fatalf("cut at %v: error %v, want %v\n%s", cut, p.err, c.want, p.out.String())
				}
				if strings.Contains(p.out.String(), "hidden") {
					t.Fatalf("the hidden request came out:\n%s", p.out.String())
				}
				// Refused for good.
				if n, err := p.decode([]byte(hidden), &p.recorder); n != 0 || err != error(c.want) {
					t.Fatalf("after the error: consumed %d, %v", n, err)
				}
			}
		})
	}
}

// someCuts are fewer cuts for longer inputs.
func someCuts(n int) [][]int {
	if n < 2000 {
		return cuts(n)
	}
	var by1000 []int
	for i := 1000; i < n; i += 1000 {
		by1000 = append(by1000, i)
	}
	return [][]int{{n}, {n / 2, n}, append(by1000, n)}
}

func TestTheSameFramingRulesHoldForResponses(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name, in string
		want     *Error
	}{
		{"CL.TE", ok + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errLengthBoth},
		{"TE on HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errCodingIn10},
		{"CL with a plus", ok + "Content-Length: +6\r\n\r\n", errLength},
		{"CL empty", ok + "Content-Length:\r\n\r\n", errLength},
		{"splitting by a bare CR", ok + "Location: x\rSet-Cookie: a\r\n\r\n", errBareCR},
		{"splitting by NUL", ok + "Location: x\x00\r\n\r\n", errControl},
		{"reason with a control byte", "HTTP/1.1 200 O\x01K\r\n\r\n", errControl},
		{"chunk size wraps", ok + "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\n", errChunkOverflow},
		{"chunk extension flood", ok + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("a", 20000), errChunkExtBytes},
		{"too many fields", ok + strings.Repeat("X: y\r\n", 101) + "\r\n", errHeadCount},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := []byte(c.in)
			for _, cut := range someCuts(len(in)) {
				p, _ := newResponsePeer(Limits{}, false, codec.MethodGet)
				feedCut(p, in, cut)
				e, isError := p.err.(*Error)
				if !isError || e.Detail != c.want.Detail || e.Status != 502 {
					t.Fatalf("cut at %v: error %v, want %v with 502", cut, p.err, c.want)
				}
			}
		})
	}
}

// TestUpgradesCannotSmuggle covers CVE-2024-23326 (200 taken for an upgrade),
// CVE-2026-2833 (tunnel before 101) and the smuggling of h2c.
func TestUpgradesCannotSmuggle(t *testing.T) {
	t.Run("bytes behind an upgrade request wait for 101", func(t *testing.T) {
		d := NewRequestDecoder(Limits{})
		var h codec.RequestHead
		var r recorder
		head := "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
		n, err := d.Decode([]byte(head+hidden), &h, &r)
		if n != len(head) || err != nil {
			t.Fatalf("consumed %d of the head's %d bytes, %v", n, len(head), err)
		}
		if n, err = d.Decode([]byte(hidden), &h, &r); n != 0 || err != nil {
			t.Fatalf("consumed %d bytes before 101, %v", n, err)
		}
		d.StartTunnel()
		if n, err = d.Decode([]byte(hidden), &h, &r); n != len(hidden) || err != nil {
			t.Fatalf("consumed %d bytes in the tunnel, %v", n, err)
		}
		if string(r.body) != hidden {
			t.Fatalf("tunnel carried %q", r.body)
		}
		if err := d.EOF(&r); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("200 and 204 are no tunnel", func(t *testing.T) {
		for _, status := range []string{"200 OK", "204 No Content"} {
			p, _ := newResponsePeer(Limits{}, true, codec.MethodGet)
			p.feed([]byte("HTTP/1.1 " + status + "\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"))
			if p.err != nil || strings.Contains(p.out.String(), "tunnel") {
				t.Fatalf("%s: %v\n%s", status, p.err, p.out.String())
			}
		}
	})
	t.Run("101 without an offer is refused", func(t *testing.T) {
		p, _ := newResponsePeer(Limits{}, false, codec.MethodGet)
		p.feed([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"))
		if p.err != error(errSwitch) {
			t.Fatalf("error %v, want %v", p.err, errSwitch)
		}
	})
}

// TestAConnectionWithUnreadBytesIsNotReused covers CVE-2025-4366 and the 0.CL
// and CL.0 families on the upstream side.
func TestAConnectionWithUnreadBytesIsNotReused(t *testing.T) {
	const response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	var h codec.ResponseHead
	var r recorder
	t.Run("in the same read", func(t *testing.T) {
		d := NewResponseDecoder(Limits{})
		d.Expect(codec.MethodGet)
		n, err := d.Decode([]byte(response+"X"), &h, &r)
		if n != len(response) || err != nil || !d.Done() || d.Reusable() {
			t.Fatalf("consumed %d, %v, done %v, reusable %v", n, err, d.Done(), d.Reusable())
		}
	})
	t.Run("in a later read", func(t *testing.T) {
		d := NewResponseDecoder(Limits{})
		d.Expect(codec.MethodGet)
		if _, err := d.Decode([]byte(response), &h, &r); err != nil || !d.Reusable() {
			t.Fatalf("%v, reusable %v", err, d.Reusable())
		}
		if _, err := d.Decode([]byte("X"), &h, &r); err != error(ErrUnexpectedBytes) || d.Reusable() {
			t.Fatalf("%v, reusable %v", err, d.Reusable())
		}
	})
	t.Run("a body for HEAD", func(t *testing.T) {
		d := NewResponseDecoder(Limits{})
		d.Expect(codec.MethodHead)
		if _, err := d.Decode([]byte(response), &h, &r); err != nil || d.Reusable() {
			t.Fatalf("%v, reusable %v", err, d.Reusable())
		}
	})
}
