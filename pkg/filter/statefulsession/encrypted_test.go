// SPDX-License-Identifier: Apache-2.0

package statefulsession

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// keyFile writes a key that is n times the same byte.
func keyFile(t testing.TB, b byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(b)), keyBytes))) + "\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func sealedBy(t testing.TB, json string) []byte {
	t.Helper()
	var s structpb.Struct
	if err := s.UnmarshalJSON([]byte(json)); err != nil {
		t.Fatal(err)
	}
	value, err := proto.Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	return state(typedStructURL, text(1, EncryptedURL), in(2, value))
}

func sealedCookie(t testing.TB, keys ...string) []byte {
	t.Helper()
	return sealedBy(t, fmt.Sprintf(`{"cookie": {"name": "sid", "ttl": "1h", "path": "/", "attributes": {"Secure": ""}}, "keyFiles": ["%s"]}`, strings.Join(keys, `", "`)))
}

// told is what the filter tells a client that has been at an endpoint.
func told(f *session, at netip.AddrPort, header string, request ...string) string {
	x := asked("/", request...)
	f.OnRequest(x)
	x.Record.HasUpstream, x.Record.UpstreamAddr = true, at
	f.OnResponse(x)
	return string(x.Response.Get(header))
}

func cookieOf(setCookie string) string {
	v, _, _ := strings.Cut(setCookie, ";")
	return "cookie: " + v
}

