// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// answered is a client that has sent a request of that method, its peer's side,
// and what it makes of the answer.
func answered(t *testing.T, method string, p *peerSide) string {
	t.Helper()
	want := ""
	for _, size := range []int{1 << 20, 1, 5} {
		c := New(Client, Limits{})
		r := &recorder{consume: true}
		req := getRequest()
		req.SetMethod([]byte(method))
		id, _ := c.NewStream()
		c.AppendRequest(nil, id, req, true)
		got := result(r, decodeCut(t, c, r, p.Bytes(), size))
		if want == "" {
			want = got
		} else if got != want {
			t.Fatalf("in pieces of %d:\n%s\ninstead of\n%s", size, got, want)
		}
	}
	return want
}

// TestResponsesAreReadAsStrictlyAsRequests: an upstream peer is trusted no more
// than a downstream one.
func TestResponsesAreReadAsStrictlyAsRequests(t *testing.T) {
	bad := func(e *Error) string {
		return "1 reset " + e.Code.String() + " local=true " + e.Detail + "\n"
	}
	for _, c := range []struct {
		name, method string
		send         func(p *peerSide)
		want         string
	}{
		{"plain", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 200", "server: x") }, "1 response 200 length=0 last=true nobody=false\n  server: \"x\"\n"},
		{"a body", "GET", func(p *peerSide) {
			p.headers(0, 1, ":status: 200", "content-length: 2").frame(frameData, flagEndStream, 1, "ab")
		}, "1 response 200 length=2 last=false nobody=false\n1 body \"ab\"\n"},
		{"trailers", "GET", func(p *peerSide) {
			p.headers(0, 1, ":status: 200").headers(flagEndStream, 1, "grpc-status: 0")
		}, "1 response 200 length=-1 last=false nobody=false\n1 body \"\" trailer\n  grpc-status: \"0\"\n"},
		{"informational", "GET", func(p *peerSide) {
			p.headers(0, 1, ":status: 103", "link: x").headers(flagEndStream, 1, ":status: 204")
		}, "1 informational 103\n  link: \"x\"\n1 response 204 length=0 last=true nobody=false\n"},
		{"to HEAD", "HEAD", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 200", "content-length: 7") }, "1 response 200 length=7 last=true nobody=true\n"},
		{"not modified", "GET", func(p *peerSide) {
			p.headers(0, 1, ":status: 304", "content-length: 7").frame(frameData, flagEndStream, 1)
		}, "1 response 304 length=7 last=false nobody=true\n1 body \"\"\n"},
		{"to CONNECT", "CONNECT", func(p *peerSide) { p.headers(0, 1, ":status: 200").frame(frameData, 0, 1, "x") }, "1 response 200 length=-1 last=false nobody=false\n"},
		{"a body to HEAD", "HEAD", func(p *peerSide) { p.headers(0, 1, ":status: 200").frame(frameData, 0, 1, "x") }, "1 response 200 length=-1 last=false nobody=true\n" + bad(errBodyDisallowed)},
		{"a body of 204", "GET", func(p *peerSide) { p.headers(0, 1, ":status: 204").frame(frameData, 0, 1, "x") }, "1 response 204 length=0 last=false nobody=false\n" + bad(errBodyDisallowed)},
		{"no status", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, "server: x") }, bad(errPseudoMissing)},
		{"two statuses", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 200", ":status: 200") }, bad(errPseudoRepeated)},
		{"a status of words", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 2e2") }, bad(errStatus)},
		{"a status of two digits", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 99") }, bad(errStatus)},
		{"a path", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 200", ":path: /") }, bad(errPseudoUnknown)},
		{"status behind a field", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, "server: x", ":status: 200") }, bad(errPseudoOrder)},
		{"101", "GET", func(p *peerSide) { p.headers(0, 1, ":status: 101") }, bad(errSwitch)},
		{"informational that ends", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 100") }, bad(errInformationEnds)},
		{"connection", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 200", "connection: close") }, bad(errConnection)},
		{"response splitting", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 200", "x: a\r\nb: c") }, bad(errValue)},
		{"data before the head", "GET", func(p *peerSide) { p.frame(frameData, 0, 1, "x") }, bad(errBeforeHead)},
		{"a length that is wrong", "GET", func(p *peerSide) { p.headers(flagEndStream, 1, ":status: 200", "content-length: 1") }, bad(errLengthDiffers)},
		{"a head for a stream that was not opened", "GET", func(p *peerSide) { p.headers(0, 3, ":status: 200") }, "error http2.invalid_stream_id\n"},
		{"a pushed head", "GET", func(p *peerSide) { p.headers(0, 2, ":status: 200") }, "error http2.invalid_stream_id\n"},
		{"a push", "GET", func(p *peerSide) { p.frame(framePush, flagEndHeaders, 1, u32(2)) }, "error http2.unexpected_push\n"},
		{"push enabled", "GET", func(p *peerSide) { p.frame(frameSettings, 0, 0, "\x00\x02"+u32(1)) }, "error http2.invalid_enable_push\n"},
		{"reset", "GET", func(p *peerSide) { p.frame(frameReset, 0, 1, u32(uint32(RefusedStream))) }, "1 reset REFUSED_STREAM local=false\n"},
	} {
		p := (&peerSide{}).frame(frameSettings, 0, 0)
		c.send(p)
		if got := answered(t, c.method, p); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
	p := (&peerSide{}).frame(frameSettings, 0, 0)
	for range maxInformational + 1 {
		p.headers(0, 1, ":status: 103")
	}
	if got := answered(t, "GET", p); !strings.HasSuffix(got, bad(errInformational)) {
		t.Errorf("informational responses without end: %s", got)
	}
}

func TestStreamsAboveTheLastOfAGoAwayMayBeTriedElsewhere(t *testing.T) {
	c := New(Client, Limits{})
	r := &recorder{conn: c}
	for range 3 {
		id, _ := c.NewStream()
		c.AppendRequest(nil, id, getRequest(), true)
	}
	p := (&peerSide{}).frame(frameSettings, 0, 0).frame(frameGoAway, 0, 0, u32(1), u32(0), "why").headers(flagEndStream, 1, ":status: 200")
	_, err := c.Decode(p.Bytes(), 1, r)
	want := "goaway 1 NO_ERROR\n3 reset REFUSED_STREAM local=false\n5 reset REFUSED_STREAM local=false\n1 response 200 length=0 last=true nobody=false\n"
	if got := result(r, err); got != want || !c.Closed() || c.CanOpen() {
		t.Errorf("%s closed=%v", got, c.Closed())
	}
}

func TestAGracefulEndTakesTwoSteps(t *testing.T) {
	c := New(Server, Limits{})
	r := &recorder{conn: c}
	p := (&peerSide{}).preface().get(1)
	feed := func() {
		t.Helper()
		n, err := c.Decode(p.Bytes(), 1, r)
		if err != nil {
			t.Fatal(err)
		}
		p.Next(n)
	}
	feed()
	c.AppendPending(nil)
	c.GoAway(true, NoError)
	c.GoAway(true, NoError)
	got := frames(t, c.AppendPending(nil))
	if !reflect.DeepEqual(got, []string{"goaway 2147483647 NO_ERROR", "ping flags=0 6f75747269676465"}) || c.Closed() || !c.Draining() {
		t.Fatalf("first step: %v", got)
	}
	p.get(3).frame(framePing, flagAck, 0, "outrigde").get(5)
	feed()
	if got := frames(t, c.AppendPending(nil)); !reflect.DeepEqual(got, []string{"goaway 3 NO_ERROR"}) {
		t.Fatalf("second step: %v", got)
	}
	if strings.Contains(r.out.String(), "5 request") || !strings.Contains(r.out.String(), "3 request") {
		t.Errorf("taken: %s", r.out.String())
	}
	out := c.AppendResponse(nil, 1, ok200(), true)
	c.AppendResponse(out, 3, ok200(), true)
	if !c.Closed() {
		t.Error("not closed behind the last response")
	}
	c.GoAway(false, NoError)
	c.Finish()
	if c.HasPending() {
		t.Errorf("sent again: %v", frames(t, c.AppendPending(nil)))
	}
}

func TestAPeerIsAskedOnceWhetherItLives(t *testing.T) {
	c := New(Client, Limits{})
	c.AppendPending(nil)
	c.Ping(5)
	c.Ping(9)
	if got := frames(t, c.AppendPending(nil)); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if since, ok := c.PingOutstanding(); !ok || since != 5 {
		t.Error(since, ok)
	}
	p := (&peerSide{}).frame(frameSettings, 0, 0).frame(framePing, flagAck, 0, "outrigge")
	if _, err := c.Decode(p.Bytes(), 10, &recorder{conn: c}); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.PingOutstanding(); ok {
		t.Error("the answer was not taken")
	}
}

func TestAClientOpensNoMoreStreamsThanBothSidesAllow(t *testing.T) {
	c := New(Client, Limits{MaxConcurrentStreams: 5})
	p := (&peerSide{}).frame(frameSettings, 0, 0, "\x00\x03"+u32(2))
	if _, err := c.Decode(p.Bytes(), 1, &recorder{conn: c}); err != nil {
		t.Fatal(err)
	}
	for want := range 3 {
		id, ok := c.NewStream()
		if ok != (want < 2) || ok && id != uint32(2*want+1) {
			t.Errorf("%d: %d %v", want, id, ok)
		}
	}
	c.Reset(1, Cancel)
	if _, ok := c.NewStream(); !ok {
		t.Error("none though one has ended")
	}
	if got := frames(t, c.AppendPending(nil)); strings.Contains(strings.Join(got, " "), "reset 1") {
		t.Errorf("a stream that was never sent is reset: %v", got)
	}
}

func TestTheErrorOfASinkIsReturnedAndDecodingGoesOn(t *testing.T) {
	c := New(Server, Limits{})
	r := &recorder{conn: c, fail: errors.New("enough")}
	p := (&peerSide{}).preface().get(1).get(3)
	n, err := c.Decode(p.Bytes(), 1, r)
	if err != r.fail || n >= p.Len() {
		t.Fatalf("%d of %d, %v", n, p.Len(), err)
	}
	r.fail = nil
	if m, err := c.Decode(p.Bytes()[n:], 1, r); err != nil || n+m != p.Len() {
		t.Errorf("%d and %d of %d, %v", n, m, p.Len(), err)
	}
	if c.Streams() != 2 || strings.Count(r.out.String(), "request") != 2 {
		t.Errorf("%d streams: %s", c.Streams(), r.out.String())
	}
}

func TestAnswersFromWithinACallbackAreInOrder(t *testing.T) {
	c := New(Server, Limits{})
	var out []byte
	r := &recorder{conn: c}
	r.onHead = func(id uint32) { out = c.AppendResponse(out, id, ok200(), true) }
	p := (&peerSide{}).preface().get(1).headers(0, 3, get...).get(5)
	if _, err := c.Decode(p.Bytes(), 1, r); err != nil {
		t.Fatal(err)
	}
	if c.Streams() != 1 {
		t.Errorf("%d streams", c.Streams())
	}
	got := frames(t, c.AppendPending(out))
	if len(got) != 6 || !strings.HasPrefix(got[0], "settings 0 flags=0") || got[2] != "settings 0 flags=1 0" || !strings.HasPrefix(got[3], "headers 1 flags=5") {
		t.Errorf("%v", got)
	}
}

func TestExtendedConnectIsOfferedAndSent(t *testing.T) {
	s, c := New(Server, Limits{AllowConnect: true}), New(Client, Limits{})
	sink := &recorder{conn: s}
	if _, err := c.Decode(s.AppendPending(nil), 1, &recorder{conn: c}); err != nil || !c.ExtendedConnect() {
		t.Fatal(err, c.ExtendedConnect())
	}
	h := getRequest()
	h.SetUpgrade([]byte("websocket"))
	h.BodyLength = codec.BodyNone
	for i, method := range []string{"CONNECT", "GET", "HEAD"} { // what HTTP/1.1 asks with does not count
		h.SetMethod([]byte(method))
		id, _ := c.NewStream()
		if _, err := s.Decode(c.AppendRequest(nil, id, h, false), 1, sink); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%d request CONNECT \"/orders/17\" \"orders.svc:8080\" http length=-1 last=false te=false expect=false up=\"websocket\"", 2*i+1)
		if got := sink.out.String(); !strings.Contains(got, want) {
			t.Error(got)
		}
	}
}
