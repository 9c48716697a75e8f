// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWebPagesAndForeignHostsAreRefused(t *testing.T) {
	p := open(t, nil)
	_, portText, _ := net.SplitHostPort(p.s.Addr())
	for _, c := range []struct {
		name, header string
		status       int
	}{
		{"the address", "Host: 127.0.0.1:" + portText, 200},
		{"localhost", "Host: localhost:" + portText, 200},
		{"without a port", "Host: LocalHost", 200},
		{"another loopback address", "Host: 127.0.0.2:1", 200},
		{"loopback of IPv6", "Host: [::1]:" + portText, 200},
		{"a name that was rebound", "Host: evil.example:" + portText, 403},
		{"a name that begins like ours", "Host: localhost.evil.example", 403},
		{"an address that is not this host's", "Host: 192.0.2.1", 403},
		{"a page", "Origin: http://evil.example", 403},
		{"a page of this port", "Origin: http://" + p.s.Addr(), 403},
		{"a page without one", "Origin: null", 403},
		{"an image of another site", "Sec-Fetch-Site: cross-site", 403},
		{"a page of another port", "Sec-Fetch-Site: same-site", 403},
		{"an address typed in", "Sec-Fetch-Site: none", 200},
		{"a link of the home page", "Sec-Fetch-Site: same-origin", 200},
	} {
		for _, method := range []string{"GET", "POST"} {
			resp, body := p.do(method, "/ready", c.header)
			if resp.StatusCode != c.status {
				t.Errorf("%s by %s: got %d %q, want %d", c.name, method, resp.StatusCode, body, c.status)
			}
			if resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: CORS is allowed", c.name)
			}
		}
	}
	// HTTP/1.0 without a Host is foreign too.
	c, err := net.Dial("tcp", p.s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(c, "GET /ready HTTP/1.0\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("without a Host: %d", resp.StatusCode)
	}
}

func TestOffLoopbackATokenIsRequired(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first-token-of-some-length\n")
	p := open(t, func(c *Config) { c.Address, c.TokenFile = "0.0.0.0:0", path })
	_, portText, _ := net.SplitHostPort(p.s.Addr())
	host := "Host: 127.0.0.1:" + portText
	get := func(headers ...string) int {
		t.Helper()
		resp, _ := p.do("GET", "/ready", append(headers, host)...)
		if resp.StatusCode == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("401 without a challenge")
		}
		return resp.StatusCode
	}
	for _, c := range []struct {
		header string
		want   int
	}{
		{"X: y", 401}, {"Authorization: Bearer wrong-token-of-some-length", 401}, {"Authorization: Basic first-token-of-some-length", 401},
		{"Authorization: Bearer ", 401}, {"Authorization: Bearer first-token-of-some-length", 200}, {"Authorization: bearer first-token-of-some-length", 200},
	} {
		if got := get(c.header); got != c.want {
			t.Errorf("%s: got %d, want %d", c.header, got, c.want)
		}
	}
	write("second-token, and a longer one\n")
	if got := get("Authorization: Bearer first-token-of-some-length"); got != 401 {
		t.Errorf("the token that was replaced: %d", got)
	}
	if got := get("Authorization: Bearer second-token, and a longer one"); got != 200 {
		t.Errorf("the new token: %d", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := get("Authorization: Bearer second-token, and a longer one"); got != 503 {
		t.Errorf("the token that was withdrawn: %d", got)
	}
}

func TestOnAllAddressesLiteralsAreFineAndNamesAreNot(t *testing.T) {
	g, err := newGuard("0.0.0.0:1", &net.TCPAddr{IP: net.IPv4zero, Port: 1}, tokenIn(t))
	if err != nil {
		t.Fatal(err)
	}
	name, _ := os.Hostname()
	for host, want := range map[string]bool{
		"10.1.2.3:1": true, "[2001:db8::1]:1": true, "evil.example": false, name: true, "": false, "localhost.": true, "[": false,
	} {
		if got := g.knows(host); got != want {
			t.Errorf("host %q: got %v, want %v", host, got, want)
		}
	}
}

func tokenIn(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConnectionsBeyondTheLimitAreClosedAndThenTakenAgain(t *testing.T) {
	p := open(t, nil)
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for range maxConnections {
		c, err := net.Dial("tcp", p.s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	answers := func() bool {
		c, err := net.Dial("tcp", p.s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(c, "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		b, _ := io.ReadAll(c) // reset or end when refused
		return strings.HasPrefix(string(b), "HTTP/1.1 200")
	}
	deadline := time.Now().Add(5 * time.Second)
	for answers() {
		if time.Now().After(deadline) {
			t.Fatal("more connections than the limit are served")
		}
	}
	for _, c := range held {
		_ = c.Close()
	}
	held = nil
	for !answers() {
		if time.Now().After(deadline) {
			t.Fatal("nothing is served after the others have gone")
		}
	}
}

func TestLargeHeadersAreRefused(t *testing.T) {
	p := open(t, nil)
	c, err := net.Dial("tcp", p.s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	// As much as is just too much: what the server leaves unread could reset the
	// connection before its answer is read.
	fmt.Fprintf(c, "GET /ready HTTP/1.1\r\nHost: localhost\r\nX: %s", strings.Repeat("a", maxHeaderBytes+4096))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", resp.StatusCode)
	}
}
