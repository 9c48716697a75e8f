// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// echo answers with the head that it was sent.
func echo(_ int, c net.Conn) {
	r := bufio.NewReader(c)
	for {
		var head strings.Builder
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" {
				break
			}
			head.WriteString(line)
		}
		body := head.String()
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: "+itoa(len(body))+"\r\n\r\n"+body); err != nil {
			return
		}
	}
}

// Headers that only the mesh may set do not come from a client that hides
// behind a chain of addresses, in one field or in several.
func TestInternalHeadersOfAForwardedClientAreRemoved(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, echo)})
	const trusted = "x-envoy-internal: true\r\nx-envoy-original-path: /evil\r\nx-envoy-upstream-rq-timeout-ms: 1\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 9\r\n"
	for _, forwarded := range []string{
		"x-forwarded-for: 198.51.100.1\r\n",
		"x-forwarded-for: 198.51.100.1, 127.0.0.1\r\n",
		"x-forwarded-for: 198.51.100.1\r\nx-forwarded-for: 127.0.0.1\r\n",
		"X-Forwarded-For: 198.51.100.1\r\nx-other: a\r\nX-FORWARDED-FOR: ::1\r\n",
	} {
		answer := p.say("GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n" + forwarded + trusted + "\r\n")
		_, seen, _ := strings.Cut(answer, "\r\n\r\n")
		for _, name := range []string{"x-envoy-internal", "x-envoy-original-path", "x-envoy-retry-on", "x-envoy-max-retries"} {
			if strings.Contains(strings.ToLower(seen), name+":") {
				t.Errorf("%q: the upstream was sent %q", forwarded, seen)
				break
			}
		}
	}
}

// Connection cannot take away fields that others rely on.
func TestConnectionNominatesNoFieldThatOthersRelyOn(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, echo)})
	const fields = "authorization: a\r\ncookie: b\r\nx-forwarded-for: 127.0.0.1\r\nx-request-id: c\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
	answer := p.say("GET /a HTTP/1.1\r\nhost: a\r\nconnection: close, authorization, cookie, x-forwarded-for, x-request-id, traceparent, host, x-mine\r\nx-mine: d\r\n" + fields + "\r\n")
	for _, name := range []string{"authorization: a", "cookie: b", "x-forwarded-for: 127.0.0.1", "x-request-id: c", "host: a"} {
		if !strings.Contains(answer, name) {
			t.Errorf("the upstream was not sent %q: %q", name, answer)
		}
	}
	if strings.Contains(answer, "x-mine") || strings.Contains(answer, "connection: close, auth") {
		t.Errorf("fields of one hop were forwarded: %q", answer)
	}
}

// A redirect to the normal form of a path never names another host.
func TestARedirectOfAPathStaysOnItsHost(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, echo), Manager: "path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT"})
	for _, path := range []string{"/%2fevil.test/", "/%5cevil.test/", "/%2F%5C%2fevil.test", "//evil.test/%2f", "/a%2fb"} {
		answer := p.say("GET " + path + " HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
		if err != nil {
			t.Fatal(err)
		}
		to := resp.Header.Get("Location")
		if resp.StatusCode != 307 || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.HasPrefix(to, `/\`) {
			t.Errorf("%s: %d to %q", path, resp.StatusCode, to)
		}
	}
}

// What is matched is what is forwarded: no spelling of a path gets by a prefix
// that is answered locally.
func TestNoSpellingOfAPathGetsByItsRoute(t *testing.T) {
	var rec recorder
	p := start(t, target{
		Upstream: hostile(t, rec.serve),
		Manager:  "normalize_path: true\n          merge_slashes: true\n          path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
	})
	for _, path := range []string{
		"/x/../direct", "/x/%2e%2e/direct", "/x/%2E./direct", "//direct", "/./direct", "/%64irect", "/x/..%2fdirect", `/x\..\direct`,
		"/x%5c..%5cdirect", "/%2fdirect", "/x/.%2e/%2e/direct", "/x/%2e%2e%2fdirect", "/./%2e/direct", "/x/..//direct", `/\direct`, "/%5Cdirect",
		"/..", "/../direct", "/direct%00", "/%", "/a%zz", "/a%2", "*", "/a/../../direct",
	} {
		answer := p.say("GET " + path + " HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
		if got := rec.take(); len(got) > 0 {
			t.Errorf("%s: the upstream was sent %q", path, got)
		}
		if !strings.HasPrefix(answer, "HTTP/1.1 200 ") && !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
			t.Errorf("%s: answered %.80q", path, answer)
		}
	}
}

// A log line stays one line, and quotes what a client sent.
func TestNothingThatAClientSendsMakesALogLine(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, echo)})
	requests := []string{
		"GET /a\"%0aGET HTTP/1.1\r\nhost: a\r\nx-canary: b] GET /forged 200 - [\r\nconnection: close\r\n\r\n",
		"GET /b HTTP/1.1\r\nhost: a\r\nx-canary: \xe2\x80\xa8\x85\x9b31m\r\nconnection: close\r\n\r\n",
		"GET /c HTTP/1.1\r\nhost: a\r\nx-canary: \"\\\t\r\nconnection: close\r\n\r\n",
		"GET /d\nGET /forged HTTP/1.1\r\nhost: a\r\n\r\n",
		"GET /e HTTP/1.1\r\nhost: a\r\nx-canary: \x1b[31m\r\n\r\n",
	}
	for _, r := range requests {
		p.say(r)
	}
	lines := p.logged(len(requests))
	if len(lines) != len(requests) {
		t.Errorf("%d lines for %d requests: %q", len(lines), len(requests), lines)
	}
	for _, line := range lines {
		if i := slices.IndexFunc([]byte(line), func(c byte) bool { return c < ' ' || c > '~' }); i >= 0 {
			t.Errorf("a raw byte %#x in %q", line[i], line)
		}
	}
}
