// SPDX-License-Identifier: Apache-2.0

package responsecache

import (
	"bytes"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// entry is an answer that is kept. It is immutable once it is in the cache.
type entry struct {
	owner    string
	key      []byte
	vary     []byte // see appendVariant
	head     codec.ResponseHead
	body     []byte
	size     int64
	storedAt int64 // monotonic
	// in nanoseconds
	age          int64 // when it came (RFC 9111 §4.2.3)
	lifetime     int64
	staleIfError int64 // how long it may be stale; -1: it does not say
	noStale      bool
}

// weight is what the entry takes beside its body, in bytes.
func (e *entry) weight() int64 {
	return int64(entryBytes + len(e.owner) + len(e.key) + len(e.vary) + e.head.Size() + fieldBytes*e.head.Slots())
}

// Found is an answer that may be used. Head and Body are not to be changed.
type Found struct {
	Head *codec.ResponseHead
	Body []byte
	Age  time.Duration
	TTL  time.Duration // how long it is still fresh; less than 0: it is stale
}

// usable applies what the response and the request say about its age.
func (e *entry) usable(asked *directives, now int64, maxAge time.Duration) (f Found, ok bool) {
	age := e.age + max(now-e.storedAt, 0)
	stale := age - e.lifetime
	f = Found{Head: &e.head, Body: e.body, Age: time.Duration(age), TTL: time.Duration(-stale)}
	second := int64(time.Second)
	switch {
	case age > int64(maxAge):
	case stale >= 0 && (e.noStale || e.staleIfError >= 0 && stale > e.staleIfError):
	case asked.maxAge >= 0 && (age > asked.maxAge*second || stale >= 0 && asked.maxStale < 0):
	case asked.minFresh >= 0 && -stale < asked.minFresh*second:
	case asked.maxStale >= 0 && stale > asked.maxStale*second:
	default:
		return f, true
	}
	return f, false
}

// appendVariant appends the fields that the response varies by, with what the request
// says in them: name NUL value NUL ... not ok where no request is like another.
func appendVariant(dst []byte, resp *codec.ResponseHead, req *codec.RequestHead) (out []byte, ok bool) {
	for i := resp.Index("vary", 0); i >= 0; i = resp.Index("vary", i+1) {
		_, v, _, _ := resp.At(i)
		for name := range bytes.SplitSeq(v, []byte(",")) {
			name = bytes.ToLower(bytes.Trim(name, " \t"))
			switch {
			case len(name) == 0:
				continue
			case !codec.ValidName(name) || string(name) == "*": // "*" is a token
				return dst, false
			}
			dst = append(append(dst, name...), 0)
			dst = appendValue(dst, req, string(name))
			dst = append(dst, 0)
		}
	}
	return dst, true
}

// appendValue appends what a request says in a field: a 1 before it tells an empty value
// from none.
func appendValue(dst []byte, req *codec.RequestHead, name string) []byte {
	if name == "host" {
		return append(append(dst, 1), req.Authority()...)
	}
	at := len(dst)
	dst = append(dst, 1)
	dst, there := req.AppendJoined(dst, name)
	if !there {
		return dst[:at]
	}
	return dst
}

// answers reports whether the entry is for a request, by the fields that it varies by.
func (e *entry) answers(req *codec.RequestHead, scratch []byte) ([]byte, bool) {
	for list := e.vary; len(list) > 0; {
		name, rest, _ := bytes.Cut(list, []byte{0})
		value, rest, _ := bytes.Cut(rest, []byte{0})
		scratch = appendValue(scratch[:0], req, string(name))
		if !bytes.Equal(scratch, value) {
			return scratch, false
		}
		list = rest
	}
	return scratch, true
}
