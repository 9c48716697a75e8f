// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func mustRedactor(t testing.TB, c RedactConfig) *Redactor {
	t.Helper()
	r, err := NewRedactor(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func fields2(pairs ...string) (hs []Header) {
	for i := 0; i < len(pairs); i += 2 {
		hs = append(hs, Header{[]byte(pairs[i]), []byte(pairs[i+1])})
	}
	return hs
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.String()
}

const (
	aJWT  = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
	aCard = "4111 1111 1111 1111"
	aIBAN = "DE89 3704 0044 0532 0130 00"
)

func TestBodiesAreRedacted(t *testing.T) {
	jsonType := fields2("Content-Type", "application/json")
	for _, c := range []struct {
		name    string
		config  RedactConfig
		headers []Header
		in      string
		want    string
		cut     bool
	}{
		{"a path", RedactConfig{JSONPaths: []string{"$.card.number"}}, jsonType, `{"card": {"number": "1", "n": 2}}`, `{"card": {"number": "[redacted]", "n": 2}}`, false},
		{"an object at a path", RedactConfig{JSONPaths: []string{"$.card"}}, jsonType, `{"card": {"number": [1,{"}":2}]}, "a":1}`, `{"card": "[redacted]", "a":1}`, false},
		{"an element", RedactConfig{JSONPaths: []string{"$.a[1]"}}, jsonType, `{"a": [1, 2, 3]}`, `{"a": [1, "[redacted]", 3]}`, false},
		{"every element", RedactConfig{JSONPaths: []string{"$.a[*].x"}}, jsonType, `{"a":[{"x":1},{"y":2,"x":null}]}`, `{"a":[{"x":"[redacted]"},{"y":2,"x":"[redacted]"}]}`, false},
		{"any depth", RedactConfig{JSONPaths: []string{"$..x"}}, jsonType, `[{"x":1,"b":{"c":[{"x":{}}]}}]`, `[{"x":"[redacted]","b":{"c":[{"x":"[redacted]"}]}}]`, false},
		{"a quoted name", RedactConfig{JSONPaths: []string{"$['a.b']"}}, jsonType, `{"a.b":1,"a":{"b":2}}`, `{"a.b":"[redacted]","a":{"b":2}}`, false},
		{"a name in disguise", RedactConfig{JSONPaths: []string{"$.card"}}, jsonType, `{"c\u0061rd":1}`, `{"c\u0061rd":"[redacted]"}`, false},
		{"members with secret names", RedactConfig{}, jsonType, `{"userPassword":"x","access_token":["y"],"n":1}`, `{"userPassword":"[redacted]","access_token":"[redacted]","n":1}`, false},
		{"a secret that the limit cut", RedactConfig{}, jsonType, `{"a":1,"password":"half of i`, `{"a":1,"password":"[redacted]"`, false},
		{"lines of JSON", RedactConfig{}, nil, "{\"token\":1}\n{\"token\":2}\n", "{\"token\":\"[redacted]\"}\n{\"token\":\"[redacted]\"}\n", false},
		{"what stops being JSON", RedactConfig{}, jsonType, `{"a":1, 'password':'x'}`, `{"a":1, `, true},
		{"text that only looks like JSON", RedactConfig{}, nil, `[info] hello`, `[info] hello`, false},
		{"a form", RedactConfig{}, fields2("content-type", "application/x-www-form-urlencoded"), "a=1&pass%77ord=x&b=2", "a=1&pass%77ord=[redacted]&b=2", false},
		{"a card", RedactConfig{Patterns: []string{"payment-card"}}, nil, "pay " + aCard + " now 1234567890123", "pay [redacted] now 1234567890123", false},
		{"a card in a longer run", RedactConfig{Patterns: []string{"payment-card"}}, nil, "994111111111111111", "99[redacted]", false},
		{"an account", RedactConfig{Patterns: []string{"iban"}}, nil, "to " + aIBAN + " THANKS", "to [redacted] THANKS", false},
		{"an address", RedactConfig{Patterns: []string{"email"}}, nil, "ask a.b@example.com.", "ask [redacted].", false},
		{"a token by its look", RedactConfig{}, nil, "x " + aJWT + " y", "x [redacted] y", false},
		{"a key", RedactConfig{}, nil, "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\n.", "[redacted]\n.", false},
		{"a key that the limit cut", RedactConfig{}, nil, "a -----BEGIN PRIVATE KEY-----\nabc", "a [redacted]", false},
		{"an expression", RedactConfig{Patterns: []string{"regex:EMP-[0-9]+"}}, nil, "EMP-17 and EMP-x", "[redacted] and EMP-x", false},
		{"compressed", RedactConfig{}, fields2("content-encoding", "gzip", "content-type", "application/json"), zipped(`{"token":1,"a":2}`), `{"token":"[redacted]","a":2}`, false},
		{"compressed and cut", RedactConfig{}, fields2("content-encoding", "gzip"), zipped("hello")[:20], "hello", true},
		{"compressed in a way that we do not undo", RedactConfig{}, fields2("content-encoding", "br"), "secret", "", true},
		{"several parts", RedactConfig{}, fields2("content-type", "multipart/form-data; boundary=b"), "--b", "", true},
		{"XML", RedactConfig{}, fields2("content-type", "text/xml"), "<a>1</a>\n<pin>1</pin>\n<b>2</b>", "<a>1</a>\n<pin>[redacted]\n<b>2</b>", false},
		{"who asks in a URL", RedactConfig{}, jsonType, `{"a":"http:\/\/u:p@h\/"}`, `{"a":"http:\/\/[redacted]@h\/"}`, false},
		{"a long secret name", RedactConfig{}, jsonType, `{"` + strings.Repeat("a", 64) + `password":1}`, `{"` + strings.Repeat("a", 64) + `password":"[redacted]"}`, false},
		{"called compressed", RedactConfig{}, fields2("content-encoding", "gzip"), "not so", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := []byte(c.in)
			rec := Record{RequestHeaders: c.headers, RequestBody: in}
			mustRedactor(t, c.config).Apply(&rec)
			if got := string(rec.RequestBody); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if rec.RequestTruncated != c.cut {
				t.Errorf("truncated: got %v, want %v", rec.RequestTruncated, c.cut)
			}
			if string(in) != c.in {
				t.Error("the input was written to")
			}
		})
	}
}

