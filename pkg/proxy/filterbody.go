// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// Bodies pass the filters as heads do: of requests in the order of the chain, of
// responses in the reverse. A filter that changes a body comes before it looks at
// it, so that each sees what the one before it has made.

// filterData passes a piece of the request's body through the filters.
func (x *exchange) filterData(chunk []byte, last bool) (out []byte, ok bool) {
	hooks := x.manager.filters[x.w.index]
	for i := range hooks {
		if h := hooks[i].changeRequest; h != nil {
			if chunk, ok = h.TransformRequest(&x.Exchange, chunk, last); !ok {
				return nil, false
			}
		}
		if h := hooks[i].requestData; h != nil {
			h.OnRequestData(&x.Exchange, chunk, last)
		}
	}
	return chunk, true
}

// filterKept passes through the filters what came of the body before they had
// seen its head. Where that is changed, the change is what is kept.
func (x *exchange) filterKept() filter.Verdict {
	out, ok := x.filterData(x.body, x.requestDone)
	switch {
	case !ok:
		return x.reply(&failureBadBody)
	case len(out) > 0 && len(x.body) > 0 && &out[0] == &x.body[0]:
		x.body = out
	case len(out) > 0 || len(x.body) > 0:
		if x.body == nil {
			x.body = x.w.takeBody()
		}
		x.body = append(x.body[:0], out...)
	}
	return filter.Next
}

// filterAnswer passes a piece of the response's body through the filters.
func (x *exchange) filterAnswer(chunk []byte, last bool) []byte {
	hooks := x.manager.filters[x.w.index]
	for i := len(hooks) - 1; i >= 0; i-- {
		if h := hooks[i].changeResponse; h != nil {
			chunk = h.TransformResponse(&x.Exchange, chunk, last)
		}
		if h := hooks[i].responseData; h != nil {
			h.OnResponseData(&x.Exchange, chunk, last)
		}
	}
	return chunk
}

// filterTrailer passes the trailers through the filters; body: they have become
// the end of the body.
func (x *exchange) filterTrailer(h *codec.Header) (end []byte, body bool) {
	hooks := x.manager.filters[x.w.index]
	for i := len(hooks) - 1; i >= 0; i-- {
		if f := hooks[i].responseTrailer; f != nil && !body {
			f.OnResponseTrailer(&x.Exchange, h)
		}
		if f := hooks[i].changeResponse; f != nil {
			if body {
				end = f.TransformResponse(&x.Exchange, end, true)
			} else {
				end, body = f.TransformTrailer(&x.Exchange, h)
			}
		}
		if f := hooks[i].responseData; f != nil {
			f.OnResponseData(&x.Exchange, end, true)
		}
	}
	return end, body
}
