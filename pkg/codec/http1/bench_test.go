// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

const benchRequest = "GET /api/v1/orders/1234567?expand=items&page=2 HTTP/1.1\r\n" +
	"Host: orders.default.svc.cluster.local:8080\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n" +
	"Accept: application/json, text/plain, */*\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef\r\n" +
	"X-Request-Id: 5f1d7a84-1d2c-4c43-9f8a-4a7b2a1f3f3e\r\n" +
	"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" +
	"X-Forwarded-For: 10.1.2.3\r\n" +
	"Connection: keep-alive\r\n\r\n"

const benchResponse = "HTTP/1.1 200 OK\r\n" +
	"Date: Sun, 22 Nov 2026 18:21:03 GMT\r\n" +
	"Server: orders/1.4.2\r\n" +
	"Content-Type: application/json; charset=utf-8\r\n" +
	"Content-Length: 120\r\n" +
	"Cache-Control: no-cache, private\r\n" +
	"Vary: Accept-Encoding\r\n" +
	"X-Request-Id: 5f1d7a84-1d2c-4c43-9f8a-4a7b2a1f3f3e\r\n" +
	"X-Envoy-Upstream-Service-Time: 3\r\n\r\n"

// nullSink keeps the last heads.
type nullSink struct {
	request  codec.RequestHead
	response codec.ResponseHead
	keep     bool
	bytes    int
}

func (s *nullSink) RequestHead(_ uint32, h *codec.RequestHead, _ bool) error {
	if s.keep {
		s.request.CopyFrom(h)
	}
	return nil
}

func (s *nullSink) ResponseHead(_ uint32, h *codec.ResponseHead, _ bool) error {
	if s.keep {
		s.response.CopyFrom(h)
	}
	return nil
}
func (s *nullSink) Informational(uint32, *codec.ResponseHead) error { return nil }
func (s *nullSink) Data(_ uint32, b []byte, _ bool) error           { s.bytes += len(b); return nil }
func (s *nullSink) Trailer(uint32, *codec.Header) error             { return nil }
func (s *nullSink) Tunnel(uint32) error                             { return nil }

func BenchmarkDecodeRequest(b *testing.B) {
	in := []byte(benchRequest)
	d := NewRequestDecoder(Limits{})
	var h codec.RequestHead
	var s nullSink
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := d.Decode(in, &h, &s); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
		d.NextMessage()
	}
}

func BenchmarkDecodeRequestAndKeep(b *testing.B) {
	in := []byte(benchRequest)
	d := NewRequestDecoder(Limits{})
	var h codec.RequestHead
	s := nullSink{keep: true}
	b.ReportAllocs()
	for b.Loop() {
		if n, err := d.Decode(in, &h, &s); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
		d.NextMessage()
	}
}

func BenchmarkDecodeResponse(b *testing.B) {
	in := append([]byte(benchResponse), make([]byte, 120)...)
	d := NewResponseDecoder(Limits{})
	var h codec.ResponseHead
	var s nullSink
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		d.Expect(codec.MethodGet)
		if n, err := d.Decode(in, &h, &s); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkEncodeRequest(b *testing.B) {
	d := NewRequestDecoder(Limits{})
	var h codec.RequestHead
	s := nullSink{keep: true}
	if _, err := d.Decode([]byte(benchRequest), &h, &s); err != nil {
		b.Fatal(err)
	}
	s.request.AddString("x-envoy-expected-rq-timeout-ms", "15000")
	s.request.SetKnown(codec.NameTraceparent, []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = AppendRequest(out[:0], &s.request)
	}
}

func BenchmarkEncodeResponse(b *testing.B) {
	d := NewResponseDecoder(Limits{})
	d.Expect(codec.MethodGet)
	var h codec.ResponseHead
	s := nullSink{keep: true}
	if _, err := d.Decode([]byte(benchResponse), &h, &s); err != nil {
		b.Fatal(err)
	}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = AppendResponse(out[:0], &s.response, codec.HTTP11, true)
	}
}

// BenchmarkDecodeDribbled is a head of the largest size that comes in byte by
// byte: what a slow sender can make the decoder do, for each byte sent.
func BenchmarkDecodeDribbled(b *testing.B) {
	for _, c := range []struct {
		name string
		line string
		n    int
	}{
		{"one long field", "X: " + strings.Repeat("x", 60_000) + "\r\n", 1},
		{"many fields", "X: " + strings.Repeat("x", 600) + "\r\n", 98},
		{"one long target", "", 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			in := []byte("GET /" + strings.Repeat("a", 8000) + " HTTP/1.1\r\nHost: a\r\n\r\n")
			if c.n > 0 {
				in = []byte("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat(c.line, c.n) + "\r\n")
			}
			d := NewRequestDecoder(Limits{})
			var h codec.RequestHead
			var s nullSink
			b.ReportAllocs()
			for b.Loop() {
				for i := 1; i <= len(in); i++ {
					if n, err := d.Decode(in[:i], &h, &s); err != nil || (n > 0) != (i == len(in)) {
						b.Fatal(i, n, err)
					}
				}
				d.NextMessage()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(in)), "ns/byte")
		})
	}
}