func TestHeadersAndQueriesAreRedacted(t *testing.T) {
	rec := Record{
		Path: []byte("/a?page=2&api_key=K&X-Amz-Signature=S&client%5Fsecret=T&q=" + aJWT + "#access_token=U"),
		RequestHeaders: fields2("Authorization", "Bearer x", "COOKIE", "a=b", "X-Api-Key", "k", "X-Internal-Token", "t", "x-forwarded-client-cert", "By=spiffe",
			"Proxy-Authorization", "p", "X-My", "m", "Referer", "http://x/?token=T&a=1", "Accept", "*/*", "x-debug", "jwt "+aJWT),
		ResponseHeaders: fields2("Set-Cookie", "s=1", "Location", "/cb?code=1&session=S"),
	}
	mustRedactor(t, RedactConfig{Headers: []string{"X-My"}}).Apply(&rec)
	if got, want := string(rec.Path), "/a?page=2&api_key=[redacted]&X-Amz-Signature=[redacted]&client%5Fsecret=[redacted]&q=[redacted]#access_token=[redacted]"; got != want {
		t.Errorf("path: got %s, want %s", got, want)
	}
	want := map[string]string{"Referer": "http://x/?token=[redacted]&a=1", "Accept": "*/*", "x-debug": "jwt [redacted]", "Location": "/cb?code=1&session=[redacted]"}
	for _, h := range append(rec.RequestHeaders, rec.ResponseHeaders...) {
		w := want[string(h.Name)]
		if w == "" {
			w = Redacted
		}
		if string(h.Value) != w {
			t.Errorf("%s: got %s, want %s", h.Name, h.Value, w)
		}
	}
	if rec.Redacted == 0 {
		t.Error("nothing was counted")
	}
}

