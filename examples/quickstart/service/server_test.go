// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestARequestWithoutAnEndIsNotKept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{handle: func(*http.Request) (int, string, []byte) { return text(http.StatusOK, "ok") }}
	ended := make(chan error, 1)
	go func() { ended <- s.serve(l) }() // ends with the listener
	defer func() { _ = l.Close(); <-ended; s.stop(t.Context()) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for range 2 { // the bound is each request's
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", maxRequest/2) + "\r\n\r\n"))
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		}
		_ = resp.Body.Close()
		_, _ = in.Discard(in.Buffered())
	}
	if _, err = c.Write([]byte("GET / HTTP/1.1\r\nX: ")); err != nil {
		t.Fatal(err)
	}
	chunk := []byte(strings.Repeat("x", 64<<10))
	for n := 0; n < 64*maxRequest; n += len(chunk) {
		if _, err = c.Write(chunk); err != nil {
			return
		}
	}
	t.Errorf("%d MiB of a header are taken", 64*maxRequest>>20)
}
