// SPDX-License-Identifier: Apache-2.0

package statefulsession

import (
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Messages by hand, field by field.
func text(num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), s)
}

func numberOf(num protowire.Number, n uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), n)
}

func in(num protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), all(parts...))
}

func all(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func state(url string, fields ...[]byte) []byte {
	return in(1, text(1, "state"), in(2, text(1, url), in(2, fields...)))
}

func byCookies(more ...[]byte) []byte {
	return state(cookieURL, in(1, append([][]byte{text(1, "sid")}, more...)...))
}

const now = 1_800_000_000 // seconds

func made(t testing.TB, message []byte) *session {
	t.Helper()
	c, err := parse(message)
	if err != nil {
		t.Fatal(err)
	}
	f := Spec().New(c, filter.Worker{Name: "session"}).(*session)
	f.wall = func() int64 { return now * 1e9 }
	return f
}

func asked(path string, headers ...string) *filter.Exchange {
	x := &filter.Exchange{Slots: make([]any, 1)}
	x.Request.SetPath([]byte(path))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		x.Request.AddString(name, value)
	}
	return x
}

func encoded(parts ...[]byte) string { return base64.StdEncoding.EncodeToString(all(parts...)) }

var here, there = netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:8080")

func TestSessionsAreReadFromRequests(t *testing.T) {
	mine := encoded(text(1, "10.0.0.1:80"))
	for _, tt := range []struct {
		name    string
		config  []byte
		path    string
		headers []string
		want    string // address, "" for none
	}{
		{"cookie", byCookies(), "/", []string{"cookie: a=b; sid=" + mine}, "10.0.0.1:80"},
		{"cookie in quotes", byCookies(), "/", []string{"cookie: a=b", `cookie: sid="` + mine + `"; c=d`}, "10.0.0.1:80"},
		{"another cookie", byCookies(), "/", []string{"cookie: xsid=" + mine + "; sidx=" + mine}, ""},
		{"an address alone", byCookies(), "/", []string{"cookie: sid=" + encoded([]byte("10.0.0.1:80"))}, "10.0.0.1:80"},
		{"IPv6", byCookies(), "/", []string{"cookie: sid=" + encoded(text(1, "[2001:db8::1]:80"))}, "[2001:db8::1]:80"},
		{"not expired", byCookies(), "/", []string{"cookie: sid=" + encoded(text(1, "10.0.0.1:80"), numberOf(2, now))}, "10.0.0.1:80"},
		{"expired", byCookies(), "/", []string{"cookie: sid=" + encoded(text(1, "10.0.0.1:80"), numberOf(2, now-1))}, ""},
		{"no base64", byCookies(), "/", []string{"cookie: sid=!!!!"}, ""},
		{"no address", byCookies(), "/", []string{"cookie: sid=" + encoded(text(1, "example.com:80"))}, ""},
		{"an address of another kind", byCookies(), "/", []string{"cookie: sid=" + encoded(text(1, "10.0.0.1:080"))}, ""},
		{"no port", byCookies(), "/", []string{"cookie: sid=" + encoded(text(1, "10.0.0.1:65536"))}, ""},
		{"a zone", byCookies(), "/", []string{"cookie: sid=" + encoded(text(1, "[fe80::1%eth0]:80"))}, ""},
		{"too long", byCookies(), "/", []string{"cookie: sid=" + strings.Repeat("A", 300)}, ""},
		{"empty", byCookies(), "/", []string{"cookie: sid="}, ""},
		{"path", byCookies(text(3, "/app")), "/app", []string{"cookie: sid=" + mine}, "10.0.0.1:80"},
		{"below the path", byCookies(text(3, "/app")), "/app/x", []string{"cookie: sid=" + mine}, "10.0.0.1:80"},
		{"path with a query", byCookies(text(3, "/app")), "/app?x", []string{"cookie: sid=" + mine}, "10.0.0.1:80"},
		{"beside the path", byCookies(text(3, "/app")), "/apple", []string{"cookie: sid=" + mine}, ""},
		{"above a folder", byCookies(text(3, "/app/")), "/app", []string{"cookie: sid=" + mine}, ""},
		{"header", state(headerURL, text(1, "X-Session")), "/", []string{"x-session: " + encoded([]byte("10.0.0.1:80"))}, "10.0.0.1:80"},
		{"no header", state(headerURL, text(1, "X-Session")), "/", nil, ""},
		{"no state", nil, "/", []string{"cookie: sid=" + mine}, ""},
	} {
		f, x := made(t, tt.config), asked(tt.path, tt.headers...)
		if v := f.OnRequest(x); v != filter.Next {
			t.Errorf("%s: verdict %d", tt.name, v)
		}
		got := ""
		if x.Override.Address.IsValid() {
			got = x.Override.Address.String()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestClientsAreToldWhereTheirSessionIs(t *testing.T) {
	ttl := byCookies(in(2, numberOf(1, 120)), text(3, "/app"), in(4, text(1, "SameSite"), text(2, "Strict")), in(4, text(1, "Secure")))
	mine := "cookie: sid=" + encoded(text(1, here.String()))
	for _, tt := range []struct {
		name    string
		config  []byte
		request string
		from    netip.AddrPort // zero: no endpoint
		header  string
		want    string
	}{
		{"a new session", byCookies(), "", here, "set-cookie", `sid="` + encoded(text(1, "10.0.0.1:80")) + `"; HttpOnly`},
		{"with a time", ttl, "", here, "set-cookie",
			`sid="` + encoded(text(1, "10.0.0.1:80"), numberOf(2, now+120)) + `"; Max-Age=120; Path=/app; SameSite=Strict; Secure; HttpOnly`},
		{"the same endpoint", byCookies(), mine, here, "set-cookie", ""},
		{"another endpoint", byCookies(), mine, there, "set-cookie", `sid="` + encoded(text(1, "10.0.0.2:8080")) + `"; HttpOnly`},
		{"none", byCookies(), mine, netip.AddrPort{}, "set-cookie", ""},
		{"a new session by header", state(headerURL, text(1, "X-Session")), "", there, "x-session", encoded([]byte("10.0.0.2:8080"))},
		{"the same by header", state(headerURL, text(1, "X-Session")), "x-session: " + encoded([]byte("10.0.0.1:80")), here, "x-session", ""},
		{"no state", nil, "", here, "set-cookie", ""},
	} {
		f, x := made(t, tt.config), asked("/app", tt.request)
		f.OnRequest(x)
		x.Record.HasUpstream, x.Record.UpstreamAddr = tt.from.IsValid(), tt.from
		f.OnResponse(x)
		if got := string(x.Response.Get(tt.header)); got != tt.want {
			t.Errorf("%s: %s is %q, want %q", tt.name, tt.header, got, tt.want)
		}
	}
}

// What Envoy 1.40 has sent for these endpoints and times.
func TestCookiesAreEnvoysToTheByte(t *testing.T) {
	for _, tt := range []struct {
		expires int64
		want    string
	}{{0, "Cg8xMjcuMC4wLjE6MjEwOTE="}, {1796032292, "Cg8xMjcuMC4wLjE6MjEwOTEQpI612AY="}} {
		if got := encoded(appendCookie(nil, netip.MustParseAddrPort("127.0.0.1:21091"), tt.expires)); got != tt.want {
			t.Errorf("%d: %s, want %s", tt.expires, got, tt.want)
		}
	}
}

func TestRoutesHaveSessionsOfTheirOwnOrNone(t *testing.T) {
	for _, tt := range []struct {
		message []byte
		want    bool
	}{
		{numberOf(1, 1), false},
		{in(2, state(headerURL, text(1, "x-session")), numberOf(2, 1), numberOf(4, 404)), true},
	} {
		c, err := RouteSpec().Parse(tt.message)
		if err != nil {
			t.Fatal(err)
		}
		f, x := made(t, byCookies()), asked("/", "x-session: "+encoded([]byte("10.0.0.1:80")), "cookie: sid="+encoded(text(1, "10.0.0.2:80")))
		x.Route = &resource.Route{FilterConfig: map[string]any{"session": c}}
		f.OnRequest(x)
		want := filter.Override{}
		if tt.want {
			want = filter.Override{Address: here, Strict: true, NotFound: 404}
		}
		if x.Override != want {
			t.Errorf("%+v, want %+v", x.Override, want)
		}
	}
}

func TestWhatOfARequestNamesItsEndpointIsSaid(t *testing.T) {
	for _, tt := range []struct {
		spec    filter.Spec
		message []byte
		path    string
		want    string
		strict  bool
	}{
		{Spec(), append(state(headerURL, text(1, "X-Session")), numberOf(2, 1)...), "/", "the header x-session", true},
		{RouteSpec(), in(2, state(headerURL, text(1, "x-session"))), "/", "the header x-session", false},
		{RouteSpec(), numberOf(1, 1), "/", "", false},
	} {
		c, err := tt.spec.Parse(tt.message)
		if err != nil {
			t.Fatal(err)
		}
		if by, strict := c.(filter.Overrider).Overrides([]byte(tt.path)); by != tt.want || strict != tt.strict {
			t.Errorf("%q, strict %t; want %q, %t", by, strict, tt.want, tt.strict)
		}
	}
	c, err := parseConfig(byCookies())
	if err != nil {
		t.Fatal(err)
	}
	c.path = ""
	for path, want := range map[string]string{"/": "the cookie sid", "/else": "the cookie sid"} {
		if by, _ := c.Overrides([]byte(path)); by != want {
			t.Errorf("of %s %q, want %q", path, by, want)
		}
	}
	c.path = "/shop"
	if by, _ := c.Overrides([]byte("/else")); by != "" {
		t.Errorf("beyond its path it is %q", by)
	}
}

func TestBadSettingsAreRefusedByField(t *testing.T) {
	for _, tt := range []struct {
		message []byte
		want    string
	}{
		{state("type.googleapis.com/x.Envelope"), `session_state: typed_config: unsupported type "type.googleapis.com/x.Envelope"`},
		{state(cookieURL, in(1)), "session_state: typed_config.cookie: name: is empty"},
		{state(cookieURL), "session_state: typed_config.cookie: name: is empty"},
		{state(cookieURL, in(1, text(1, "a b"))), `name: "a b" is no cookie name`},
		{byCookies(text(3, "/;x")), `path: "/;x" is no cookie path`},
		{byCookies(in(2, numberOf(1, 1<<63))), "ttl: must be between 0s and 100 years"},
		{byCookies(in(4, text(1, "A;B"))), "attributes:"},
		{byCookies(in(4, text(1, "A"), text(2, "x\r\ny"))), "attributes:"},
		{byCookies(text(9, "x")), "field 9: not supported"},
		{state(headerURL), `name: "" is no header name`},
		{state(headerURL, text(1, "a:b")), `name: "a:b" is no header name`},
		{state(headerURL, text(1, "Content-Length")), `name: "content-length" belongs to the connection`},
		{numberOf(4, 700), "status_on_strict_destination_not_found: must be between 200 and 599, is 700"},
		{text(7, "x"), "field 7: not supported"},
		{[]byte{0xff}, "not a message"},
	} {
		if _, err := parse(tt.message); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
	if _, err := parseRoute(nil); err == nil {
		t.Error("a route without settings is taken")
	}
}

func TestSessionsAllocateNothing(t *testing.T) {
	f := made(t, byCookies(in(2, numberOf(1, 120))))
	x := asked("/", "cookie: sid="+encoded(text(1, here.String()), numberOf(2, now)))
	x.Record.HasUpstream, x.Record.UpstreamAddr = true, there
	if n := testing.AllocsPerRun(1000, func() {
		f.OnRequest(x)
		x.Response.Reset()
		f.OnResponse(x)
	}); n != 0 || x.Override.Address != here {
		t.Errorf("%v allocations, %v", n, x.Override)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(encoded(text(1, "10.0.0.1:80"), numberOf(2, now))))
	f.Add([]byte(encoded([]byte("[::1]:80"))))
	s := &session{wall: func() int64 { return now * 1e9 }}
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, k := range []kind{byCookie, byHeader} {
			a, ok := s.decode(&Config{kind: k}, value)
			if !ok {
				continue
			}
			again, err := netip.ParseAddrPort(a.String())
			if err != nil || again != a {
				t.Errorf("%q is read as %v", value, a)
			}
		}
	})
}
