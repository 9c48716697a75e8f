// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestEveryKnownNameIsFoundInAnyCase(t *testing.T) {
	for id := Name(1); id < nameCount; id++ {
		s := id.String()
		if s == "" || s != strings.ToLower(s) || !ValidName([]byte(s)) {
			t.Errorf("name %d is %q", id, s)
		}
		for _, v := range []string{s, strings.ToUpper(s), strings.ToUpper(s[:1]) + s[1:]} {
			if got := Lookup([]byte(v)); got != id {
				t.Errorf("Lookup(%q) = %d, want %d", v, got, id)
			}
			if got := LookupToken([]byte(v)); got != id {
				t.Errorf("LookupToken(%q) = %d, want %d", v, got, id)
			}
			if got := LookupString(v); got != id {
				t.Errorf("LookupString(%q) = %d, want %d", v, got, id)
			}
		}
		// One byte other at any place, or one more or less, is another name.
		for i := range len(s) {
			for _, other := range []string{s[:i] + "~" + s[i+1:], s[:i] + s[i+1:], s[:i] + "x" + s[i:]} {
				if LookupToken([]byte(other)) == id || Lookup([]byte(other)) == id || LookupString(other) == id {
					t.Errorf("%q is taken for %q", other, s)
				}
			}
		}
	}
	for _, s := range []string{"", "a", "x-custom"} {
		if Lookup([]byte(s)) != NameOther || LookupToken([]byte(s)) != NameOther || LookupString(s) != NameOther {
			t.Errorf("%q is known", s)
		}
	}
	if NameOther.String() != "" || nameRemoved.String() != "" {
		t.Error("what is no known name has a form")
	}
}

func TestTokensThatDifferInTheCaseBitAreTheSameLetter(t *testing.T) {
	// What LookupToken rests on: no token byte maps onto a byte of a known name
	// but the letter itself.
	used := map[byte]bool{}
	for id := Name(1); id < nameCount; id++ {
		for _, c := range []byte(id.String()) {
			used[c] = true
		}
	}
	for c := range 256 {
		b := byte(c)
		isLetter := b|0x20 >= 'a' && b|0x20 <= 'z'
		if IsToken(b) && used[b|0x20] && b != b|0x20 && !isLetter {
			t.Errorf("token byte %q is taken for %q", b, b|0x20)
		}
	}
}

func TestKnownNamesDoNotShareAPlaceInTheTable(t *testing.T) {
	places := map[uint32]string{}
	for id := Name(1); id < nameCount; id++ {
		s := id.String()
		at := hashName(s[len(s)/2], s[len(s)*3/4], len(s))
		if other, taken := places[at]; taken {
			t.Errorf("%q and %q share a place: hashName needs other factors", other, s)
		}
		places[at] = s
	}
}

