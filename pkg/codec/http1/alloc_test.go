// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"testing"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

func TestDecodersAreSmallEnoughToEmbed(t *testing.T) {
	const limit = 128
	if n := unsafe.Sizeof(RequestDecoder{}); n > limit {
		t.Errorf("RequestDecoder has %d bytes, want at most %d", n, limit)
	}
	if n := unsafe.Sizeof(ResponseDecoder{}); n > limit {
		t.Errorf("ResponseDecoder has %d bytes, want at most %d", n, limit)
	}
}

func TestNothingIsAllocatedInSteadyState(t *testing.T) {
	request := []byte(benchRequest)
	upload := []byte(chunked("5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"))
	nominated := []byte("GET http://a HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n\r\n")
	refused := []byte(post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
	response := append([]byte(benchResponse), make([]byte, 120)...)
	informational := []byte("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")

	var (
		rh   codec.RequestHead
		sh   codec.ResponseHead
		sink = nullSink{keep: true}
		out  []byte
	)
	decode := func(in []byte) func() {
		d := NewRequestDecoder(Limits{})
		return func() {
			if n, err := d.Decode(in, &rh, &sink); n != len(in) || err != nil {
				t.Fatal(n, err)
			}
			d.NextMessage()
		}
	}
	decodeResponse := func(in []byte) func() {
		d := NewResponseDecoder(Limits{})
		return func() {
			d.Expect(codec.MethodGet)
			if n, err := d.Decode(in, &sh, &sink); n != len(in) || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	split := NewRequestDecoder(Limits{})
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"a request", decode(request)},
		{"a chunked request", decode(upload)},
		{"nominations and absolute form", decode(nominated)},
		{"a request byte by byte", func() {
			for i := 1; i <= len(request); i++ {
				if n, err := split.Decode(request[:i], &rh, &sink); err != nil || (n > 0) != (i == len(request)) {
					t.Fatal(i, n, err)
				}
			}
			split.NextMessage()
		}},
		{"a refusal", func() {
			d := NewRequestDecoder(Limits{})
			if _, err := d.Decode(refused, &rh, &sink); err != error(errLengthBoth) {
				t.Fatal(err)
			}
		}},
		{"a response", decodeResponse(response)},
		{"informational and chunked responses", decodeResponse(informational)},
		{"encoding a request", func() { out = AppendRequest(out[:0], &sink.request) }},
		{"encoding a response", func() { out = AppendResponse(out[:0], &sink.response, codec.HTTP11, false) }},
		{"encoding chunks", func() { out = AppendLastChunk(AppendChunk(out[:0], request), &sink.response.Header) }},
		{"rewriting a head", func() {
			sink.request.CopyFrom(&rh)
			sink.request.SetPath([]byte("/x"))
			sink.request.SetKnown(codec.NameTraceparent, request[:55:55])
			sink.request.AddKnown(codec.NameXRequestID, request[:36])
			RemoveHopByHop(&sink.request.Header)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n := testing.AllocsPerRun(100, c.run); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
