// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"strings"
	"testing"
)

// TestWrongFramesEndTheConnection are the connection errors of RFC 9113 §4 to §6.
func TestWrongFramesEndTheConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(p *peerSide)
		want *Error
	}{
		{"HEADERS first", func(p *peerSide) { p.Reset(); p.WriteString(Preface); p.get(1) }, errFirstFrame},
		{"an acknowledgement first", func(p *peerSide) { p.Reset(); p.WriteString(Preface); p.frame(frameSettings, flagAck, 0) }, errFirstFrame},
		{"HTTP/1", func(p *peerSide) { p.Reset(); p.WriteString("GET / HTTP/1.1\r\n\r\n") }, errPreface},
		{"a frame too large", func(p *peerSide) { p.frame(frameData, 0, 1, strings.Repeat("x", 16385)) }, errFrameSize},
		{"DATA on stream 0", func(p *peerSide) { p.frame(frameData, 0, 0, "x") }, errFrameStream},
		{"DATA on an idle stream", func(p *peerSide) { p.frame(frameData, 0, 1, "x") }, errIdle},
		{"DATA with too much padding", func(p *peerSide) { p.headers(0, 1, get...).frame(frameData, flagPadded, 1, "\x05abc") }, errPadding},
		{"padded DATA without a length", func(p *peerSide) { p.headers(0, 1, get...).frame(frameData, flagPadded, 1) }, errFrameLength},
		{"HEADERS on stream 0", func(p *peerSide) { p.get(0) }, errFrameStream},
		{"HEADERS on an even stream", func(p *peerSide) { p.get(2) }, errStreamID},
		{"HEADERS with a lower number", func(p *peerSide) { p.get(5).get(3) }, errStreamID},
		{"HEADERS on a stream that was reset", func(p *peerSide) { p.get(1).frame(frameReset, 0, 1, u32(8)).get(1) }, errClosedHeaders},
		{"HEADERS with too much padding", func(p *peerSide) { p.frame(frameHeaders, flagPadded|flagEndHeaders, 1, "\x05abc") }, errPadding},
		{"HEADERS within a block", func(p *peerSide) { p.frame(frameHeaders, 0, 1).get(3) }, errNoContinuation},
		{"an unknown frame within a block", func(p *peerSide) { p.frame(frameHeaders, 0, 1).frame(0x16, 0, 0) }, errNoContinuation},
		{"CONTINUATION of another stream", func(p *peerSide) { p.frame(frameHeaders, 0, 1).frame(frameContinuation, flagEndHeaders, 3) }, errNoContinuation},
		{"CONTINUATION of nothing", func(p *peerSide) { p.get(1).frame(frameContinuation, flagEndHeaders, 1) }, errContinuation},
		{"a broken block", func(p *peerSide) { p.frame(frameHeaders, flagEndHeaders, 1, "\x80") }, errCompression},
		{"a broken block of trailers", func(p *peerSide) {
			p.headers(0, 1, get...).frame(frameHeaders, flagEndHeaders, 1, "\xff\xff\xff\xff\xff\xff")
		}, errCompression},
		{"PRIORITY on stream 0", func(p *peerSide) { p.frame(framePriority, 0, 0, "12345") }, errFrameStream},
		{"PRIORITY of an idle stream on itself", func(p *peerSide) { p.frame(framePriority, 0, 3, u32(3), "x") }, errSelfDependency},
		{"RST_STREAM on stream 0", func(p *peerSide) { p.frame(frameReset, 0, 0, u32(8)) }, errFrameStream},
		{"RST_STREAM on an idle stream", func(p *peerSide) { p.frame(frameReset, 0, 1, u32(8)) }, errIdle},
		{"RST_STREAM of wrong length", func(p *peerSide) { p.get(1).frame(frameReset, 0, 1, "xxx") }, errFrameLength},
		{"SETTINGS on a stream", func(p *peerSide) { p.frame(frameSettings, 0, 1) }, errFrameStream},
		{"SETTINGS of wrong length", func(p *peerSide) { p.frame(frameSettings, 0, 0, "xxx") }, errFrameLength},
		{"an acknowledgement with content", func(p *peerSide) { p.frame(frameSettings, flagAck, 0, "xxxxxx") }, errFrameLength},
		{"ENABLE_PUSH of 2", func(p *peerSide) { p.frame(frameSettings, 0, 0, "\x00\x02"+u32(2)) }, errSettingPush},
		{"INITIAL_WINDOW_SIZE of 2^31", func(p *peerSide) { p.frame(frameSettings, 0, 0, "\x00\x04"+u32(1<<31)) }, errSettingWindow},
		{"MAX_FRAME_SIZE of 0", func(p *peerSide) { p.frame(frameSettings, 0, 0, "\x00\x05"+u32(0)) }, errSettingFrameSize},
		{"MAX_FRAME_SIZE of 2^24", func(p *peerSide) { p.frame(frameSettings, 0, 0, "\x00\x05"+u32(1<<24)) }, errSettingFrameSize},
		{"ENABLE_CONNECT_PROTOCOL of 2", func(p *peerSide) { p.frame(frameSettings, 0, 0, "\x00\x08"+u32(2)) }, errSettingConnect},
		{"a window above its limit by SETTINGS", func(p *peerSide) {
			p.get(1).frame(frameWindowUpdate, 0, 1, u32(maxWindow-70_000)).frame(frameSettings, 0, 0, "\x00\x04"+u32(140_000))
		}, errSettingWindow},
		{"PUSH_PROMISE", func(p *peerSide) { p.get(1).frame(framePush, flagEndHeaders, 1, u32(2)) }, errPush},
		{"PING on a stream", func(p *peerSide) { p.frame(framePing, 0, 1, "12345678") }, errFrameStream},
		{"PING of wrong length", func(p *peerSide) { p.frame(framePing, 0, 0, "1234567") }, errFrameLength},
		{"GOAWAY on a stream", func(p *peerSide) { p.frame(frameGoAway, 0, 1, "12345678") }, errFrameStream},
		{"GOAWAY that raises the last stream", func(p *peerSide) {
			p.frame(frameGoAway, 0, 0, u32(1), u32(0)).frame(frameGoAway, 0, 0, u32(3), u32(0))
		}, errGoAwayRaised},
		{"WINDOW_UPDATE of zero", func(p *peerSide) { p.frame(frameWindowUpdate, 0, 0, u32(0)) }, errWindowZero},
		{"WINDOW_UPDATE of wrong length", func(p *peerSide) { p.frame(frameWindowUpdate, 0, 0, "xxx") }, errFrameLength},
		{"WINDOW_UPDATE on an idle stream", func(p *peerSide) { p.frame(frameWindowUpdate, 0, 1, u32(1)) }, errIdle},
		{"a window above its limit", func(p *peerSide) { p.frame(frameWindowUpdate, 0, 0, u32(maxWindow)) }, errWindowOverflow},
	} {
		p := (&peerSide{}).preface()
		c.send(p)
		got := serve(t, Limits{}, p)
		if !strings.HasSuffix(got, "error "+c.want.Detail+"\n") {
			t.Errorf("%s:\n%swant %s", c.name, got, c.want.Detail)
		}
	}
}