func TestIndexControlAndIndexNotTargetAgreeWithTheTables(t *testing.T) {
	slow := func(b []byte, from int, class uint8) int {
		for i := from; i < len(b); i++ {
			if classes[b[i]]&class == 0 {
				return i
			}
		}
		return len(b)
	}
	// Every byte at every place of a word, between good ones.
	for c := range 256 {
		for n := range 20 {
			b := []byte(strings.Repeat("a", 20))
			b[n] = byte(c)
			if got, want := IndexControl(b, 0), slow(b, 0, classValue); got != want {
				t.Fatalf("IndexControl(%q) = %d, want %d", b, got, want)
			}
			if got, want := IndexNotTarget(b, 0), slow(b, 0, classTarget); got != want {
				t.Fatalf("IndexNotTarget(%q) = %d, want %d", b, got, want)
			}
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	palette := []byte("aaaaaaaaaaaaaaaa \t\r\n\x00\x1f\x20\x21#\x7e\x7f\x80\xff")
	for range 20000 {
		b := make([]byte, r.IntN(40))
		for i := range b {
			b[i] = palette[r.IntN(len(palette))]
		}
		from := r.IntN(len(b) + 1)
		if got, want := IndexControl(b, from), slow(b, from, classValue); got != want {
			t.Fatalf("IndexControl(%q, %d) = %d, want %d", b, from, got, want)
		}
		if got, want := IndexNotTarget(b, from), slow(b, from, classTarget); got != want {
			t.Fatalf("IndexNotTarget(%q, %d) = %d, want %d", b, from, got, want)
		}
	}
}

func TestAuthoritiesAreHostAndPort(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "a.b-c_d~e": true, "a:80": true, "a:0": true, "a:65535": true, "127.0.0.1:1": true, "[::1]": true,
		"[::1]:80": true, "[2001:db8::1]": true, "[::ffff:1.2.3.4]:8": true, "%41b": true, "a!$&'()*+;=": true, "a.": true,
		"": false, ":": false, ":80": false, "a:": false, "a:65536": false, "a:123456": false, "a:-1": false, "a:8x": false,
		"a:80:80": false, "::1": false, "[]": false, "[:]": false, "[::1": false, "::1]": false, "[::1]x": false, "[::1]:": false,
		"[1.2.3.4]": false, "[v1.x]": false, "[::1%25eth0]": false, "[1:2:3:4:5:6:7:8:9:a]": false,
		"u@a": false, "a/b": false, "a?b": false, "a#b": false, "a b": false, "a,b": false, "a\\b": false, "a\x00": false,
		"%": false, "%4": false, "%4g": false, "\xc3\xa9": false, "a\"": false, "<a>": false,
	} {
		if got := ValidAuthority([]byte(s)); got != want {
			t.Errorf("ValidAuthority(%q) = %v, want %v", s, got, want)
		}
	}
}

func TestValidatorsAcceptWhatTheGrammarHas(t *testing.T) {
	for s, want := range map[string]bool{"a": true, "X-Y_z!": true, "": false, "a b": false, "a:": false, "\xc3": false} {
		if got := ValidName([]byte(s)); got != want {
			t.Errorf("ValidName(%q) = %v, want %v", s, got, want)
		}
	}
	for s, want := range map[string]bool{"": true, "a\tb \xff": true, "a\rb": false, "a\nb": false, "\x00": false, "\x7f": false} {
		if got := ValidValue([]byte(s)); got != want {
			t.Errorf("ValidValue(%q) = %v, want %v", s, got, want)
		}
	}
	for s, want := range map[string]bool{"/": true, "*": true, "/a?b=\"{}|": true, "": false, "/a b": false, "/#": false, "/\x80": false} {
		if got := ValidTarget([]byte(s)); got != want {
			t.Errorf("ValidTarget(%q) = %v, want %v", s, got, want)
		}
	}
}

func TestFieldsOfTrustCannotBeNominatedNorTrail(t *testing.T) {
	for _, s := range []string{
		"Host", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Cookie", "Set-Cookie", "Authorization", "X-Forwarded-For",
		"X-Forwarded-Anything", "x-envoy-anything", "X-B3-Other", "traceparent", "X-Request-Id", "X-Real-IP", "Forwarded", "Cache-Control",
		"Sec-WebSocket-Key", "Proxy-Authorization", "X-Outrigger-Identity", "Via", "TE", "Max-Forwards",
		// As an application reads them that has variables for fields.
		"X_Forwarded_Client_Cert", "x-forwarded.client_cert", "x_envoy_internal", "Transfer_Encoding", "set_cookie", "X_Real_IP", "content_length",
	} {
		if MayNominate([]byte(s), Lookup([]byte(s))) {
			t.Errorf("Connection may nominate %s", s)
		}
		if MayTrail([]byte(s), Lookup([]byte(s))) {
			t.Errorf("%s may trail", s)
		}
	}
	for _, s := range []string{"If-None-Match", "Expires"} {
		if MayTrail([]byte(s), NameOther) {
			t.Errorf("%s may trail", s)
		}
	}
	for _, s := range []string{"X-Hop", "Foo", "Content", "X-Forwarded-", "grpc-status", "my_field", "x_hop"} {
		if !MayNominate([]byte(s), NameOther) || !MayTrail([]byte(s), NameOther) {
			t.Errorf("%s may not be nominated or may not trail", s)
		}
	}
}
