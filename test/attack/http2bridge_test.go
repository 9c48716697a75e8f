// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// evil is what must be nobody's request, field or response.
const evil = "evil"

// Requests that would be another one in HTTP/1.1, or that a backend could read in
// another way than the proxy (CVE-2019-18801, CVE-2023-27491, CVE-2019-9900,
// CVE-2026-33186, CVE-2023-45539; request tunnelling from HTTP/2).
var bridged = map[string][]string{
	"LF in a value":                   get("/", "x", "a\nGET /evil HTTP/1.1"),
	"CRLF in a value":                 get("/", "x", "a\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n"),
	"CR in a value":                   get("/", "x", "a\revil: b"),
	"NUL in a value":                  get("/", "x", "a\x00b"),
	"white space before a value":      get("/", "x", " a"),
	"white space behind a value":      get("/", "x", "a\t"),
	"CRLF in a name":                  get("/", "x: a\r\nevil", "b"),
	"colon in a name":                 get("/", "evil: x", "b"),
	"space in a name":                 get("/", "evil ", "b"),
	"NUL in a name":                   get("/", "evil\x00", "b"),
	"upper case in a name":            get("/", "Evil", "b"),
	"a name that is no ASCII":         get("/", "evil\xe2", "b"),
	"no name":                         get("/", "", "evil"),
	"a path without slash":            get("evil"),
	"a path that is a URL":            get("http://evil/"),
	"an empty path":                   get(""),
	"an asterisk with GET":            get("*"),
	"space in the path":               get("/evil HTTP/1.1"),
	"CRLF in the path":                get("/ HTTP/1.1\r\nevil: a\r\nx:"),
	"a fragment in the path":          get("/#evil"),
	"NUL in the path":                 get("/\x00evil"),
	"a method of two words":           {":method", "GET /evil HTTP/1.1\r\nx:", ":scheme", "http", ":authority", "a", ":path", "/"},
	"an empty method":                 {":method", "", ":scheme", "http", ":authority", "a", ":path", "/"},
	"CRLF in the authority":           {":method", "GET", ":scheme", "http", ":authority", "a\r\nevil: b", ":path", "/"},
	"userinfo in the authority":       {":method", "GET", ":scheme", "http", ":authority", "evil@a", ":path", "/"},
	"a path in the authority":         {":method", "GET", ":scheme", "http", ":authority", "a/evil", ":path", "/"},
	"an empty authority":              {":method", "GET", ":scheme", "http", ":authority", "", ":path", "/"},
	"no authority and no Host":        {":method", "GET", ":scheme", "http", ":path", "/"},
	"another Host":                    get("/", "host", "evil"),
	"another Host's port":             get("/", "host", "a:81"),
	"two Hosts":                       get("/", "host", "a", "host", "evil"),
	"CRLF in the scheme":              {":method", "GET", ":scheme", "http\r\nevil:", ":authority", "a", ":path", "/"},
	"another scheme":                  {":method", "GET", ":scheme", "HTTPS", ":authority", "a", ":path", "/"},
	"connection":                      get("/", "connection", "evil"),
	"transfer-encoding":               post("/", "transfer-encoding", "chunked"),
	"transfer-encoding, identity":     post("/", "transfer-encoding", "identity"),
	"keep-alive":                      get("/", "keep-alive", "1"),
	"proxy-connection":                get("/", "proxy-connection", "keep-alive"),
	"upgrade":                         get("/", "upgrade", "websocket"),
	"te":                              get("/", "te", "trailers, chunked"),
	"expect":                          get("/", "expect", "evil"),
	"two lengths":                     post("/", "content-length", "0", "content-length", "5"),
	"two equal lengths":               post("/", "content-length", "0", "content-length", "0"),
	"a signed length":                 post("/", "content-length", "+0"),
	"a list of lengths":               post("/", "content-length", "0, 0"),
	"an empty length":                 post("/", "content-length", ""),
	"a huge length":                   post("/", "content-length", "99999999999999999999"),
	"a length and no body":            post("/", "content-length", "5"),
	"a pseudo-header behind a header": {":method", "GET", ":scheme", "http", ":authority", "a", "x", "y", ":path", "/evil"},
	"a pseudo-header twice":           get("/", ":path", "/evil"),
	"an unknown pseudo-header":        append([]string{":evil", "x"}, get("/")...),
	"a status":                        append([]string{":status", "200"}, get("/")...),
	"no method":                       {":scheme", "http", ":authority", "a", ":path", "/"},
	"no scheme":                       {":method", "GET", ":authority", "a", ":path", "/"},
	"CONNECT with a path":             {":method", "CONNECT", ":scheme", "http", ":authority", "a:1", ":path", "/"},
	"TRACE with a body":               {":method", "TRACE", ":scheme", "http", ":authority", "a", ":path", "/", "content-length", "3"},
}

