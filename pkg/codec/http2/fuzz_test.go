// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"testing"
)

// FuzzDecode: no input breaks either role, and the same bytes give the same
// events however they are cut.
func FuzzDecode(f *testing.F) {
	p := (&peerSide{}).preface().headers(0, 1, with("cookie: a", "cookie: b", "content-length: 3")...).frame(frameData, flagPadded|flagEndStream, 1, "\x01abc\x00").
		headers(0, 3, get...).headers(flagEndStream, 3, "x: y").frame(framePing, 0, 0, "12345678").frame(frameGoAway, 0, 0, u32(1), u32(0))
	f.Add(p.Bytes()[len(Preface):], uint8(3))
	q := (&peerSide{}).frame(frameSettings, 0, 0, "\x00\x04"+u32(5)).headers(0, 1, ":status: 103").headers(0, 1, ":status: 200").frame(frameData, 0, 1, "abc").
		frame(frameReset, 0, 1, u32(8)).frame(frameWindowUpdate, 0, 0, u32(9)).frame(frameHeaders, 0, 3, "\x88").frame(frameContinuation, flagEndHeaders, 3)
	f.Add(q.Bytes(), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		for _, role := range []Role{Server, Client} {
			run := func(cut int) (string, []byte) {
				c := New(role, Limits{HeadBytes: 4096, AllowConnect: true})
				b := in
				if role == Server {
					b = append([]byte(Preface), in...)
				} else {
					for range 3 {
						id, _ := c.NewStream()
						c.AppendRequest(nil, id, getRequest(), true)
					}
				}
				r := &recorder{consume: true}
				got := result(r, decodeCut(t, c, r, b, cut))
				return got, c.AppendPending(nil)
			}
			whole, out := run(len(in) + len(Preface) + 1)
			cut, outCut := run(int(size%64) + 1)
			if whole != cut {
				t.Fatalf("cut in %d:\n%s\nwhole\n%s", size%64+1, cut, whole)
			}
			if !bytes.Equal(out, outCut) {
				t.Fatalf("cut in %d: answers %v, whole %v", size%64+1, frames(t, outCut), frames(t, out))
			}
		}
	})
}

// FuzzRoundTrip: what a client appends, a server reads, whatever the windows.
func FuzzRoundTrip(f *testing.F) {
	f.Add("/a?b", "x-name", "value", []byte("body"), uint16(3))
	f.Add("/", "X", " v\r\n", bytes.Repeat([]byte("z"), 3000), uint16(1))
	f.Fuzz(func(t *testing.T, path, name, value string, body []byte, window uint16) {
		l := Limits{InitialStreamWindow: uint32(window) + 1}
		p := newPair(t, l)
		sink := &recorder{conn: p.server, consume: true}
		req := getRequest()
		req.SetPath([]byte("/" + path))
		req.AddString(name, value)
		req.BodyLength = int64(len(body))
		id, _ := p.client.NewStream()
		out := p.client.AppendRequest(nil, id, req, false)
		out = p.client.AppendData(out, id, body, true)
		for range 10 + len(body) {
			n, err := p.server.Decode(out, 1, sink)
			if err != nil {
				t.Fatal(err)
			}
			if out = out[n:]; p.server.HasPending() {
				if _, err := p.client.Decode(p.server.AppendPending(nil), 1, &p.cs); err != nil {
					t.Fatal(err)
				}
			}
			out = p.client.AppendPending(out)
			if len(out) == 0 {
				break
			}
		}
		got := sink.out.String()
		if s := p.server.streams.find(id); s != nil && !s.is(remoteClosed) || s == nil && !bytes.Contains([]byte(got), []byte("reset")) {
			t.Fatalf("the body did not end: %s", got)
		}
		if !bytes.Contains([]byte(got), []byte("reset")) && !bytes.Equal(sink.bodies[id], body) {
			t.Fatalf("%d bytes became %d", len(body), len(sink.bodies[id]))
		}
	})
}
