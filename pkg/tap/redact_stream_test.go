// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"strings"
	"testing"
)

// streamRedactor is what a rule of connections has.
func streamRedactor(t testing.TB, patterns ...string) *Redactor {
	t.Helper()
	r := mustRedactor(t, RedactConfig{Patterns: patterns})
	r.bytes = true
	return r
}

func TestBytesOfConnectionsAreRedacted(t *testing.T) {
	for _, c := range []struct {
		name     string
		patterns []string
		in       string
		cut      bool // by the limit
		want     string
		wantCut  bool
	}{
		{"nothing to hide", nil, "SELECT 1;\x00\xff\x01", false, "SELECT 1;\x00\xff\x01", false},
		{"a head's field", nil, "GET / HTTP/1.1\r\nAuthorization: Basic eDp5\r\nHost: a\r\n\r\nok", false, "GET / HTTP/1.1\r\nAuthorization:[redacted]\r\nHost: a\r\n\r\nok", false},
		{"a field that goes on", nil, "cookie: a\r\n b\r\n\tc\r\nx: 1", false, "cookie:[redacted]\r\nx: 1", false},
		{"a field that the limit cut", nil, "a: 1\nX-Api-Key: hal", true, "a: 1\nX-Api-Key:[redacted]", true},
		{"a parameter", nil, "GET /?a=1&access_token=t HTTP/1.1\r\nb: 2", false, "GET /?a=1&access_token=[redacted]\r\nb: 2", false},
		{"a parameter in disguise", nil, "pass%77ord=x\nb", false, "pass%77ord=[redacted]\nb", false},
		{"a member", nil, `{"a":1, "password" : "x"}`, false, `{"a":1, "password" :[redacted]`, false},
		{"a member over lines", nil, "{\n \"token\": [\n  \"x\"\n ],\n}\n", false, "{\n \"token\":[redacted]\n}\n", false},
		{"a member in disguise", nil, `{"p\u0061ss":"x"}`, false, `{"p\u0061ss":[redacted]`, false},
		{"a member in a text", nil, `"{\"secret\":\"x\"}"`, false, `"{\"secret\":[redacted]`, false},
		{"a value between NULs", nil, "\x00password=x\x00user=y\x00", false, "\x00password=[redacted]\x00user=y\x00", false},
		{"a name that is too long to be told", nil, strings.Repeat("A", 70) + "=x\ny", false, strings.Repeat("A", 70) + "=[redacted]\ny", false},
		{"a member whose value is on the next line", nil, "{\"password\":\n\"x\",\n\"a\":1}", false, "{\"password\":[redacted]\n\"a\":1}", false},
		{"an element of the next line", nil, "{\"token\": [\r\n\"x\"],\n\"a\":1}", false, "{\"token\":[redacted]\n\"a\":1}", false},
		{"a value behind an empty line", nil, "password:\n\n  x\na: 1", false, "password:[redacted]\na: 1", false},
		{"a name without a value", nil, "a: 1\npassword:\n", false, "a: 1\npassword:\n", false},
		{"an arrow over lines", nil, "'password' =>\n'x',\n'a' => 1", false, "'password' =[redacted]\n'a' => 1", false},
		{"an element", nil, "<a>1</a>\n<password>x</password>\n<b>2</b>", false, "<a>1</a>\n<password>[redacted]\n<b>2</b>", false},
		{"an element over lines", nil, "<w:Password Type=\"t\">\nx\n</w:Password>\n<b>2</b>", false, "<w:Password Type=[redacted]\n</w:Password>\n<b>2</b>", false},
		{"a separator on a line of its own", nil, "{\"password\"\r\n:\r\n\"x\",\n\"a\":1}", false, "{\"password\"\r\n:[redacted]\n\"a\":1}", false},
		{"an element of CDATA", nil, "<pin><![CDATA[\nx]]></pin>\n<b>2</b>", false, "<pin>[redacted]\n<b>2</b>", false},
		{"a field of old", nil, "Set-Cookie2: s=1\r\na: b", false, "Set-Cookie2:[redacted]\r\na: b", false},
		{"an element with an attribute", nil, "<pin a=\"t\">x</pin>\n<b>2</b>", false, "<pin a=\"t\">[redacted]\n<b>2</b>", false},
		{"an encoded separator", nil, "GET /?q=pwd%3Dx HTTP/1.1\nb: 2", false, "GET /?q=pwd%3D[redacted]\nb: 2", false},
		{"an encoded member", nil, "q=%7B%22a%22%3a1,%22pass%22%253a%22x%22\nb", false, "q=%7B%22a%22%3a1,%22pass%22%253a[redacted]\nb", false},
		{"other escapes", nil, "a%3Fb%20c%3", false, "a%3Fb%20c%3", false},
		{"a name of two words", nil, "Api key: x\nkey: y", false, "Api key:[redacted]\nkey: y", false},
		{"who asks in a URL", nil, "a http://u:p@h/x?a and http:\\/\\/u@h, http://h/@a", false, "a http://[redacted]@h/x?a and http:\\/\\/[redacted]@h, http://h/@a", false},
		{"a URL that the limit cut", nil, "a http://u:p", true, "a http://", true},
		{"a token by its look", nil, "\x01" + aJWT + "\x02", false, "\x01[redacted]\x02", false},
		{"a key that the limit cut", nil, "-----BEGIN PRIVATE KEY-----\nabc", true, "[redacted]", true},
		{"a key behind a secret name", nil, "secret: -----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nx", false, "secret:[redacted]\nx", false},
		{"a card", []string{"payment-card"}, "\x00pay " + aCard + " now", false, "\x00pay [redacted] now", false},
		{"a card that the limit may have cut", []string{"payment-card"}, strings.Repeat("x ", 40) + "pay 4111 1111 111", true, strings.Repeat("x ", 15), true},
		{"an account that the limit may have cut", []string{"iban"}, strings.Repeat("x ", 40) + "A B 1 2 " + strings.Repeat("C ", 28) + "C", true, strings.Repeat("x ", 39), true},
		{"what was found in the end that is held back", []string{"payment-card"}, strings.Repeat("x ", 10) + aCard + strings.Repeat(" y", 30), true, strings.Repeat("x ", 10) + Redacted, true},
		{"an address that the limit may have cut", []string{"email"}, strings.Repeat("x ", 40) + strings.Repeat("a", 60) + "@example", true, strings.Repeat("x ", 40), true},
		{"gzip in the middle", nil, "head\x1f\x8b\x08rest", false, "head", true},
		{"zstd in the middle", nil, "head\x28\xb5\x2f\xfdrest", false, "head", true},
		{"an encoded body", nil, "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nA: b\r\n\r\nsecret", false, "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nA: b\r\n\r\n", true},
		{"a body of several parts", nil, "POST / HTTP/1.1\r\nA: b\r\nContent-Type:\r\n multipart/form-data; boundary=b\r\n\r\n--b", false, "POST / HTTP/1.1\r\nA: b\r\nContent-Type:\r\n multipart/form-data; boundary=b\r\n\r\n", true},
		{"a body of XML", nil, "POST / HTTP/1.1\ncontent-type: application/soap+xml\n\n<a>", false, "POST / HTTP/1.1\ncontent-type: application/soap+xml\n\n", true},
		{"a body of text", nil, "POST / HTTP/1.1\ncontent-type: text/plain\na: xml\n\n<a>", false, "POST / HTTP/1.1\ncontent-type: text/plain\na: xml\n\n<a>", false},
		{"a body in chunks", nil, "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n4\npass\n6\nword=x", false, "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n", true},
		{"another protocol from there on", nil, "HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n\x81\x01x", false, "HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := []byte(c.in)
			rec := Record{RequestBody: in, RequestTruncated: c.cut, ResponseBody: in, ResponseTruncated: c.cut}
			streamRedactor(t, c.patterns...).Apply(&rec)
			if string(rec.RequestBody) != c.want || rec.RequestTruncated != c.wantCut || string(rec.ResponseBody) != c.want || rec.ResponseTruncated != c.wantCut {
				t.Errorf("got  %q, cut %v, and %q, cut %v\nwant %q, cut %v", rec.RequestBody, rec.RequestTruncated, rec.ResponseBody, rec.ResponseTruncated, c.want, c.wantCut)
			}
			if string(in) != c.in {
				t.Error("the input was written to")
			}
			if changed := c.want != c.in && !c.cut; changed != (rec.Redacted > 0) && !c.cut {
				t.Errorf("%d counted", rec.Redacted)
			}
		})
	}
}

