// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"reflect"
	"strings"
	"testing"
)

// fromSidecar is a span as pkg/trace/export writes it.
const fromSidecar = `{"traceId":"463ac35c9f6413ad48485a3953bb6124","id":"d2f9288a2904503d","parentId":"0020000000000001","kind":"CLIENT","name":"GET default","timestamp":1764527000123456,"duration":3512,"localEndpoint":{"serviceName":"web","ipv4":"127.0.0.1","port":41234},"remoteEndpoint":{"serviceName":"orders","ipv4":"127.0.0.1","port":15006},"tags":{"component":"proxy","node_id":"web-1","guid:x-request-id":"9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d","http.method":"GET","http.url":"http://orders/","http.protocol":"HTTP/1.1","peer.address":"127.0.0.1","request_size":"0","response_size":"131","http.status_code":"200","response_flags":"-","upstream_cluster":"outbound|orders","upstream_address":"127.0.0.1:15006","zone":"a"},"debug":true,"shared":true}`

func TestWhatSidecarsWriteIsDecodedThePlainWay(t *testing.T) {
	got, ok := decodePlain([]byte(fromSidecar))
	if !ok {
		t.Fatal("it was left to the general decoder")
	}
	want, err := decodeAny([]byte(fromSidecar))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestThePlainWayLeavesWhatIsNotPlainToTheGeneralDecoder(t *testing.T) {
	const ids = `"traceId":"463ac35c9f6413ad","id":"d2f9288a2904503d"`
	for _, tc := range []struct {
		in    string
		plain bool
	}{
		{`{` + ids + `}`, true},
		{`{` + ids + `,"parentId":"d2f9288a2904503d"}`, true},
		{`{` + ids + `,"tags":{}}`, true},
		{`{` + ids + `,"localEndpoint":{"ipv6":"2001:db8::1"}}`, true},
		{``, false},
		{`{`, false},
		{`{}`, false},
		{`{` + ids, false},
		{`{` + ids + `,}`, false},
		{`{` + ids + `}}`, false},
		{`{ ` + ids + `}`, false},
		{`{` + ids + `,` + ids + `}`, false},
		{`{` + ids + `,"timestamp":1,"timestamp":1}`, false},
		{`{` + ids + `,"debug":true,"debug":true}`, false},
		{`{` + ids + `,"tags":{},"tags":{}}`, false},
		{`{` + ids + `,"localEndpoint":{},"localEndpoint":{}}`, false},
		{`{` + ids + `,"localEndpoint":{"port":1,"port":1}}`, false},
		{`{` + ids + `,"localEndpoint":{"serviceName":"","serviceName":""}}`, false},
		{`{` + ids + `,"future":1}`, false},
		{`{` + ids + `,"kind":null}`, false},
		{`{` + ids + `,"kind":"BOTH"}`, false},
		{`{` + ids + `,"name":"\u0041"}`, false},
		{`{` + ids + `,"name":"é"}`, false},
		{`{` + ids + `,"timestamp":-1}`, false},
		{`{` + ids + `,"timestamp":01}`, false},
		{`{` + ids + `,"timestamp":1.0}`, false},
		{`{` + ids + `,"timestamp":1234567890123456789}`, false},
		{`{` + ids + `,"debug":tru}`, false},
		{`{` + ids + `,"localEndpoint":{"port":65536}}`, false},
		{`{` + ids + `,"localEndpoint":{"ipv4":"1.2.3"}}`, false},
		{`{` + ids + `,"localEndpoint":{"ipv4":"1.2.3.04"}}`, false},
		{`{` + ids + `,"localEndpoint":{"ipv4":"1.2.3.256"}}`, false},
		{`{` + ids + `,"localEndpoint":{"ipv6":"fe80::1%eth0"}}`, false},
		{`{` + ids + `,"localEndpoint":{"ipv6":"::ffff:1.2.3.4"}}`, false},
		{`{` + ids + `,"localEndpoint":{"ipv6":"1.2.3.4"}}`, false},
		{`{` + ids + `,"tags":{"a":"1","a":"2"}}`, false},
		{`{` + ids + `,"tags":{"a":1}}`, false},
		{`{` + ids + `,"annotations":[]}`, false},
		{`{"traceId":"0000000000000000","id":"d2f9288a2904503d"}`, false},
		{`{"traceId":"463AC35C9F6413AD","id":"d2f9288a2904503d"}`, false},
		{`{"traceId":"463ac35c9f6413ad","id":"1"}`, false},
		{`{` + ids + `,"tags":{` + strings.Repeat(`"a":"",`, plainTags) + `"b":""}}`, false},
	} {
		if _, ok := decodePlain([]byte(tc.in)); ok != tc.plain {
			t.Errorf("%s: plain %t, want %t", tc.in, ok, tc.plain)
		}
	}
}

// FuzzPlain holds the plain way to the general decoder's results.
func FuzzPlain(f *testing.F) {
	f.Add([]byte(fromSidecar))
	f.Add([]byte(`{"traceId":"463ac35c9f6413ad","id":"d2f9288a2904503d","parentId":"d2f9288a2904503d","name":"A","localEndpoint":{"ipv6":"2001:db8::1","port":0}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := decodePlain(data)
		if !ok {
			return
		}
		want, err := decodeAny(data)
		if err != nil {
			t.Fatalf("%s: taken, though %v", data, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s:\ngot  %+v\nwant %+v", data, got, want)
		}
	})
}

func TestAPlainSpanTakesFewAllocations(t *testing.T) {
	data := []byte(fromSidecar)
	// The span, its tags, its texts.
	if got := testing.AllocsPerRun(100, func() { _, _ = DecodeSpan(data) }); got > 3 {
		t.Errorf("%.0f allocations, want at most 3", got)
	}
}

func BenchmarkDecodeSpan(b *testing.B) {
	data := []byte(fromSidecar)
	for _, way := range []struct {
		name   string
		decode func([]byte) (*Span, error)
	}{{"plain", DecodeSpan}, {"any", decodeAny}} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := way.decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