func TestEncryptedSessionsLeadBackAndSayNothing(t *testing.T) {
	one, two, three := keyFile(t, 1), keyFile(t, 2), keyFile(t, 3)
	f := made(t, sealedCookie(t, one))
	got := told(f, here, "set-cookie")
	if !strings.HasPrefix(got, `sid="`) || !strings.HasSuffix(got, `"; Max-Age=3600; Path=/; Secure; HttpOnly`) {
		t.Fatalf("the client is told %s", got)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Trim(strings.TrimPrefix(cookieOf(got), "cookie: sid="), `"`))
	if err != nil || strings.Contains(string(raw), "10.0.0") {
		t.Errorf("the value is %q, %v", raw, err)
	}
	if other := told(f, netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:65535"), "set-cookie"); len(other) != len(got) {
		t.Errorf("the length tells addresses apart: %d and %d", len(other), len(got))
	}
	if told(f, here, "set-cookie") == got {
		t.Error("two values are the same")
	}
	at := func(f *session, headers ...string) string {
		x := asked("/", headers...)
		f.OnRequest(x)
		if !x.Override.Address.IsValid() {
			return ""
		}
		return x.Override.Address.String()
	}
	cookie := cookieOf(got)
	both, late, gone := made(t, sealedCookie(t, two, one)), made(t, sealedCookie(t, one)), made(t, sealedCookie(t, three, two))
	late.wall = func() int64 { return (now + 3601) * 1e9 }
	renamed := made(t, sealedBy(t, fmt.Sprintf(`{"cookie": {"name": "sid2"}, "keyFiles": ["%s"]}`, one)))
	for _, tt := range []struct {
		name, header string
		f            *session
		want         string
	}{
		{"the value", cookie, f, here.String()},
		{"by the old key", cookie, both, here.String()},
		{"by a key that has gone", cookie, gone, ""},
		{"expired", cookie, late, ""},
		{"under another name", strings.Replace(cookie, "sid", "sid2", 1), renamed, ""},
		{"changed", strings.Replace(cookie, cookie[40:42], "AB", 1), f, ""},
		{"cut", cookie[:len(cookie)-3] + `"`, f, ""},
		{"plain", "cookie: sid=" + encoded(text(1, here.String())), f, ""},
		{"at a filter that takes plain ones", cookie, made(t, byCookies()), ""},
	} {
		if got := at(tt.f, tt.header); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := told(f, here, "set-cookie", cookie); got != "" {
		t.Errorf("a session that is at its endpoint is told again: %s", got)
	}
	renewed := told(both, here, "set-cookie", cookie)
	if renewed == "" || at(gone, cookieOf(renewed)) != here.String() {
		t.Errorf("a session of the old key is not renewed by the new one: %q", renewed)
	}
	if got := told(f, there, "set-cookie", "cookie: sid=bad"); at(f, cookieOf(got)) != there.String() {
		t.Errorf("after a bad value the client is told %q", got)
	}
}

func TestEncryptedSessionsByHeader(t *testing.T) {
	f := made(t, sealedBy(t, fmt.Sprintf(`{"header": "X-Session", "keyFiles": ["%s"]}`, keyFile(t, 1))))
	value := told(f, there, "x-session")
	x := asked("/", "x-session: "+value)
	if f.OnRequest(x); x.Override.Address != there || !x.Override.Returns {
		t.Errorf("%q leads to %+v", value, x.Override)
	}
}

func TestAFallbackMovesNoSession(t *testing.T) {
	f, x := made(t, byCookies()), asked("/")
	f.OnRequest(x)
	x.Record.HasUpstream, x.Record.UpstreamAddr, x.FellBack = true, here, true
	if v := f.OnResponse(x); v != filter.Next || x.Response.Get("set-cookie") != nil {
		t.Errorf("the client is told %q", x.Response.Get("set-cookie"))
	}
}

func TestBadEncryptedSessionsAreRefusedByField(t *testing.T) {
	one := keyFile(t, 1)
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("c2VjcmV0"), 0o600); err != nil {
		t.Fatal(err)
	}
	for json, want := range map[string]string{
		`{"keyFiles": ["` + one + `"]}`:                                 "value: want exactly one of cookie and header",
		`{"header": "a", "cookie": {"name": "b"}}`:                      "value: want exactly one of cookie and header",
		`{"header": "a"}`:                                               "value.keyFiles: want one file, or two",
		`{"header": "a", "keyFiles": ["1", "2", "3"]}`:                  "value.keyFiles: want one file, or two",
		`{"header": "a", "keyFiles": ["/does/not/exist"]}`:              "value.keyFiles: [0]: read key:",
		`{"header": "a", "keyFiles": ["` + one + `", "` + short + `"]}`: "value.keyFiles: [1]: " + short + ": want the base64 of 32 random bytes",
		`{"header": "a b", "keyFiles": []}`:                             `"a b" is no header name`,
		`{"header": "Transfer-Encoding", "keySecret": {"name": "k"}}`:   `"transfer-encoding" belongs to the connection`,
		`{"header": "host", "keySecret": {"name": "k"}}`:                `"host" belongs to the connection or says where`,
		`{"cookie": {}, "keyFiles": ["` + one + `"]}`:                   `value.cookie: name: "" is no cookie name`,
		`{"cookie": {"name": "a", "ttl": "x"}}`:                         "value.cookie: ttl: want a duration",
		`{"cookie": {"name": "a", "path": "/;"}}`:                       "value.cookie: path:",
		`{"cookie": {"name": "a", "attributes": {"A;B": ""}}}`:          "value.cookie: attributes:",
		`{"cookie": {"name": "a", "secure": true}}`:                     "value.cookie: secure: not supported",
		`{"key": "x"}`: "value.key: not supported",
	} {
		_, err := parse(sealedBy(t, json))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: %v, want %q", json, err, want)
		}
	}
	if _, err := parse(state(typedStructURL, text(1, "x"))); err == nil || !strings.Contains(err.Error(), `type_url: unsupported type "x"`) {
		t.Errorf("%v", err)
	}
}

func TestEncryptedSessionsAllocateNothing(t *testing.T) {
	f := made(t, sealedCookie(t, keyFile(t, 1)))
	x := asked("/", cookieOf(told(f, here, "set-cookie")))
	x.Record.HasUpstream, x.Record.UpstreamAddr = true, there
	if n := testing.AllocsPerRun(1000, func() {
		f.OnRequest(x)
		x.Response.Reset()
		f.OnResponse(x)
	}); n != 0 || x.Override.Address != here {
		t.Errorf("%v allocations, %v", n, x.Override)
	}
}