// The fields of HTTP/2 are compressed over the whole connection: none can be searched.
func TestBytesOfHTTP2AreWithheld(t *testing.T) {
	settings := "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	v1, v2 := "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x00\x01\x00\x02"
	for _, c := range []struct{ client, server string }{
		{preface + settings, settings}, {"PRI * HT", ""}, {"", settings}, {settings, ""}, {"", preface},
		{v1 + preface, ""}, {v1 + "PRI * H", ""}, {v2 + preface, ""}, {v2 + "PRI * H", ""}, {v1 + v2 + v1 + "PRI *", ""}, {"", v2 + settings},
		{"CONNECT db:80 HTTP/1.1\r\n\r\n" + preface, ""}, {"", "HTTP/1.1 200 OK\r\nVia: p\r\n\r\n" + settings},
	} {
		rec := Record{RequestBody: []byte(c.client), ResponseBody: []byte(c.server)}
		streamRedactor(t).Apply(&rec)
		if rec.RequestBody != nil || rec.ResponseBody != nil || !rec.RequestTruncated || !rec.ResponseTruncated || rec.Redacted == 0 {
			t.Errorf("%q and %q: got %+v", c.client, c.server, rec)
		}
	}
}

func TestBytesThatAreNotHTTP2AreKept(t *testing.T) {
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11"
	for _, s := range []string{"PRI", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nhello", v2, v2 + "\x00", v2 + "\xff\xffcut", "HTTP/1.1 200 OK\r\n\r\nok"} {
		rec := Record{RequestBody: []byte(s), ResponseBody: []byte(s)}
		streamRedactor(t).Apply(&rec)
		if string(rec.RequestBody) != s || string(rec.ResponseBody) != s || rec.Redacted != 0 {
			t.Errorf("%q: got %+v", s, rec)
		}
	}
}

