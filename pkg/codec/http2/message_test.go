// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"strings"
	"testing"
)

func with(lines ...string) []string { return append(append([]string(nil), get...), lines...) }

func TestRequestsAreReadAsTheyAreMeant(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"plain", get, "1 request GET \"/\" \"a\" http length=0 last=true te=false expect=false up=\"\" form=0\n"},
		{"cookie crumbs are joined", with("cookie: a=1", "x: y", "cookie: b=2"), "  cookie: \"a=1; b=2\"\n  x: \"y\"\n"},
		{"host that equals", with("host: A"), "1 request GET \"/\" \"a\""},
		{"host with the default port", with("host: a:80"), "1 request GET \"/\" \"a\""},
		{"host alone", []string{":method: GET", ":scheme: https", ":path: /x", "host: b"}, "1 request GET \"/x\" \"b\" https"},
		{"te", with("te: trailers"), "te=true"},
		{"asterisk", []string{":method: OPTIONS", ":scheme: http", ":path: *", ":authority: a"}, "\"*\" \"a\" http length=0 last=true te=false expect=false up=\"\" form=3"},
		{"connect", []string{":method: CONNECT", ":authority: a:443"}, "1 request CONNECT \"\" \"a:443\""},
		{"extended connect", []string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /c", ":authority: a"}, "up=\"websocket\""},
		{"http2-settings is dropped", with("http2-settings: x"), "form=0\n"},
	} {
		p := (&peerSide{}).preface().headers(flagEndStream, 1, c.lines...)
		if got := serve(t, Limits{AllowConnect: true}, p); !strings.Contains(got, c.want) || strings.Contains(got, "reset") {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// TestMalformedRequestsEndTheirStreamOnly is RFC 9113 §8: a sidecar's connection
// is shared, and one bad request must not end it.
func TestMalformedRequestsEndTheirStreamOnly(t *testing.T) {
	without := func(i int) []string {
		l := with()
		return append(l[:i:i], l[i+1:]...)
	}
	for _, c := range []struct {
		name  string
		lines []string
		want  *Error
	}{
		{"no method", without(0), errPseudoMissing},
		{"no scheme", without(1), errPseudoMissing},
		{"no path", without(2), errPseudoMissing},
		{"no authority", without(3), errPseudoMissing},
		{"nothing", nil, errPseudoMissing},
		{"two methods", with(":method: GET"), errPseudoRepeated},
		{"two paths", with(":path: /admin"), errPseudoRepeated},
		{"status", with(":status: 200"), errPseudoUnknown},
		{"unknown", with(":foo: bar"), errPseudoUnknown},
		{"pseudo behind a field", append([]string{"x: y"}, get...), errPseudoOrder},
		{"empty path", append(without(2), ":path: "), errPath},
		{"path without slash", append(without(2), ":path: admin"), errPath},
		{"path of a full URL", append(without(2), ":path: http://b/"), errPath},
		{"asterisk of GET", append(without(2), ":path: *"), errPath},
		{"fragment", append(without(2), ":path: /a#b"), errPath},
		{"space in path", append(without(2), ":path: /a HTTP/1.1"), errPath},
		{"control in path", append(without(2), ":path: /a\r\nx: y"), errValue},
		{"method with space", append(without(0), ":method: GET /"), errMethod},
		{"scheme", append(without(1), ":scheme: ftp"), errScheme},
		{"upper-case scheme", append(without(1), ":scheme: HTTPS"), errScheme},
		{"userinfo", append(without(3), ":authority: u@a"), errAuthority},
		{"authority with path", append(without(3), ":authority: a/b"), errAuthority},
		{"host differs", with("host: b"), errHostDiffers},
		{"host differs by port", with("host: a:8080"), errHostDiffers},
		{"two hosts", with("host: a", "host: a"), errHostRepeated},
		{"upper-case name", with("X-A: b"), errName},
		{"space in name", with("x a: b"), errName},
		{"newline in name", with("x\r\na: b"), errName},
		{"colon in name", with("x:y: b"), errName},
		{"NUL in value", with("x: a\x00b"), errValue},
		{"CR LF in value", with("x: a\r\nevil: 1"), errValue},
		{"LF in value", with("x: a\nb"), errValue},
		{"DEL in value", with("x: a\x7f"), errValue},
		{"space around a value", with("x:  a"), errValue},
		{"connection", with("connection: close"), errConnection},
		{"keep-alive", with("keep-alive: 1"), errConnection},
		{"proxy-connection", with("proxy-connection: x"), errConnection},
		{"transfer-encoding", with("transfer-encoding: chunked"), errConnection},
		{"upgrade", with("upgrade: h2c"), errConnection},
		{"te", with("te: gzip"), errTE},
		{"te with more", with("te: trailers, gzip"), errTE},
		{"length of nothing", with("content-length: 5"), errLengthDiffers},
		{"two lengths", with("content-length: 0", "content-length: 0"), errLengthRepeated},
		{"signed length", with("content-length: +0"), errLength},
		{"list of lengths", with("content-length: 0,0"), errLength},
		{"empty length", with("content-length: "), errLength},
		{"huge length", with("content-length: 9999999999999999999"), errLength},
		{"expectation", with("expect: rain"), errExpect},
		{"connect with path", []string{":method: CONNECT", ":scheme: http", ":path: /", ":authority: a:1"}, errPseudoConnect},
		{"connect without authority", []string{":method: CONNECT"}, errPseudoConnect},
		{"connect without port", []string{":method: CONNECT", ":authority: a"}, errAuthority},
		{"protocol that is not taken", []string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /", ":authority: a"}, errPseudoUnknown},
		{"long path", append(without(2), ":path: /"+strings.Repeat("x", maxTargetBytes)), errTargetBytes},
	} {
		p := (&peerSide{}).preface().headers(flagEndStream, 1, c.lines...).get(3)
		want := "1 reset " + c.want.Code.String() + " local=true " + c.want.Detail + "\n3 request GET"
		if got := serve(t, Limits{}, p); !strings.HasPrefix(got, want) {
			t.Errorf("%s:\n%s\nwant %s", c.name, got, want)
		}
	}
}

func TestABodyMustHaveTheLengthThatWasAnnounced(t *testing.T) {
	post := []string{":method: POST", ":scheme: http", ":path: /", ":authority: a", "content-length: 4"}
	for _, c := range []struct {
		name string
		data func(p *peerSide)
		want string
	}{
		{"right", func(p *peerSide) { p.frame(frameData, 0, 1, "ab").frame(frameData, flagEndStream, 1, "cd") }, "1 body \"abcd\"\n"},
		{"padded", func(p *peerSide) { p.frame(frameData, flagEndStream|flagPadded, 1, "\x02abcd\x00\x00") }, "1 body \"abcd\"\n"},
		{"too long", func(p *peerSide) { p.frame(frameData, 0, 1, "abcde") }, "1 reset PROTOCOL_ERROR local=true http2.content_length_mismatch\n"},
		{"too short", func(p *peerSide) { p.frame(frameData, flagEndStream, 1, "abc") }, "1 reset PROTOCOL_ERROR local=true http2.content_length_mismatch\n"},
		{"too short before trailers", func(p *peerSide) { p.frame(frameData, 0, 1, "abc").headers(flagEndStream, 1, "x: y") }, "1 reset PROTOCOL_ERROR local=true http2.content_length_mismatch\n"},
		{"trailers", func(p *peerSide) {
			p.frame(frameData, 0, 1, "abcd").headers(flagEndStream, 1, "grpc-status: 0", "content-length: 9", "authorization: x")
		}, "1 body \"abcd\" trailer\n  grpc-status: \"0\"\n"},
		{"trailers that may not trail", func(p *peerSide) {
			p.frame(frameData, 0, 1, "abcd").headers(flagEndStream, 1, "authorization: x")
		}, "1 body \"abcd\"\n"},
		{"trailers without end", func(p *peerSide) { p.headers(0, 1, "x: y") }, "1 reset PROTOCOL_ERROR local=true http2.headers_within_body\n"},
		{"pseudo-header in trailers", func(p *peerSide) { p.frame(frameData, 0, 1, "abcd").headers(flagEndStream, 1, ":path: /") }, "1 reset PROTOCOL_ERROR local=true http2.pseudo_header_in_trailer\n"},
		{"data behind the end", func(p *peerSide) {
			p.frame(frameData, flagEndStream, 1, "abcd").frame(frameData, 0, 1, "e")
		}, "1 body \"abcd\"\n1 reset STREAM_CLOSED local=true http2.frame_on_closed_stream\n"},
	} {
		p := (&peerSide{}).preface().headers(0, 1, post...)
		c.data(p)
		p.get(3)
		_, got, _ := strings.Cut(serve(t, Limits{}, p), "form=0\n")
		if !strings.HasPrefix(got, c.want+"3 request") {
			t.Errorf("%s:\n%s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestUnderscoresInNamesAreTakenRefusedOrDropped(t *testing.T) {
	p := (&peerSide{}).preface().headers(flagEndStream, 1, with("x_a: b", "x-c: d")...)
	for action, want := range map[Underscores]string{
		AllowUnderscores:  "  x_a: \"b\"\n  x-c: \"d\"\n",
		DropUnderscores:   "form=0\n  x-c: \"d\"\n",
		RejectUnderscores: "1 reset PROTOCOL_ERROR local=true http2.unexpected_underscore\n",
	} {
		if got := serve(t, Limits{Underscores: action}, p); !strings.HasSuffix(got, want) {
			t.Errorf("%d: %s", action, got)
		}
	}
}