// TestWrongFramesOfAStreamEndTheStream are the stream errors of RFC 9113 §5 and §6.
func TestWrongFramesOfAStreamEndTheStream(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(p *peerSide)
		want *Error
	}{
		{"WINDOW_UPDATE of zero", func(p *peerSide) { p.get(1).frame(frameWindowUpdate, 0, 1, u32(0)) }, errStreamZero},
		{"a window above its limit", func(p *peerSide) { p.get(1).frame(frameWindowUpdate, 0, 1, u32(maxWindow)) }, errStreamOverflow},
		{"DATA behind the end", func(p *peerSide) { p.get(1).frame(frameData, 0, 1, "x") }, errClosed},
		{"HEADERS behind the end", func(p *peerSide) { p.get(1).get(1) }, errClosed},
		{"DATA on a stream that the peer reset", func(p *peerSide) { p.get(1).frame(frameReset, 0, 1, u32(8)).frame(frameData, 0, 1, "x") }, errClosed},
		{"PRIORITY of wrong length", func(p *peerSide) { p.get(1).frame(framePriority, 0, 1, "xxx") }, errPriorityLength},
		{"PRIORITY of a stream on itself", func(p *peerSide) { p.get(1).frame(framePriority, 0, 1, u32(1), "x") }, errSelfDependency},
		{"HEADERS of a stream on itself", func(p *peerSide) {
			p.frame(frameHeaders, flagEndHeaders|flagEndStream|flagPriority, 1, u32(1), "x", p.encode(get...))
		}, errSelfDependency},
		{"more data than the window", func(p *peerSide) {
			p.headers(0, 1, get...).frame(frameData, 0, 1, strings.Repeat("x", 16384)).frame(frameData, 0, 1, strings.Repeat("x", 16384)).
				frame(frameData, 0, 1, strings.Repeat("x", 16384)).frame(frameData, 0, 1, strings.Repeat("x", 16384)).frame(frameData, 0, 1, "x")
		}, errStreamExceeded},
	} {
		p := (&peerSide{}).preface()
		c.send(p)
		p.get(9)
		hold := New(Server, Limits{})
		r := &recorder{conn: hold}
		_, err := hold.Decode(p.Bytes(), 1, r)
		got := result(r, err)
		if !strings.Contains(got, "1 reset "+c.want.Code.String()+" local=true "+c.want.Detail+"\n9 request") {
			t.Errorf("%s:\n%.2000s\nwant %s", c.name, got, c.want.Detail)
		}
	}
}

func TestFramesThatAreNoErrorAreTaken(t *testing.T) {
	q := (&peerSide{}).preface().frame(framePriority, 0, 7, u32(3), "x").frame(0x77, 0xff, 5, "whatever").frame(frameSettings, 0, 0, "\xff\xff"+u32(7))
	block := q.encode(get...)
	q.frame(frameHeaders, flagPadded|flagPriority|flagEndStream, 9, "\x02", u32(0x80000003), "\x10", block[:3], "\x00\x00").
		frame(frameContinuation, 0, 9, block[3:5]).frame(frameContinuation, flagEndHeaders, 9, block[5:])
	if got := serve(t, Limits{}, q); !strings.HasPrefix(got, "9 request GET") || strings.Contains(got, "error") {
		t.Error(got)
	}
}

func TestThePrefaceIsToldByItsFirstBytes(t *testing.T) {
	for i := range Preface {
		if yes, maybe := IsPreface([]byte(Preface[:i])); yes || !maybe {
			t.Errorf("%d bytes: %v %v", i, yes, maybe)
		}
	}
	if yes, maybe := IsPreface([]byte(Preface + "x")); !yes || !maybe {
		t.Error("the whole of it")
	}
	if yes, maybe := IsPreface([]byte("PUT")); yes || maybe {
		t.Error("PUT")
	}
}
