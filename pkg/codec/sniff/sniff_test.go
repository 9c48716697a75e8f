// SPDX-License-Identifier: Apache-2.0

package sniff

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// clientHello is what crypto/tls itself sends, in one record.
func clientHello(t testing.TB, name string, alpn ...string) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer a.Close()
		_ = tls.Client(a, &tls.Config{ServerName: name, NextProtos: alpn, InsecureSkipVerify: true}).Handshake()
	}()
	head := make([]byte, recordHeader)
	if _, err := io.ReadFull(b, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, recordLen(head))
	if _, err := io.ReadFull(b, body); err != nil {
		t.Fatal(err)
	}
	b.Close()
	<-done
	return append(head, body...)
}

// records cuts a record into records of so many bytes.
func records(one []byte, size int) (out []byte) {
	for c := range slices.Chunk(one[recordHeader:], size) {
		out = append(append(out, one[0], one[1], one[2], byte(len(c)>>8), byte(len(c))), c...)
	}
	return out
}

func protocols(h *Hello) (list []string) {
	for rest := h.Protocols(); len(rest) > 0; {
		var p []byte
		p, rest = NextProtocol(rest)
		list = append(list, string(p))
	}
	return list
}

// judge gives each prefix of in to ask and checks that the first answer that is not
// More stays.
func judge(t testing.TB, in []byte, ask func([]byte) Verdict) Verdict {
	t.Helper()
	last := More
	for n := range len(in) + 1 {
		v := ask(in[:n])
		if last != More && v != last {
			t.Fatalf("%d bytes of %q: %v after %v", n, in, v, last)
		}
		last = v
	}
	return last
}

func TestTheServerNameAndALPNOfAClientHelloAreRead(t *testing.T) {
	for _, name := range []string{"a.example", "", strings.Repeat("a.", 100) + "example"} {
		hello := clientHello(t, name, "h2", "http/1.1")
		for _, size := range []int{1 << 14, 512, 100, 30} {
			in := append(records(hello, size), "what follows"...)
			var h Hello
			if v := judge(t, in, h.Read); v != Yes {
				t.Fatalf("%q in records of %d: %v", name, size, v)
			}
			if string(h.ServerName()) != name || !slices.Equal(protocols(&h), []string{"h2", "http/1.1"}) {
				t.Errorf("%q in records of %d: got %q %q", name, size, h.ServerName(), protocols(&h))
			}
		}
	}
	var h Hello
	if v := h.Read(clientHello(t, "b.example")); v != Yes || len(h.Protocols()) != 0 {
		t.Errorf("without ALPN: %v %q", v, h.Protocols())
	}
}

func TestAHostileClientHelloIsBroken(t *testing.T) {
	good := clientHello(t, "a.example", "h2")
	name := bytes.Index(good, []byte("a.example"))
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for what, in := range map[string][]byte{
		"a message beyond the bound":      edit(func(b []byte) { b[6] = 1 }),
		"extensions shorter than said":    edit(func(b []byte) { b[8]-- }),
		"a name longer than its list":     edit(func(b []byte) { b[name-1]++ }),
		"a name of another type":          edit(func(b []byte) { b[name-3] = 1 }),
		"a zero byte in the name":         edit(func(b []byte) { b[name+1] = 0 }),
		"a long session id":               edit(func(b []byte) { b[recordHeader+4+34] = 33 }),
		"a record beyond the bound":       edit(func(b []byte) { b[3] = 0x41 }),
		"an alert between the records":    edit(func(b []byte) { b[3], b[4] = 0, 20; b[recordHeader+20] = 21 }),
		"records of one byte without end": records(good, 1),
		"an empty second record":          append(records(good, 100)[:105], 22, 3, 1, 0, 0, 0),
	} {
		var h Hello
		if v := judge(t, in, h.Read); v != Broken {
			t.Errorf("%s: %v", what, v)
		}
		if h.ServerName() != nil {
			t.Errorf("%s: left a name", what)
		}
	}
}

func TestOtherProtocolsAreTold(t *testing.T) {
	long := "GET /" + strings.Repeat("a", MaxRequest) + " HTTP/1.1\r\n"
	for _, c := range []struct {
		in               string
		tls, http2, http Verdict
	}{
		{"", More, More, More},
		{preface, No, Yes, No},
		{preface[:20], No, More, No},
		{"PRI * HTTP/2.0\r\n\r\nSX", No, No, No},
		{"PRI", No, More, More},
		{"GET / HTTP/1.1\r\n", No, No, Yes},
		{"\r\nGET / HTTP/1.0\n", No, No, Yes},
		{"\r\n\r\nGET / HTTP/1.0\n", No, No, No},
		{"M-SEARCH * HTTP/1.1\r\n", No, No, Yes},
		{"CONNECT a:443 HTTP/1.1\r\n", No, No, Yes},
		{"GET / HTTP/1.2\r\n", No, No, No},
		{"GET /a b HTTP/1.1\r\n", No, No, No},
		{"GET  HTTP/1.1\r\n", No, No, No},
		{"get / HTTP/1.1\r\n", No, No, No},
		{"GET /" + strings.Repeat("a", 500), No, No, More},
		{long, No, No, No},
		{strings.Repeat("A", 33), No, No, No},
		{"SSH-2.0-x\r\n", No, No, No},
		{"220 mail ready\r\n", No, No, No},
		{"EHLO host\r\n", No, No, No},
		{"\x16\x03\x01\x00\x05\x02", No, No, No},
		{"\x16\x03\x05", No, No, No},
		{"\x16\x03\x01", More, No, No},
	} {
		var h Hello
		in := []byte(c.in)
		got := [3]Verdict{judge(t, in, h.Read), judge(t, in, HTTP2), judge(t, in, http1)}
		if want := [3]Verdict{c.tls, c.http2, c.http}; got != want {
			t.Errorf("%.40q: %v, want %v", c.in, got, want)
		}
	}
	if minor, _ := HTTP1([]byte("GET / HTTP/1.0\r\n")); minor != 0 {
		t.Error("HTTP/1.0 is taken for another")
	}
	if minor, _ := HTTP1([]byte("GET / HTTP/1.1\r\n")); minor != 1 {
		t.Error("HTTP/1.1 is taken for another")
	}
}

func http1(in []byte) Verdict {
	_, v := HTTP1(in)
	return v
}

func TestTellingProtocolsAllocatesNothing(t *testing.T) {
	hello := records(clientHello(t, "a.example", "h2"), 100)
	request := []byte("GET /path HTTP/1.1\r\n")
	var h Hello
	if h.Read(hello) != Yes {
		t.Fatal("no hello")
	}
	if n := testing.AllocsPerRun(100, func() { h.Read(hello); HTTP2(request); HTTP1(request) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzTheAnswerIsTheSameHoweverTheBytesAreCut(f *testing.F) {
	hello := clientHello(f, "a.example", "h2")
	for _, seed := range [][]byte{hello, records(hello, 50), []byte(preface), []byte("GET / HTTP/1.1\r\n"), []byte("\r\n\r")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 2048 {
			in = in[:2048]
		}
		var h Hello
		for _, ask := range []func([]byte) Verdict{h.Read, HTTP2, http1} {
			judge(t, in, ask)
		}
		if h.Read(in) == Yes {
			protocols(&h)
		}
	})
}
