// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// sending is a server with open streams whose heads are out.
func sending(t *testing.T, streams int, settings string) (*Conn, *recorder) {
	t.Helper()
	c := New(Server, Limits{})
	r := &recorder{conn: c}
	p := (&peerSide{}).preface().frame(frameSettings, 0, 0, settings)
	for i := range streams {
		p.get(uint32(2*i + 1))
	}
	decode(t, c, r, p)
	for i := range streams {
		c.AppendResponse(nil, uint32(2*i+1), ok200(), false)
	}
	c.AppendPending(nil)
	r.out.Reset()
	return c, r
}

func decode(t *testing.T, c *Conn, r *recorder, p *peerSide) {
	t.Helper()
	if n, err := c.Decode(p.Bytes(), 1, r); err != nil || n != p.Len() {
		t.Fatal(n, err)
	}
}

func TestBodiesThatWaitForTheConnectionTakeTurns(t *testing.T) {
	c, r := sending(t, 3, "\x00\x04"+u32(1<<20))
	out := c.AppendData(nil, 1, make([]byte, 100_000), true) // takes the window
	if n := len(frames(t, out)); n != 4 || c.Queued(1) != 100_000-65535 {
		t.Fatalf("%d frames, %d queued", n, c.Queued(1))
	}
	for _, id := range []uint32{3, 5} {
		if out := c.AppendData(nil, id, make([]byte, 40_000), true); len(out) != 0 || c.Queued(id) != 40_000 {
			t.Fatalf("stream %d: %d bytes out", id, len(out))
		}
	}
	decode(t, c, r, (&peerSide{}).frame(frameWindowUpdate, 0, 0, u32(200_000)))
	if got := r.out.String(); got != "1 drained\n3 drained\n5 drained\n" {
		t.Errorf("%s", got)
	}
	want := []string{
		"data 1 flags=0 16384", "data 3 flags=0 16384", "data 5 flags=0 16384",
		"data 1 flags=0 16384", "data 3 flags=0 16384", "data 5 flags=0 16384",
		"data 1 flags=1 1697", "data 3 flags=1 7232", "data 5 flags=1 7232",
	}
	if got := frames(t, c.AppendPending(nil)); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestAWindowThatIsTooSmallForAllIsShared(t *testing.T) {
	c, r := sending(t, 3, "\x00\x04"+u32(1<<20))
	c.AppendData(nil, 1, make([]byte, 65535), false) // takes the window
	for _, id := range []uint32{1, 3, 5} {
		c.AppendData(nil, id, make([]byte, 60_000), true)
	}
	decode(t, c, r, (&peerSide{}).frame(frameWindowUpdate, 0, 0, u32(4*16384)))
	want := []string{"data 1 flags=0 16384", "data 3 flags=0 16384", "data 5 flags=0 16384", "data 1 flags=0 16384"}
	if got := frames(t, c.AppendPending(nil)); !reflect.DeepEqual(got, want) || r.out.Len() != 0 {
		t.Errorf("%v %s", got, r.out.String())
	}
}

func TestPiecesThatWaitAreBounded(t *testing.T) {
	c, _ := sending(t, 1, "\x00\x04"+u32(0))
	for range DefaultMaxOutboundFrames + 1 {
		c.AppendData(nil, 1, []byte("x"), false)
	}
	if c.Err() != errQueue {
		t.Error(c.Err())
	}
}

func TestOneCallAppendsBoundedMuch(t *testing.T) {
	c, r := sending(t, 1, "\x00\x04"+u32(0))
	c.AppendData(nil, 1, make([]byte, 1<<20), true)
	decode(t, c, r, (&peerSide{}).frame(frameWindowUpdate, 0, 0, u32(2<<20)).frame(frameWindowUpdate, 0, 1, u32(1<<20)))
	total, calls := 0, 0
	for ; c.HasPending(); calls++ {
		n := len(c.AppendPending(nil))
		if total += n; n > MaxPerCall+sendFrameSize+100 {
			t.Errorf("%d bytes at once", n)
		}
	}
	if total < 1<<20 || calls < 4 {
		t.Errorf("%d bytes in %d calls", total, calls)
	}
}

func TestAStreamIsNotDrainedBeforeAllOfItHasWindows(t *testing.T) {
	c, r := sending(t, 1, "\x00\x04"+u32(10))
	c.AppendData(nil, 1, []byte("0123456789abcdefghij"), false)
	decode(t, c, r, (&peerSide{}).frame(frameWindowUpdate, 0, 1, u32(9)))
	if c.Queued(1) != 1 || r.out.Len() != 0 {
		t.Errorf("%d queued: %s", c.Queued(1), r.out.String())
	}
	decode(t, c, r, (&peerSide{}).frame(frameWindowUpdate, 0, 1, u32(5)))
	if c.Queued(1) != 0 || r.out.String() != "1 drained\n" {
		t.Errorf("%d queued: %s", c.Queued(1), r.out.String())
	}
	// What follows goes out behind it.
	out := c.AppendData(nil, 1, []byte("KL"), true)
	if !bytes.Contains(out, []byte("abcdefghij\x00\x00\x02\x00\x01\x00\x00\x00\x01KL")) {
		t.Errorf("%q", out)
	}
	if c.HasPending() || c.Streams() != 0 {
		t.Error("something is left")
	}
}

func TestTrailersWaitBehindTheBody(t *testing.T) {
	trailer := &codec.Header{}
	trailer.AddString("grpc-status", "0")
	trailer.AddString("content-length", "1")
	for _, windows := range []int{0, 5, 100} {
		c, r := sending(t, 1, "\x00\x04"+u32(uint32(windows)))
		out := c.AppendData(nil, 1, []byte("0123456789"), false)
		out = c.AppendTrailer(out, 1, trailer)
		out = c.AppendData(out, 1, []byte("behind the end"), true)
		decode(t, c, r, (&peerSide{}).frame(frameWindowUpdate, 0, 1, u32(4)).frame(frameWindowUpdate, 0, 1, u32(100)))
		got := frames(t, c.AppendPending(out))
		last := got[len(got)-1]
		if !strings.HasPrefix(last, "headers 1 flags=5 ") || c.Streams() != 0 || bytes.Contains(out, []byte("behind")) {
			t.Errorf("window %d: %v", windows, got)
		}
	}
}

func TestSettingsMoveTheWindowsOfOpenStreams(t *testing.T) {
	c, r := sending(t, 1, "\x00\x04"+u32(10))
	out := c.AppendData(nil, 1, []byte("0123456789abcde"), true)
	if got := frames(t, out); !reflect.DeepEqual(got, []string{"data 1 flags=0 10"}) {
		t.Fatalf("%v", got)
	}
	// To 2 makes it -8; with 12 it is 4.
	decode(t, c, r, (&peerSide{}).frame(frameSettings, 0, 0, "\x00\x04"+u32(2)).frame(frameWindowUpdate, 0, 1, u32(8)))
	if c.Queued(1) != 5 {
		t.Errorf("%d queued", c.Queued(1))
	}
	decode(t, c, r, (&peerSide{}).frame(frameWindowUpdate, 0, 1, u32(4)))
	if got := frames(t, c.AppendPending(nil)); !reflect.DeepEqual(got, []string{"settings 0 flags=1 0", "data 1 flags=0 4"}) {
		t.Errorf("%v", got)
	}
	decode(t, c, r, (&peerSide{}).frame(frameSettings, 0, 0, "\x00\x04"+u32(3)))
	if got := frames(t, c.AppendPending(nil)); !reflect.DeepEqual(got, []string{"settings 0 flags=1 0", "data 1 flags=1 1"}) {
		t.Errorf("%v", got)
	}
}

// TestWindowsOfAStreamThatEndsAreNotLost: what was granted to a stream and not
// sent must reach the others, or they wait for ever.
func TestWindowsOfAStreamThatEndsAreNotLost(t *testing.T) {
	for _, byPeer := range []bool{true, false} {
		c, r := sending(t, 2, "\x00\x04"+u32(1<<20))
		c.AppendData(nil, 1, make([]byte, 65535+1000), true)
		c.AppendData(nil, 3, make([]byte, 1000), true)
		decode(t, c, r, (&peerSide{}).frame(frameWindowUpdate, 0, 0, u32(1000))) // all of it for stream 1
		if byPeer {
			decode(t, c, r, (&peerSide{}).frame(frameReset, 0, 1, u32(8)))
			if got := frames(t, c.AppendPending(nil)); !reflect.DeepEqual(got, []string{"data 3 flags=1 1000"}) {
				t.Errorf("%v", got)
			}
			continue
		}
		c.Reset(1, Cancel)
		if got := frames(t, c.AppendPending(nil)); !reflect.DeepEqual(got, []string{"data 1 flags=0 1000", "reset 1 CANCEL"}) {
			t.Errorf("%v", got)
		}
	}
}

func TestCreditIsGivenInHalvesAndForWhatIsDropped(t *testing.T) {
	c := New(Server, Limits{InitialStreamWindow: 1000, InitialConnWindow: 65535})
	r := &recorder{conn: c}
	p := (&peerSide{}).preface().frame(frameSettings, flagAck, 0).headers(0, 1, get...)
	decode(t, c, r, p.frame(frameData, 0, 1, strings.Repeat("x", 900)))
	c.AppendPending(nil)
	c.Consumed(1, 400)
	if c.HasPending() {
		t.Error("credit for less than half of the window")
	}
	c.Consumed(1, 400)
	c.Consumed(1, 4000) // only 100 are held
	if got := frames(t, c.AppendPending(nil)); !reflect.DeepEqual(got, []string{"window 1 800"}) {
		t.Errorf("%v", got)
	}
	// Padding is credited at once: 255 + 1 + the 100 from above.
	decode(t, c, r, (&peerSide{}).frame(frameData, flagPadded, 1, "\xff"+strings.Repeat("\x00", 255)).frame(frameData, flagPadded, 1, "\xff"+strings.Repeat("\x00", 255)))
	if got := frames(t, c.AppendPending(nil)); !reflect.DeepEqual(got, []string{"window 1 612"}) {
		t.Errorf("%v", got)
	}
	// Streams come and go with data that nobody took: the connection goes on.
	q := &peerSide{}
	for i := 1; i < 80; i++ {
		id := uint32(2*i + 1)
		q.headers(0, id, get...).frame(frameData, 0, id, strings.Repeat("x", 900)).frame(frameReset, 0, id, u32(8)).frame(frameData, 0, id)
		if i%2 == 0 {
			continue
		}
		q.Truncate(q.Len() - frameHeaderSize)
	}
	decode(t, c, r, q)
	update := ""
	for _, f := range frames(t, c.AppendPending(nil)) {
		if strings.HasPrefix(f, "window 0 ") {
			update = f
		}
	}
	if update == "" {
		t.Error("the connection's window is not given back")
	}
}

func TestHeadsLargerThanAFrameAreCut(t *testing.T) {
	for _, size := range []int{16_000, 16_384, 20_000, 40_000, 55_000} {
		s, c := New(Server, Limits{}), New(Client, Limits{})
		h := getRequest()
		h.AddString("x-long", strings.Repeat("v", size))
		id, _ := c.NewStream()
		r := &recorder{conn: s}
		out := c.AppendRequest(nil, id, h, true)
		if n := len(frames(t, out)) - 2; n != (size+300)/16384+1 && n != size/16384+1 {
			t.Errorf("%d bytes in %d frames", size, n)
		}
		if _, err := s.Decode(out, 1, r); err != nil || !strings.Contains(r.out.String(), fmt.Sprintf("x-long: %q", strings.Repeat("v", size))) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestFieldsOfOneHopAreNotSent(t *testing.T) {
	s, c := New(Server, Limits{}), New(Client, Limits{})
	h := getRequest()
	for _, line := range []string{"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings", "te", "host", "Content-Length"} {
		h.AddString(line, "x")
	}
	h.AddString("X-Mixed-Case", "y")
	h.TETrailers, h.ExpectContinue, h.BodyLength = true, true, 3
	id, _ := c.NewStream()
	r := &recorder{conn: s}
	if _, err := s.Decode(c.AppendRequest(nil, id, h, false), 1, r); err != nil {
		t.Fatal(err)
	}
	want := "1 request GET \"/orders/17\" \"orders.svc:8080\" http length=3 last=false te=true expect=true up=\"\" form=0\n" +
		"  user-agent: \"test/1.0\"\n  accept: \"*/*\"\n  x-request-id: \"4f3c2a10-8a8e-4c0e-9d5f-1b2c3d4e5f60\"\n" +
		"  traceparent: \"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"\n  x-mixed-case: \"y\"\n"
	if got := r.out.String(); got != want {
		t.Errorf("%s", got)
	}
}

// A response that comes before the request's end, and waits for windows, ends its
// stream all the same: else its place would be the peer's to keep.
func TestTheRestOfARequestIsRefusedBehindTheResponseThatWaited(t *testing.T) {
	c := New(Server, Limits{})
	r := &sinkNull{conn: c}
	p := (&peerSide{}).preface().frame(frameSettings, 0, 0, "\x00\x04"+u32(0)).headers(0, 1, get...)
	decode := func() {
		t.Helper()
		n, err := c.Decode(p.Bytes(), 1, r)
		if err != nil {
			t.Fatal(err)
		}
		p.Next(n)
	}
	decode()
	c.AppendPending(nil)
	c.AppendResponse(nil, 1, ok200(), false)
	c.AppendData(nil, 1, []byte("hello"), true)
	c.StopRequest(1)
	if c.HasPending() || c.Streams() != 1 {
		t.Fatalf("pending %v, %d streams", c.HasPending(), c.Streams())
	}
	p.frame(frameWindowUpdate, 0, 1, u32(100))
	decode()
	var out []byte
	for c.HasPending() {
		out = c.AppendPending(out)
	}
	if got := frames(t, out); len(got) != 2 || got[1] != "reset 1 NO_ERROR" || c.Streams() != 0 {
		t.Errorf("%v, %d streams", got, c.Streams())
	}
	p.frame(frameData, flagEndStream, 1, "late") // on its way
	decode()
}
