// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func decodeOne(t *testing.T, text string) *Span {
	t.Helper()
	s, err := DecodeSpan([]byte(text))
	if err != nil {
		t.Fatalf("decode%v", err)
	}
	return s
}

func TestDecodingNormalisesASpan(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{
			"short ids are padded",
			`{"traceId":"1","id":"2","parentId":"3"}`,
			`{"traceId":"0000000000000001","parentId":"0000000000000003","id":"0000000000000002"}`,
		},
		{
			"a 17-digit trace id is padded to 32",
			`{"traceId":"10000000000000002","id":"2"}`,
			`{"traceId":"00000000000000010000000000000002","id":"0000000000000002"}`,
		},
		{
			"a parent of zeros or equal to the id is no parent",
			`{"traceId":"1","id":"2","parentId":"0000000000000002"}`,
			`{"traceId":"0000000000000001","id":"0000000000000002"}`,
		},
		{
			"names are lower-case",
			`{"traceId":"1","id":"2","name":"GET /X","localEndpoint":{"serviceName":"Orders"}}`,
			`{"traceId":"0000000000000001","id":"0000000000000002","name":"get /x","localEndpoint":{"serviceName":"orders"}}`,
		},
		{
			"zero and negative times are absent",
			`{"traceId":"1","id":"2","timestamp":0,"duration":-1}`,
			`{"traceId":"0000000000000001","id":"0000000000000002"}`,
		},
		{
			"a mapped address is IPv4 and a host name is dropped",
			`{"traceId":"1","id":"2","localEndpoint":{"ipv6":"::ffff:10.0.0.1"},"remoteEndpoint":{"ipv4":"db.local","port":5}}`,
			`{"traceId":"0000000000000001","id":"0000000000000002","localEndpoint":{"ipv4":"10.0.0.1"},"remoteEndpoint":{"port":5}}`,
		},
		{
			"numbers in any notation are numbers, and text where text belongs",
			`{"traceId":"1","id":"2","timestamp":"6","duration":7.0,"remoteEndpoint":{"port":"80"},"tags":{"a":1.50}}`,
			`{"traceId":"0000000000000001","id":"0000000000000002","timestamp":6,"duration":7,"remoteEndpoint":{"port":80},"tags":{"a":"1.50"}}`,
		},
		{
			"null is absent, unknown fields are tolerated",
			`{"traceId":"1","id":"2","parentId":null,"kind":null,"name":null,"tags":null,"annotations":null,"future":{"a":[1]}}`,
			`{"traceId":"0000000000000001","id":"0000000000000002"}`,
		},
		{
			"tags and annotations are sorted, repeated annotations are one",
			`{"traceId":"1","id":"2","tags":{"b":"2","a":"<1>"},"annotations":[{"timestamp":9,"value":"x"},{"timestamp":1,"value":"y"},{"timestamp":9,"value":"x"}]}`,
			`{"traceId":"0000000000000001","id":"0000000000000002","annotations":[{"timestamp":1,"value":"y"},{"timestamp":9,"value":"x"}],"tags":{"a":"\u003c1\u003e","b":"2"}}`,
		},
		{
			"every field in Zipkin's order",
			`{"shared":true,"debug":true,"tags":{"k":"v"},"annotations":[{"timestamp":5,"value":"ws"}],"remoteEndpoint":{"serviceName":"b","ipv6":"2001:db8::1","port":80},"localEndpoint":{"serviceName":"a","ipv4":"10.0.0.2","port":81},"duration":7,"timestamp":6,"name":"n","kind":"SERVER","id":"a","parentId":"b","traceId":"463ac35c9f6413ad48485a3953bb6124"}`,
			`{"traceId":"463ac35c9f6413ad48485a3953bb6124","parentId":"000000000000000b","id":"000000000000000a","kind":"SERVER","name":"n","timestamp":6,"duration":7,"localEndpoint":{"serviceName":"a","ipv4":"10.0.0.2","port":81},"remoteEndpoint":{"serviceName":"b","ipv6":"2001:db8::1","port":80},"annotations":[{"timestamp":5,"value":"ws"}],"tags":{"k":"v"},"debug":true,"shared":true}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(decodeOne(t, tc.in).AppendJSON(nil)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestABadSpanIsRefusedWithItsField(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"not a list", `{}`, "want a JSON list of spans"},
		{"truncated", `[{"traceId":"1"`, "want a JSON list of spans"},
		{"an element that is no object", `["x"]`, "spans[0]: want an object"},
		{"no trace id", `[{"id":"1"}]`, "spans[0].traceId: want 1 to 32"},
		{"upper-case trace id", `[{"traceId":"AB","id":"1"}]`, "spans[0].traceId"},
		{"trace id of zeros", `[{"traceId":"0000","id":"1"}]`, "spans[0].traceId"},
		{"trace id too long", `[{"traceId":"` + strings.Repeat("1", 33) + `","id":"1"}]`, "spans[0].traceId"},
		{"id too long", `[{"traceId":"1","id":"12345678901234567"}]`, "spans[0].id"},
		{"parent not hexadecimal", `[{"traceId":"1","id":"1","parentId":"x"}]`, "spans[0].parentId"},
		{"second span", `[{"traceId":"1","id":"1"},{"traceId":"1","id":"g"}]`, "spans[1].id"},
		{"unknown kind", `[{"traceId":"1","id":"1","kind":"BOTH"}]`, "spans[0].kind: want CLIENT, SERVER"},
		{"port out of range", `[{"traceId":"1","id":"1","localEndpoint":{"port":65536}}]`, "spans[0].localEndpoint.port"},
		{"text for a number", `[{"traceId":"1","id":"1","timestamp":"soon"}]`, "spans[0].timestamp: want int64, not \"soon\""},
		{"a fraction of a microsecond", `[{"traceId":"1","id":"1","duration":1.5}]`, "spans[0].duration: want int64, not 1.5"},
		{"annotation without a time", `[{"traceId":"1","id":"1","annotations":[{"value":"x"}]}]`, "spans[0].annotations[0]: want a timestamp and a value"},
		{"tag that is null", `[{"traceId":"1","id":"1","tags":{"k":null}}]`, `spans[0].tags."k": want a string`},
		{"tag that is no text", `[{"traceId":"1","id":"1","tags":{"k":{}}}]`, `spans[0].tags."k": want a string`},
		{"span too large", `[{"traceId":"1","id":"1","name":"` + strings.Repeat("n", MaxSpanBytes) + `"}]`, "spans[0]: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Decode([]byte(tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestEveryBadSpanIsNamedUpToABound(t *testing.T) {
	_, err := Decode([]byte("[" + strings.TrimSuffix(strings.Repeat("{},", 50), ",") + "]"))
	if err == nil {
		t.Fatal("accepted spans without ids")
	}
	if got := strings.Count(err.Error(), ".traceId"); got != maxDecodeErrors {
		t.Errorf("got %d named spans, want %d: %v", got, maxDecodeErrors, err)
	}
}

func FuzzDecode(f *testing.F) {
	sample, err := os.ReadFile("testdata/trace.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	f.Add([]byte(`[{"traceId":"1","id":"2","kind":"CLIENT","tags":{"a":"\u0000<é\ud800"}}]`))
	f.Add([]byte(`[{"traceId":"1","id":"2","localEndpoint":{"ipv4":"1.2.3.4","ipv6":"fe80::1%eth0","port":1}}]`))
	f.Add([]byte(`[[]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		spans, err := Decode(data)
		if err != nil {
			return
		}
		encoded := AppendJSONList(nil, spans)
		if !json.Valid(encoded) {
			t.Fatalf("encoded invalid JSON: %s", encoded)
		}
		again, err := Decode(encoded)
		if err != nil {
			// Encoding may lengthen a span beyond the limit by escapes, no other way.
			if len(encoded) > MaxSpanBytes {
				return
			}
			t.Fatalf("decode of own encoding: %v\n%s", err, encoded)
		}
		if twice := AppendJSONList(nil, again); !bytes.Equal(encoded, twice) {
			t.Fatalf("not stable:\n%s\n%s", encoded, twice)
		}
		// Whatever is accepted can be stored, searched and linked.
		store, err := NewStore(Config{MaxBytes: 1 << 20, AutocompleteKeys: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		store.Add(spans)
		store.Traces(Query{SpanName: "x"})
		store.Links(maxTime, 0)
	})
}