func TestNoRequestOfHTTP2BecomesAnotherOneInHTTP1(t *testing.T) {
	var rec recorder
	p := start(t, target{Upstream: hostile(t, rec.serve)})
	h := p.http2(false)
	for name, fields := range bridged {
		t.Run(name, func(t *testing.T) {
			rec.take()
			id := h.request(true, fields...)
			h.send()
			h.saw("its refusal", func() bool {
				_, reset := h.resets[id]
				return reset || strings.HasPrefix(h.status[id], "4")
			})
			// It is the stream that has ended: the connection goes on.
			good := h.request(true, get("/direct")...)
			h.send()
			h.saw("the answer to another", func() bool { return h.status[good] == "200" })
			if got := rec.take(); len(got) > 0 {
				t.Errorf("the upstream was sent %q", got)
			}
		})
	}
	if n := p.stat("outrigger.http2.flood_total"); n != 0 {
		t.Errorf("%d floods", n)
	}
}

// Bodies that do not keep to their length, and trailers that say what only a head
// may, are no way either.
func TestNoBodyOfHTTP2BecomesAnotherRequestInHTTP1(t *testing.T) {
	const smuggled = "0\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n"
	for name, send := range map[string]func(h *http2Peer, id uint32){
		"more than the length": func(h *http2Peer, id uint32) { _ = h.f.WriteData(id, true, []byte("12345"+smuggled)) },
		"more than the length, in two": func(h *http2Peer, id uint32) {
			_ = h.f.WriteData(id, false, []byte("12345"))
			_ = h.f.WriteData(id, true, []byte(smuggled))
		},
		"less than the length": func(h *http2Peer, id uint32) { _ = h.f.WriteData(id, true, []byte("1")) },
		"trailers too early":   func(h *http2Peer, id uint32) { trailers(h, id, "x", "y") },
		"a length as trailer": func(h *http2Peer, id uint32) {
			_ = h.f.WriteData(id, false, []byte("12345"))
			trailers(h, id, "content-length", "0", "content-length", "9")
		},
		"a pseudo-header as trailer": func(h *http2Peer, id uint32) {
			_ = h.f.WriteData(id, false, []byte("12345"))
			trailers(h, id, ":path", "/evil")
		},
		"a coding as trailer": func(h *http2Peer, id uint32) {
			_ = h.f.WriteData(id, false, []byte("12345"))
			trailers(h, id, "transfer-encoding", "chunked")
		},
		"CRLF in a trailer": func(h *http2Peer, id uint32) {
			_ = h.f.WriteData(id, false, []byte("12345"))
			trailers(h, id, "x", "y\r\nevil: z")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var rec recorder
			p := start(t, target{Upstream: hostile(t, rec.serve)})
			h := p.http2(false)
			id := h.request(false, post("/", "content-length", "5")...)
			send(h, id)
			h.send()
			h.saw("the end of it", func() bool { _, reset := h.resets[id]; return reset })
			good := h.request(true, get("/x")...)
			h.send()
			h.saw("the answer to another", func() bool { return h.status[good] == "200" })
			for _, got := range rec.take() {
				if strings.Contains(fmt.Sprint(got), evil) {
					t.Errorf("the upstream was sent %q", got)
				}
			}
		})
	}
}

func trailers(h *http2Peer, id uint32, fields ...string) {
	_ = h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.encode(fields...), EndStream: true, EndHeaders: true})
}