// What the caller says of itself is in columns of its own: they are searched like the rest.
func TestWhatAClientSaysOfItselfIsRedacted(t *testing.T) {
	for _, connections := range []bool{false, true} {
		r := mustRedactor(t, RedactConfig{Patterns: []string{"email"}})
		r.bytes = connections
		in := func() []byte { return []byte("h2," + aJWT + ",a@b.example") }
		rec := Record{ServerName: in(), ALPN: in(), Peer: in(), Method: in(), RequestID: in()}
		r.Apply(&rec)
		for i, got := range [][]byte{rec.ServerName, rec.ALPN, rec.Peer, rec.Method, rec.RequestID} {
			if string(got) != "h2,[redacted],[redacted]" {
				t.Errorf("connections %v, field %d: got %q", connections, i, got)
			}
		}
		if rec.Redacted != 10 {
			t.Errorf("connections %v: %d counted", connections, rec.Redacted)
		}
	}
}

// Where a body was cut, what an expression may have begun to match is not in it.
func TestTheEndOfWhatWasCutIsHeldBack(t *testing.T) {
	line := strings.Repeat("x ", 1000)
	for _, c := range []struct {
		pattern, in, want string
	}{
		{"regex:begin[a-z ]+end", line + "begin " + strings.Repeat("secret ", 140), line[:1962]},
		{"regex:begin[a-z ]+end", line + "\nbegin " + strings.Repeat("secret ", 100), line + "\n"},
		{"regex:begin.+end", line + "\n" + strings.Repeat("secret ", 50) + "\n" + strings.Repeat("b ", 100), line + "\n" + strings.Repeat("secret ", 50) + "\n"},
		{"regex:(?s)begin.+end", line + "\nbegin\n", line[:len(line)+7-1024]},
		{"regex:begin\\s+end", line + "\nbegin\n", line[:len(line)+7-1024]},
		{"regex:begin\nend", line + "\nbegin\n", line[:len(line)+7-1024]},
		{"regex:begin", "begin " + line + "begin " + line[:1020], Redacted + " " + line + Redacted},
		{"regex:begin", "short", ""},
	} {
		rec := Record{ResponseBody: []byte(c.in), ResponseTruncated: true}
		mustRedactor(t, RedactConfig{Patterns: []string{c.pattern}}).Apply(&rec)
		if got := string(rec.ResponseBody); got != c.want {
			t.Errorf("%s: got %d bytes, %.40q…%q, want %d, %.40q…%q", c.pattern, len(got), got, got[max(0, len(got)-20):], len(c.want), c.want, c.want[max(0, len(c.want)-20):])
		}
	}
}

// T4: of a thousand planted secrets none is left in any form that is written.
func TestNoPlantedSecretIsLeft(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	r := mustRedactor(t, RedactConfig{Headers: []string{"x-tenant"}, JSONPaths: []string{"$.deep[*].pan"}, Patterns: []string{"payment-card", "email"}})
	names := []string{"password", "Api-Key", "access_token", "clientSecret", "SESSION_ID", "X-Auth-Token", "cvv"}
	for i := range 1000 {
		canary := fmt.Sprintf("canary%08x", rnd.Uint32())
		rec := Record{Path: []byte("/x"), Method: []byte("POST")}
		name := names[rnd.IntN(len(names))]
		switch i % 10 {
		case 0:
			rec.RequestHeaders = fields2([]string{"Authorization", "cookie", "X-Tenant", "Set-Cookie", "X-Api-Key"}[rnd.IntN(5)], "a "+canary)
		case 1:
			rec.Path = []byte("/p?a=1&" + name + "=" + canary)
		case 2:
			rec.RequestBody = fmt.Appendf(nil, `{"a":{"%s":["%s",{"b":"%s"}]}}`, name, canary, canary)
		case 3:
			rec.RequestHeaders = fields2("content-type", "application/x-www-form-urlencoded")
			rec.RequestBody = []byte("x=1&" + name + "=" + canary)
		case 4:
			rec.ResponseBody = fmt.Appendf(nil, `{"deep":[{"pan":"%s"}]}`, canary)
		case 5:
			rec.ResponseBody = []byte("mail " + canary + "@example.org ok")
		case 6:
			rec.ResponseHeaders = fields2("Content-Encoding", "gzip")
			rec.ResponseBody = []byte(zipped(`{"` + name + `":"` + canary + `"}`))
		case 7:
			rec.RequestBody = fmt.Appendf(nil, `{"%s":"%s`, name, canary) // cut
		case 8:
			rec.RequestHeaders = fields2("content-encoding", "zstd")
			rec.RequestBody = []byte(canary)
		case 9:
			rec.ResponseHeaders = fields2("Location", "https://x/?"+name+"="+canary)
		}
		r.Apply(&rec)
		for form, b := range map[string][]byte{"record": rec.Append(nil), "JSON": rec.AppendJSON(nil)} {
			if bytes.Contains(b, []byte(canary)) {
				t.Fatalf("kind %d, name %s: left in the %s: %q", i%10, name, form, b)
			}
		}
	}
}

