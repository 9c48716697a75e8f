// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"encoding/json"
	"reflect"
	"testing"
)

func exampleRecord() *Record {
	return &Record{
		Tap: "errors", ID: [16]byte{1, 2}, Node: "orders~1", Service: "orders", Direction: "inbound", Start: 1767323045678901234,
		Duration: 5e6, RequestEnd: 1e6, UpstreamResponse: -1, ResponseStart: 4e6,
		Method: []byte("POST"), Scheme: []byte("http"), Authority: []byte("orders"), Path: []byte("/v1?a=1"), Protocol: "HTTP/1.1",
		Status: 503, Flags: "UF", Details: "d", Attempts: 2, Route: "r", VirtualHost: "v", Cluster: "c", Upstream: "10.0.0.1:1", Remote: "10.0.0.2:2", Local: "10.0.0.3:3",
		TraceID: "ab", SpanID: "cd", RequestID: []byte("id"),
		RequestHeaders: fields2("a", "1", "a", "", "b", "\xff"), ResponseHeaders: fields2("c", "3"),
		RequestBody: []byte("\x00\xffbody"), ResponseBody: []byte("text"), RequestBytes: 100, ResponseBytes: 4, RequestTruncated: true, Redacted: 1,
		ConnectionID: 7, ServerName: []byte("db.example"), ALPN: []byte("postgresql"), Peer: []byte("spiffe://mesh/web"), TransportFailure: "refused",
	}
}

func TestARecordSurvivesEncoding(t *testing.T) {
	want := exampleRecord()
	var got Record
	if err := got.Decode(want.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("got  %+v\nwant %+v", &got, want)
	}
	var line map[string]any
	if err := json.Unmarshal(want.AppendJSON(nil), &line); err != nil {
		t.Fatal(err)
	}
	if line["time"] != "2026-01-02T03:04:05.678901234Z" || line["requestBodyBase64"] == nil || line["responseBody"] != "text" {
		t.Errorf("got %v", line)
	}
}

func TestFieldsOfALaterVersionAreSkipped(t *testing.T) {
	b := AppendField(exampleRecord().Append(nil), 99, "new")
	var got Record
	if err := got.Decode(b); err != nil || got.Tap != "errors" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDamagedRecordsAreRefused(t *testing.T) {
	whole := exampleRecord().Append(nil)
	var r Record
	for _, b := range [][]byte{nil, {2}, {1, 1}, {1, 1, 5, 'a'}, AppendField([]byte{1}, TagID, "short"), AppendField([]byte{1}, TagStatus, "\xff"), AppendField([]byte{1}, TagTap, "\xff"), whole[:len(whole)-1]} {
		if err := r.Decode(b); err == nil {
			t.Errorf("%q was read as %+v", b, r)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(exampleRecord().Append(nil))
	f.Add([]byte{1, 1, 200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again Record
		if r.Decode(b) != nil {
			return
		}
		if err := again.Decode(r.Append(nil)); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if !json.Valid(r.AppendJSON(nil)) {
			t.Fatal("not JSON")
		}
	})
}
