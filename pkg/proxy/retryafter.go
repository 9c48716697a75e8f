// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// heed takes from the head or the trailers of an error how long the endpoint wants
// to be left alone: Retry-After, in seconds or as a date, and of calls of gRPC
// grpc-retry-pushback-ms. It is looked for where somebody goes by it.
func (a *attempt) heed(h *codec.Header) {
	if !a.on.heeds || a.judged() < 400 {
		return
	}
	var wait time.Duration
	if v := h.Get("retry-after"); v != nil {
		wait = retryAfter(v, a.x.w.loop.Wall())
	}
	if v := h.Get("grpc-retry-pushback-ms"); v != nil && a.x.call.is {
		wait = max(wait, time.Duration(digits(v))*time.Millisecond)
	}
	if wait > 0 {
		a.retryAt = a.x.w.loop.Now() + int64(min(wait, breaker.MaxRetryAfter))
	}
}

// retryAfter reads the field; 0 where it says nothing or a time that has passed.
func retryAfter(v []byte, wall int64) time.Duration {
	if n := digits(v); n > 0 {
		return time.Duration(n) * time.Second
	}
	if len(v) != len(httpDate) {
		return 0
	}
	at, err := time.Parse(httpDate, string(v))
	if err != nil {
		return 0
	}
	return time.Duration(at.UnixNano() - wall)
}

// httpDate is IMF-fixdate of RFC 9110; the obsolete forms are not understood.
const httpDate = "Mon, 02 Jan 2006 15:04:05 GMT"

// digits reads a number without a sign of at most nine digits; more are as many
// nines, and anything else is 0.
func digits(v []byte) (n int64) {
	for _, b := range v {
		if b < '0' || b > '9' {
			return 0
		}
		n = min(n*10+int64(b-'0'), 999_999_999)
	}
	return n
}