func TestBadRedactionSettingsAreNamed(t *testing.T) {
	_, err := NewRedactor(RedactConfig{Headers: []string{"a b"}, JSONPaths: []string{"card", "$", "$.a[x]", "$.a[1", "$..", "$.a."}, Patterns: []string{"pan", "regex:(", "regex:a*"}})
	for _, want := range []string{`headers[0]: "a b"`, "jsonPaths[0]", "jsonPaths[1]", "jsonPaths[2]", "jsonPaths[3]", "jsonPaths[4]", "jsonPaths[5]", `patterns[0]: unknown pattern "pan" (known: email`, "patterns[1]", "patterns[2]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %s", err, want)
		}
	}
}

func FuzzRedactJSON(f *testing.F) {
	for _, s := range []string{`{"a":{"password":"x"}}`, `[1,2,{"token":[{}]}]`, `{"a":"\"`, `{"a" 1}`, `{"x":1}{"x":2}`, strings.Repeat("[", 300)} {
		f.Add([]byte(s))
	}
	r := mustRedactor(f, RedactConfig{JSONPaths: []string{"$..x", "$.a[0].b"}})
	f.Fuzz(func(t *testing.T, in []byte) {
		keep := bytes.Clone(in)
		out, n, bad := redactJSON(in, r.paths)
		if !bytes.Equal(in, keep) {
			t.Fatal("the input was written to")
		}
		if json.Valid(in) && (bad || !json.Valid(out)) {
			t.Fatalf("%q became %q (bad %v)", in, out, bad)
		}
		if n == 0 && !bad && !bytes.Equal(in, out) {
			t.Fatalf("%q became %q though nothing was hidden", in, out)
		}
		var v any
		if json.Unmarshal(out, &v) == nil {
			walk(t, "", v)
		}
	})
}

func walk(t *testing.T, name string, v any) {
	if (isSecretName(name) || name == "x") && v != Redacted {
		t.Fatalf("%q kept %v", name, v)
	}
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			walk(t, k, e)
		}
	case []any:
		for _, e := range v {
			walk(t, "", e)
		}
	}
}

// Half of a number is none to a detector: the end of a body that was cut is held back.
func TestTheEndOfABodyThatWasCutIsHeldBack(t *testing.T) {
	text := strings.Repeat("x ", 40) + "pay " + aCard
	for _, cut := range []bool{false, true} {
		for n := len(text) - len(aCard); n <= len(text); n++ {
			rec := Record{ResponseBody: []byte(text[:n]), ResponseTruncated: cut, RequestBody: []byte(text[:n]), RequestTruncated: cut}
			mustRedactor(t, RedactConfig{Patterns: []string{"payment-card"}}).Apply(&rec)
			for _, b := range [][]byte{rec.RequestBody, rec.ResponseBody} {
				if cut && bytes.ContainsAny(b, "41") {
					t.Errorf("cut at %d: got %q", n, b)
				}
				if !cut && n < len(text) && string(b) != text[:n] {
					t.Errorf("whole: got %q, want %q", b, text[:n])
				}
			}
		}
	}
	rec := Record{ResponseBody: []byte(text), ResponseTruncated: true}
	if mustRedactor(t, RedactConfig{}).Apply(&rec); string(rec.ResponseBody) != text {
		t.Errorf("without patterns: got %q", rec.ResponseBody)
	}
}