// Response splitting from HTTP/2 to HTTP/1.1: an upstream is trusted no more than a
// client.
func TestNoResponseOfHTTP2BecomesAnotherOneInHTTP1(t *testing.T) {
	ok := func(fields ...string) []string { return append([]string{":status", "200"}, fields...) }
	for name, c := range map[string]struct {
		head     []string
		body     string
		trailers []string
	}{
		"CRLF in a value":            {head: ok("x", "a\r\nset-cookie: evil")},
		"LF in a value":              {head: ok("x", "a\nset-cookie: evil")},
		"NUL in a value":             {head: ok("x", "a\x00evil")},
		"CRLF in a name":             {head: ok("x: a\r\nevil", "b")},
		"a colon in a name":          {head: ok("evil: x", "b")},
		"upper case in a name":       {head: ok("Evil", "b")},
		"no name":                    {head: ok("", "evil")},
		"CRLF in the status":         {head: []string{":status", "200 OK\r\nevil: b"}},
		"a status of four digits":    {head: []string{":status", "2000"}},
		"a status of two digits":     {head: []string{":status", "20"}},
		"a signed status":            {head: []string{":status", "+20"}},
		"no status":                  {head: []string{"x", "evil"}},
		"two statuses":               {head: ok(":status", "204")},
		"a status behind a header":   {head: []string{"x", "evil", ":status", "200"}},
		"a path":                     {head: append([]string{":path", "/evil"}, ok()...)},
		"switching protocols":        {head: []string{":status", "101", "upgrade", "evil"}},
		"connection":                 {head: ok("connection", "evil")},
		"transfer-encoding":          {head: ok("transfer-encoding", "chunked"), body: "0\r\n\r\nevil"},
		"upgrade":                    {head: ok("upgrade", "evil")},
		"two lengths":                {head: ok("content-length", "0", "content-length", "4"), body: "evil"},
		"a length below the body":    {head: ok("content-length", "1"), body: "x" + "HTTP/1.1 200 OK\r\n\r\nevil"},
		"a length above the body":    {head: ok("content-length", "100"), body: "x"},
		"a body behind 204":          {head: []string{":status", "204"}, body: evil},
		"a body behind 304":          {head: []string{":status", "304"}, body: evil},
		"CRLF in a trailer":          {head: ok(), body: "x", trailers: []string{"x", "y\r\nevil: z"}},
		"a pseudo-header as trailer": {head: ok(), body: "x", trailers: []string{":status", "500"}},
		"a body of chunks":           {head: ok(), body: "0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, target{Cluster: overHTTP2, Upstream: upstreamHTTP2(t, func(s *scripted) {
				for id, path := s.next(); id != 0; id, path = s.next() {
					if path != "/bad" {
						s.answer(id, path)
						continue
					}
					end := c.body == "" && c.trailers == nil
					_ = s.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.encode(c.head...), EndStream: end, EndHeaders: true})
					if !end {
						_ = s.f.WriteData(id, c.trailers == nil, []byte(c.body))
					}
					if c.trailers != nil {
						trailers(s.http2Peer, id, c.trailers...)
					}
					s.send()
				}
			})})
			conn := p.dial()
			_ = conn.SetDeadline(time.Now().Add(calm))
			_, err := conn.Write([]byte("GET /bad HTTP/1.1\r\nhost: a\r\n\r\nGET /good HTTP/1.1\r\nhost: a\r\n\r\n"))
			must(t, err)
			status, answers := bridgedAnswers(conn)
			if strings.Contains(answers, evil) && !strings.HasPrefix(name, "a body of chunks") {
				t.Errorf("the client was sent %q", answers)
			}
			if len(status) > 2 || len(status) == 2 && status[1] != "/good" {
				t.Errorf("the client read %q", status)
			}
			// The connection to the upstream goes on: one stream was wrong.
			allServed(t, p.askAll(3), 3)
			if n := p.stat("cluster.c.upstream_cx_total"); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// bridgedAnswers reads responses as a client of HTTP/1.1 does: the status of the
// first and the bodies of those behind it, and all headers and bodies.
func bridgedAnswers(c net.Conn) (list []string, all string) {
	r := bufio.NewReader(c)
	for len(list) < 3 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return list, all
		}
		var b strings.Builder
		_, err = bufio.NewReader(resp.Body).WriteTo(&b)
		all += fmt.Sprint(resp.Status, resp.Header, b.String(), resp.Trailer)
		list = append(list, b.String())
		if err != nil || resp.Close || len(list) == 2 {
			return list, all
		}
	}
	return list, all
}