func TestRedactedBytesStayWithinTheLimit(t *testing.T) {
	rec := Record{RequestBody: bytes.Repeat([]byte("pin=1\n"), MaxBodyBytes/6)}
	streamRedactor(t).Apply(&rec)
	if len(rec.RequestBody) != MaxBodyBytes || !rec.RequestTruncated || bytes.Contains(rec.RequestBody, []byte("=1")) {
		t.Errorf("%d bytes, truncated %v", len(rec.RequestBody), rec.RequestTruncated)
	}
}

// Separators without end must not make the search slow.
func BenchmarkNames(b *testing.B) {
	for name, piece := range map[string]string{"colons": ":", "tags": "<token a", "ends": ">", "lines": "token:\n", "escapes": "%25%3D", "blanks": "token: [", "words": "token a:"} {
		b.Run(name, func(b *testing.B) {
			in := bytes.Repeat([]byte(piece), MaxBodyBytes/len(piece))
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				findNamed(in)
			}
		})
	}
}

// Whatever stands around it, a secret behind its name is gone, and the input is whole.
func FuzzRedactStream(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"), []byte("\r\nHost: a\r\n\r\n"), true)
	f.Add([]byte("{\"a\\\""), []byte(" 4111 1111 1111 1111"), false)
	f.Add([]byte{0x1f, 0x8b, 8, '='}, []byte("\n\n"), true)
	const secret = "QqQzZzQqQ"
	r := streamRedactor(f, "payment-card", "email", "iban")
	f.Fuzz(func(t *testing.T, before, after []byte, cut bool) {
		if bytes.Contains(before, []byte(secret)) || bytes.Contains(after, []byte(secret)) {
			return
		}
		in := append(append(append(append([]byte{}, before...), "\npassword="...), secret...), after...)
		was := bytes.Clone(in)
		rec := Record{RequestBody: in, RequestTruncated: cut, ResponseBody: after, ResponseTruncated: cut}
		r.Apply(&rec)
		if bytes.Contains(rec.RequestBody, []byte(secret)) {
			t.Fatalf("%q is still in %q", secret, rec.RequestBody)
		}
		if !bytes.Equal(in, was) {
			t.Fatal("the input was written to")
		}
		if cut && !rec.RequestTruncated {
			t.Fatal("a cut was forgotten")
		}
	})
}
