// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// recorder writes down events. Pieces of a body are joined, because where they
// are cut is the one thing that may depend on how the input was.
type recorder struct {
	out     strings.Builder
	bodies  map[uint32][]byte
	conn    *Conn
	consume bool // credit what comes at once
	fail    error
	onHead  func(stream uint32)
}

func (r *recorder) fields(h *codec.Header) {
	for i := range h.Slots() {
		if name, value, _, ok := h.At(i); ok {
			fmt.Fprintf(&r.out, "  %s: %q\n", name, value)
		}
	}
}

func (r *recorder) RequestHead(id uint32, h *codec.RequestHead, last bool) error {
	fmt.Fprintf(&r.out, "%d request %s %q %q %s length=%d last=%v te=%v expect=%v up=%q form=%d\n", id, h.MethodBytes(), h.Path(),
		h.Authority(), h.Scheme(), h.BodyLength, last, h.TETrailers, h.ExpectContinue, h.UpgradeProtocol(), h.Form)
	r.fields(&h.Header)
	if r.onHead != nil {
		r.onHead(id)
	}
	return r.fail
}

func (r *recorder) ResponseHead(id uint32, h *codec.ResponseHead, last bool) error {
	fmt.Fprintf(&r.out, "%d response %d length=%d last=%v nobody=%v\n", id, h.Status, h.BodyLength, last, h.NoBody)
	r.fields(&h.Header)
	return r.fail
}

func (r *recorder) Informational(id uint32, h *codec.ResponseHead) error {
	fmt.Fprintf(&r.out, "%d informational %d\n", id, h.Status)
	r.fields(&h.Header)
	return r.fail
}

func (r *recorder) Data(id uint32, b []byte, last bool) error {
	if r.bodies == nil {
		r.bodies = map[uint32][]byte{}
	}
	r.bodies[id] = append(r.bodies[id], b...)
	if r.consume {
		r.conn.Consumed(id, len(b))
	}
	if last {
		fmt.Fprintf(&r.out, "%d body %q\n", id, r.bodies[id])
	}
	return r.fail
}

func (r *recorder) Trailer(id uint32, h *codec.Header) error {
	fmt.Fprintf(&r.out, "%d body %q trailer\n", id, r.bodies[id])
	r.fields(h)
	return r.fail
}

func (r *recorder) Tunnel(uint32) error { panic("never called") }

func (r *recorder) Reset(id uint32, code ErrorCode, local bool) {
	detail := ""
	if local {
		detail = " " + r.conn.ResetCause().Detail
	}
	fmt.Fprintf(&r.out, "%d reset %s local=%v%s\n", id, code, local, detail)
}
func (r *recorder) Drained(id uint32) { fmt.Fprintf(&r.out, "%d drained\n", id) }
func (r *recorder) GoAway(last uint32, code ErrorCode) {
	fmt.Fprintf(&r.out, "goaway %d %s\n", last, code)
}

// peerSide builds what a peer sends.
type peerSide struct {
	bytes.Buffer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func (p *peerSide) frame(kind frameType, flags uint8, stream uint32, parts ...string) *peerSide {
	payload := strings.Join(parts, "")
	p.Write(appendFrame(nil, len(payload), kind, flags, stream))
	p.WriteString(payload)
	return p
}

func (p *peerSide) preface() *peerSide { p.WriteString(Preface); return p.frame(frameSettings, 0, 0) }

// encode makes a header block of "name: value" lines.
func (p *peerSide) encode(lines ...string) string {
	if p.enc == nil {
		p.enc = hpack.NewEncoder(&p.block)
	}
	p.block.Reset()
	for _, l := range lines {
		i := strings.Index(l[1:], ": ") + 1
		if err := p.enc.WriteField(hpack.HeaderField{Name: l[:i], Value: l[i+2:]}); err != nil {
			panic(err)
		}
	}
	return p.block.String()
}

func (p *peerSide) headers(flags uint8, stream uint32, lines ...string) *peerSide {
	return p.frame(frameHeaders, flags|flagEndHeaders, stream, p.encode(lines...))
}

var get = []string{":method: GET", ":scheme: http", ":path: /", ":authority: a"}

func (p *peerSide) get(stream uint32) *peerSide {
	return p.headers(flagEndStream, stream, get...)
}

func u32(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }

// result is all that can be told from outside.
func result(r *recorder, err error) string {
	if err != nil {
		fmt.Fprintf(&r.out, "error %s\n", err)
	}
	return r.out.String()
}

// decodeCut feeds bytes in pieces of a size as a connection does.
func decodeCut(t testing.TB, c *Conn, r *recorder, in []byte, size int) error {
	t.Helper()
	r.conn = c
	var kept []byte
	for len(in) > 0 {
		n := min(size, len(in))
		kept = append(kept, in[:n]...)
		in = in[n:]
		buf := bytes.Clone(kept)
		m, err := c.Decode(buf, 1, r)
		if m < 0 || m > len(buf) {
			t.Fatalf("consumed %d of %d", m, len(buf))
		}
		for i := range buf {
			buf[i] = '#'
		}
		if err != nil {
			return err
		}
		kept = append(kept[:0], kept[m:]...)
	}
	return nil
}

// serve is what a server makes of a peer's bytes, the same however they are cut.
func serve(t *testing.T, l Limits, p *peerSide) string {
	t.Helper()
	want := ""
	for _, size := range []int{1 << 20, 1, 2, 3, 7, 10, 64, 1000} {
		c := New(Server, l)
		r := &recorder{consume: true}
		got := result(r, decodeCut(t, c, r, p.Bytes(), size))
		if want == "" {
			want = got
		} else if got != want {
			t.Fatalf("in pieces of %d:\n%s\ninstead of\n%s", size, got, want)
		}
	}
	return want
}

// frames splits what was written.
func frames(t testing.TB, b []byte) (list []string) {
	t.Helper()
	b = bytes.TrimPrefix(b, []byte(Preface))
	for len(b) > 0 {
		if len(b) < frameHeaderSize {
			t.Fatalf("%d bytes of a frame", len(b))
		}
		f := parseFrame(b)
		payload := b[frameHeaderSize:][:f.length]
		b = b[frameHeaderSize+int(f.length):]
		name := [...]string{"data", "headers", "priority", "reset", "settings", "push", "ping", "goaway", "window", "continuation"}[f.kind]
		switch f.kind {
		case frameData, frameHeaders, frameContinuation, frameSettings:
			list = append(list, fmt.Sprintf("%s %d flags=%x %d", name, f.stream, f.flags, f.length))
		case frameGoAway:
			list = append(list, fmt.Sprintf("%s %d %s", name, binary.BigEndian.Uint32(payload), ErrorCode(binary.BigEndian.Uint32(payload[4:]))))
		case frameReset:
			list = append(list, fmt.Sprintf("%s %d %s", name, f.stream, ErrorCode(binary.BigEndian.Uint32(payload))))
		case frameWindowUpdate:
			list = append(list, fmt.Sprintf("%s %d %d", name, f.stream, binary.BigEndian.Uint32(payload)))
		default:
			list = append(list, fmt.Sprintf("%s flags=%x %x", name, f.flags, payload))
		}
	}
	return list
}
