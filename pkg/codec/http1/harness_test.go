// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// recorder writes down events. Pieces of a body are joined, because where they
// are cut is the one thing that may depend on how the input was.
type recorder struct {
	out  strings.Builder
	body []byte
	head codec.RequestHead // a copy of the last request head
	resp codec.ResponseHead
	tail codec.Header
	open bool // a body has begun
	// refuse is returned by the callback with that number, counted from 1.
	refuse, calls int
}

var errRefused = errors.New("refused by the sink")

func (r *recorder) event() error {
	if r.calls++; r.calls == r.refuse {
		return errRefused
	}
	return nil
}

func (r *recorder) fields(h *codec.Header) {
	for i := range h.Slots() {
		if name, value, _, ok := h.At(i); ok {
			r.out.WriteString(strings.TrimRight(fmt.Sprintf("  %s: %s", name, printable(value)), " ") + "\n")
		}
	}
}

func (r *recorder) flushBody() {
	if r.open && len(r.body) > 0 {
		fmt.Fprintf(&r.out, "data %q\n", r.body)
	}
	r.open = false
}

func flags(pairs ...any) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			b.WriteString(" " + pairs[i].(string))
		}
	}
	return b.String()
}

func length(n int64) string {
	switch n {
	case codec.BodyChunked:
		return "chunked"
	case codec.BodyToClose:
		return "to-close"
	}
	return fmt.Sprint(n)
}

func (r *recorder) RequestHead(stream uint32, h *codec.RequestHead, last bool) error {
	r.head.CopyFrom(h)
	r.body, r.open = r.body[:0], true
	r.tail.Reset()
	form := [...]string{"", " absolute-form", " authority-form", " asterisk-form"}[h.Form]
	fmt.Fprintf(&r.out, "request %s %s host=%s %s%s length=%s%s\n", h.MethodBytes(), h.Path(), h.Authority(), h.Protocol,
		form, length(h.BodyLength), flags("last", last, "keep-alive", h.KeepAlive, "expect", h.ExpectContinue,
			"upgrade="+string(h.UpgradeProtocol()), h.Upgrade, "te", h.TETrailers, "scheme="+string(h.Scheme()), len(h.Scheme()) > 0))
	r.fields(&h.Header)
	return r.event()
}

func (r *recorder) response(kind string, h *codec.ResponseHead, last bool) error {
	r.resp.CopyFrom(h)
	r.tail.Reset()
	fmt.Fprintf(&r.out, "%s %d %q %s length=%s%s\n", kind, h.Status, h.Reason(), h.Protocol, length(h.BodyLength),
		flags("last", last, "no-body", h.NoBody, "keep-alive", h.KeepAlive, "upgrade="+string(h.UpgradeProtocol()), len(h.UpgradeProtocol()) > 0))
	r.fields(&h.Header)
	return r.event()
}

func (r *recorder) ResponseHead(_ uint32, h *codec.ResponseHead, last bool) error {
	r.body, r.open = r.body[:0], true
	return r.response("response", h, last)
}

func (r *recorder) Informational(_ uint32, h *codec.ResponseHead) error {
	return r.response("informational", h, false)
}

func (r *recorder) Data(_ uint32, b []byte, last bool) error {
	r.body = append(r.body, b...)
	if last {
		r.flushBody()
		r.out.WriteString("end\n")
	}
	return r.event()
}

func (r *recorder) Trailer(_ uint32, h *codec.Header) error {
	r.flushBody()
	r.tail.CopyFrom(h)
	r.out.WriteString("trailer\n")
	r.fields(h)
	return r.event()
}

func (r *recorder) Tunnel(uint32) error {
	r.out.WriteString("tunnel\n")
	return r.event()
}

// peer feeds a decoder as a connection does: what was not consumed is presented
// again with the next piece. Each presentation is a buffer of its own that is
// spoiled afterwards, so that nothing can live on in it.
type peer struct {
	recorder
	pending []byte
	decode  func(in []byte, r *recorder) (int, error)
	done    func() bool // the message ended: go on to the next one
	err     error
}

func (p *peer) feed(piece []byte) {
	p.pending = append(p.pending, piece...)
	for p.err == nil {
		buf := append(make([]byte, 0, len(p.pending)+16), p.pending...)
		n, err := p.decode(buf, &p.recorder)
		if n < 0 || n > len(buf) {
			panic(fmt.Sprintf("consumed %d of %d bytes", n, len(buf)))
		}
		for i := range buf[:cap(buf)] {
			buf[:cap(buf)][i] = '#'
		}
		p.pending = append(p.pending[:0], p.pending[n:]...)
		p.err = err
		if err != nil || !p.done() || len(p.pending) == 0 {
			return
		}
	}
}

// result is all that can be told from outside. Where an error came in the
// middle of a body, how much of it was handed on before does not count.
func (p *peer) result() string {
	if p.err != nil {
		var e *Error
		if errors.As(p.err, &e) {
			return fmt.Sprintf("%serror %d %s\n", p.out.String(), e.Status, e.Detail)
		}
		return p.out.String() + "error " + p.err.Error() + "\n"
	}
	p.flushBody()
	if len(p.pending) > 0 {
		fmt.Fprintf(&p.out, "pending %q\n", p.pending)
	}
	return p.out.String()
}

func newRequestPeer(l Limits) *peer {
	d := NewRequestDecoder(l)
	var h codec.RequestHead
	return &peer{
		decode: func(in []byte, r *recorder) (int, error) { return d.Decode(in, &h, r) },
		done: func() bool {
			done := d.Done()
			d.NextMessage()
			return done
		},
	}
}

// newResponsePeer expects one response for each of the methods.
func newResponsePeer(l Limits, upgrade bool, methods ...codec.Method) (*peer, *ResponseDecoder) {
	d := NewResponseDecoder(l)
	var h codec.ResponseHead
	next := func() bool {
		if len(methods) == 0 {
			return true
		}
		if upgrade {
			d.ExpectUpgrade(methods[0])
		} else {
			d.Expect(methods[0])
		}
		methods = methods[1:]
		return true
	}
	next()
	return &peer{
		decode: func(in []byte, r *recorder) (int, error) { return d.Decode(in, &h, r) },
		done:   func() bool { return d.Done() && next() },
	}, &d
}

// cuts are ways to cut n bytes: whole, byte by byte, in two at some places.
func cuts(n int) [][]int {
	all := [][]int{{n}}
	bytewise := make([]int, 0, n)
	for i := 1; i <= n; i++ {
		bytewise = append(bytewise, i)
	}
	all = append(all, bytewise)
	step := max(1, n/100)
	for i := 1; i < n; i += step {
		all = append(all, []int{i, n})
	}
	for _, size := range []int{2, 3, 7, 64, 1000} {
		var c []int
		for i := size; i < n; i += size {
			c = append(c, i)
		}
		all = append(all, append(c, n))
	}
	return all
}

func feedCut(p *peer, in []byte, cut []int) {
	at := 0
	for _, end := range cut {
		p.feed(in[at:end])
		at = end
	}
}

func printable(b []byte) string {
	s := fmt.Sprintf("%q", b)
	return s[1 : len(s)-1]
}
