// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// A sink that has enough stops the decoder between two events; going on later
// gives the events that a sink without limits sees.
func TestASinkMayStopTheDecoderAtAnyEvent(t *testing.T) {
	const get, connect = codec.MethodGet, codec.MethodConnect
	requests := benchRequest + chunked("3\r\nabc\r\n4;x\r\ndefg\r\n0\r\nX: y\r\n\r\n") + post + "Content-Length: 5\r\n\r\nhello" +
		chunked("0\r\n\r\n") + chunked("1\r\na\r\n0\r\n\r\n")
	for _, c := range []struct {
		name, in string
		peer     func() *peer
	}{
		{"requests", requests, func() *peer { return newRequestPeer(Limits{}) }},
		{"responses", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" +
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", func() *peer {
			p, _ := newResponsePeer(Limits{}, false, get, get)
			return p
		}},
		{"a tunnel", "HTTP/1.1 200 OK\r\n\r\nbytes", func() *peer {
			p, _ := newResponsePeer(Limits{}, false, connect)
			return p
		}},
		{"an upgrade", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes", func() *peer {
			p, _ := newResponsePeer(Limits{}, true, get)
			return p
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := c.peer()
			whole.feed([]byte(c.in))
			events := whole.calls
			want := whole.result()
			for k := 1; k <= events; k++ {
				p := c.peer()
				p.refuse = k
				p.feed([]byte(c.in))
				if !errors.Is(p.err, errRefused) {
					t.Fatalf("event %d of %d: %v", k, events, p.err)
				}
				p.err = nil
				if p.done() && len(p.pending) == 0 {
					// It was the last one.
				} else {
					p.feed(nil)
				}
				if got := p.result(); got != want {
					t.Errorf("stopped at event %d:\n%swant\n%s", k, got, want)
				}
			}
		})
	}
}

func TestDecodersTellWhereTheyAre(t *testing.T) {
	var h codec.RequestHead
	var r recorder
	d := NewRequestDecoder(Limits{})
	state := func() string {
		return "" + flags("idle", d.Idle(), "head", d.Head(), "done", d.Done())
	}
	for _, step := range []struct {
		in, want string
		consumed int
	}{
		{"", " idle", 0},
		{"\r\n", " idle", 2},
		{"POST / HTTP/1.1\r\nHo", " head", 0},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx", "", 48},
		{"y", " done", 1},
		{"more", " done", 0},
	} {
		n, err := d.Decode([]byte(step.in), &h, &r)
		if n != step.consumed || err != nil || state() != step.want {
			t.Fatalf("after %q: consumed %d, %v, state%s, want %d,%s", step.in, n, err, state(), step.consumed, step.want)
		}
	}
	d.NextMessage()
	if state() != " idle" {
		t.Errorf("state%s, want idle", state())
	}
	d.NextMessage()
	d.StartTunnel() // of no effect before a message
	if state() != " idle" {
		t.Errorf("state%s, want idle", state())
	}
}

func TestEOFIsInOrderOnlyBetweenRequests(t *testing.T) {
	for _, c := range []struct {
		in   string
		want error
	}{
		{"", nil},
		{"\r\n", nil},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", nil},
		{"GET / HT", ErrTruncated},
		{post + "Content-Length: 2\r\n\r\nx", ErrTruncated},
		{chunked("1\r\nx\r\n0\r\n"), ErrTruncated},
		{"\x00", errControl},
	} {
		d := NewRequestDecoder(Limits{})
		var h codec.RequestHead
		var r recorder
		_, _ = d.Decode([]byte(c.in), &h, &r)
		if err := d.EOF(&r); err != c.want && !(err == nil && c.want == nil) {
			t.Errorf("EOF after %q: %v, want %v", c.in, err, c.want)
		}
	}
}

func TestAResponseHasStartedWithItsFirstByte(t *testing.T) {
	var h codec.ResponseHead
	var r recorder
	d := NewResponseDecoder(Limits{})
	if d.Started() {
		t.Error("started without a request")
	}
	d.Expect(codec.MethodGet)
	if d.Started() {
		t.Error("started without a byte")
	}
	d.Expect(codec.MethodHead) // of no effect while one is due
	if _, err := d.Decode([]byte("H"), &h, &r); err != nil || !d.Started() {
		t.Errorf("not started with a byte, %v", err)
	}
	in := "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
	if n, err := d.Decode([]byte(in), &h, &r); n != len(in) || err != nil || !d.Done() || !d.Started() {
		t.Errorf("consumed %d, %v", n, err)
	}
	if n, err := d.Decode(nil, &h, &r); n != 0 || err != nil {
		t.Errorf("nothing more: %d, %v", n, err)
	}
	d.Expect(codec.MethodGet)
	if _, err := d.Decode([]byte("nonsense\r\n"), &h, &r); err == nil {
		t.Error("nonsense was taken")
	}
	if err := d.EOF(&r); err != error(errStatusLine) {
		t.Errorf("EOF after an error: %v", err)
	}
	if got := errStatusLine.Error(); got != "http1.invalid_status_line" {
		t.Errorf("error text %q", got)
	}
}

// The proxy writes the last bytes and the end of a body in one go where it can.
func TestTheEndOfAChunkedBodyComesWithItsLastBytes(t *testing.T) {
	p := newRequestPeer(Limits{})
	p.feed([]byte(chunked("3\r\nabc\r\n0\r\n\r\n")))
	if got, want := p.calls, 2; got != want || p.err != nil {
		t.Errorf("%d events, want %d, %v", got, want, p.err)
	}
}

func TestTrailersInPiecesLeaveNoTraceInTheNextMessage(t *testing.T) {
	const trailers = "X-Sum: 1\r\nX-More: 2\r\n\r\n"
	pieces := []string{chunked("0\r\n"), trailers[:15], trailers}
	var r recorder
	d := NewRequestDecoder(Limits{})
	var h codec.RequestHead
	for _, in := range pieces {
		if _, err := d.Decode([]byte(in), &h, &r); err != nil {
			t.Fatal(err)
		}
	}
	done := d.Done()
	d.NextMessage()
	if !done || !d.Idle() || d.Head() {
		t.Errorf("done %v, idle %v, head %v", done, d.Idle(), d.Head())
	}

	u := NewResponseDecoder(Limits{})
	u.Expect(codec.MethodGet)
	var uh codec.ResponseHead
	pieces[0] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
	for _, in := range pieces {
		if _, err := u.Decode([]byte(in), &uh, &r); err != nil {
			t.Fatal(err)
		}
	}
	done = u.Done()
	u.Expect(codec.MethodGet)
	if !done || u.Started() {
		t.Errorf("done %v, started %v", done, u.Started())
	}
}
