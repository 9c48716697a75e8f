// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// Call is a request that this process itself sends through the data path of a
// listener: routed, balanced, broken and recorded like one of its connections.
type Call struct {
	Method, Authority, Path string
	Header                  [][2]string // names in lower case
	Body                    []byte
}

// Answer is what became of a Call.
type Answer struct {
	Status int
	Header [][2]string
	Body   []byte
	Flags  record.Flags
	Err    error // the answer is not whole, or there is none
}

// MaxAnswer is how much of an answer's body is kept; a longer one is an error.
const MaxAnswer = 1 << 20

var (
	errAnswerCut  = errors.New("the response broke off")
	errAnswerLong = fmt.Errorf("the response is longer than %d bytes", MaxAnswer)
)

// SubmitOffLoop sends a Call through the first HTTP filter chain of a listener,
// on the worker given (modulo their number). done is called once, on that
// worker's loop: it must not block. An error means that done is never called.
func (p *Proxy) SubmitOffLoop(worker int, listenerName string, c Call, done func(Answer)) error {
	p.mu.Lock()
	l := p.listeners[listenerName]
	p.mu.Unlock()
	if l == nil {
		return fmt.Errorf("internal call: no listener %q", listenerName)
	}
	var m *manager
	for _, ch := range l.config.Load().all() {
		if m = ch.manager.Load(); m != nil {
			break
		}
	}
	if m == nil {
		return fmt.Errorf("internal call: listener %q speaks no HTTP", listenerName)
	}
	w := p.workers[worker%len(p.workers)]
	w.loop.PostOffLoop(func() { w.submit(m, &c, done) })
	return nil
}

// internalCall is the downstream side of an internal exchange.
type internalCall struct {
	answer Answer
	tell   func(Answer)
}

func (w *worker) submit(m *manager, c *Call, done func(Answer)) {
	d := &internalCall{tell: done}
	x := w.newExchange(m, d)
	defer w.contained(x)
	h := &x.Request
	h.SetMethod([]byte(c.Method))
	h.SetPath([]byte(c.Path))
	h.SetAuthority([]byte(c.Authority))
	h.Protocol, h.KeepAlive = codec.HTTP11, true
	h.BodyLength = int64(len(c.Body))
	for _, f := range c.Header {
		h.AddString(f[0], f[1])
	}
	x.Record.FilterChain = m.chain
	if len(c.Body) > 0 {
		x.requestData(c.Body, true)
	} else {
		x.requestEnded()
	}
	x.start()
}

func (d *internalCall) sendInformational(*exchange, *codec.ResponseHead) {}

func (d *internalCall) sendHead(x *exchange, _ bool) {
	d.answer.Status = x.Response.Status
	for i := range x.Response.Slots() {
		if name, value, _, ok := x.Response.At(i); ok {
			d.answer.Header = append(d.answer.Header, [2]string{string(name), string(value)})
		}
	}
}

func (d *internalCall) sendData(_ *exchange, chunk []byte, _ bool) {
	if len(d.answer.Body)+len(chunk) > MaxAnswer {
		d.answer.Err = errAnswerLong
		return
	}
	d.answer.Body = append(d.answer.Body, chunk...)
}

func (d *internalCall) sendTrailer(*exchange, *codec.Header) {}

func (d *internalCall) abort(*exchange) { d.answer.Err = errAnswerCut }

func (d *internalCall) holdRequest(*exchange, bool) {}

func (d *internalCall) full() bool { return false }

func (d *internalCall) done(x *exchange) {
	d.answer.Flags = x.Record.Flags
	if d.answer.Err == nil && !x.responseDone {
		d.answer.Err = errAnswerCut
	}
	d.tell(d.answer)
}

var _ downstream = (*internalCall)(nil)
var _ downstream = (*downstreamConn)(nil)
