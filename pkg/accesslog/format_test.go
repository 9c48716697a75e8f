// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// line is what one record becomes.
func line(t *testing.T, f *resource.LogFormat, change func(r *record.Record, req *codec.RequestHead, resp *codec.ResponseHead)) string {
	t.Helper()
	p, w, path := fileLog(t, &resource.AccessLog{File: &resource.FileLog{Format: f}},
		Options{Hostname: "node1", Env: func(k string) (string, bool) { return "env-" + k, k != "NONE" }})
	r := exampleRecord()
	req, resp := exampleHeads()
	trailer := &codec.Header{}
	trailer.AddString("grpc-status", "14")
	trailer.AddString("x-sum", "9")
	if change != nil {
		change(r, req, resp)
	}
	capture(r, p, req, resp, trailer)
	p.Consume(r)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// asCall makes the request a call of gRPC.
func asCall(_ *record.Record, req *codec.RequestHead, _ *codec.ResponseHead) {
	req.Set("content-type", []byte("application/grpc"))
}

func TestOnlyCallsHaveAStatusOfGRPCAndAllThatWereAnsweredDo(t *testing.T) {
	call, trailer := &codec.RequestHead{}, &codec.Header{}
	call.AddString("content-type", "application/grpc+proto")
	trailer.AddString("grpc-status", "5")
	head := func(status int, fields ...string) *codec.ResponseHead {
		h := &codec.ResponseHead{Status: status}
		for i := 0; i < len(fields); i += 2 {
			h.AddString(fields[i], fields[i+1])
		}
		return h
	}
	for name, c := range map[string]struct {
		req     *codec.RequestHead
		resp    *codec.ResponseHead
		trailer *codec.Header
		want    string
	}{
		"in trailers":            {call, head(200, "grpc-status", "1"), trailer, "5"},
		"in the head":            {call, head(200, "grpc-status", "14"), nil, "14"},
		"of a plain answer":      {call, head(503), nil, "14"},
		"of an answer cut short": {call, head(200), nil, "2"},
		"without an answer":      {call, nil, nil, ""},
		"of another request":     {&codec.RequestHead{}, head(200, "grpc-status", "1"), trailer, ""},
	} {
		r := record.Record{Captures: AppendCaptures(nil, []Capture{{Kind: GRPCStatus, Name: "grpc-status"}}, c.req, c.resp, c.trailer)}
		if got, _ := r.Capture(0); string(got) != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTheDefaultFormatIsEnvoys(t *testing.T) {
	got := line(t, nil, nil)
	want := `[2026-01-02T03:04:05.678Z] "GET /v1/orders?a=b&c= HTTP/1.1" 503 UF,URX 10 20 15 9 "192.0.2.1" "curl/8" ` +
		`"00000000-0000-4000-8000-000000000001" "orders:8080" "10.0.0.1:8080"` + "\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEachCommandGivesItsValue(t *testing.T) {
	for _, c := range []struct{ format, text, json string }{
		{"%START_TIME%", "2026-01-02T03:04:05.678Z", `"2026-01-02T03:04:05.678Z"`},
		{"%START_TIME(%s.%3f)%", "1767323045.678", `"1767323045.678"`},
		{"%START_TIME(%Y/%m/%d %T %f)%", "2026/01/02 03:04:05 678901234", `"2026/01/02 03:04:05 678901234"`},
		{"%START_TIME(%H:%M:%E6S)%", "03:04:05.678901", `"03:04:05.678901"`},
		{"%START_TIME(\"%Y\\ é)%", `\x222026\x5C \xC3\xA9`, `"\"2026\\ é"`},
		{"%START_TIME(%b %e %a %j%%)%", "Jan  2 Fri 002%", `"Jan  2 Fri 002%"`},
		{"%DURATION%", "15", "15"},
		{"%REQUEST_DURATION%", "1", "1"},
		{"%RESPONSE_DURATION%", "11", "11"},
		{"%RESPONSE_TX_DURATION%", "4", "4"},
		{"%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%", "9000", "9000"},
		{"%COMMON_DURATION(US_CX_BEG:US_RX_BEG:us)%", "-", "null"},
		{"%PROTOCOL%", "HTTP/1.1", `"HTTP/1.1"`},
		{"%RESPONSE_CODE%", "503", "503"},
		{"%RESPONSE_CODE_DETAILS%", "upstream_reset", `"upstream_reset"`},
		{"%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", "upstream reset", `"upstream reset"`},
		{"%RESPONSE_FLAGS%", "UF,URX", `"UF,URX"`},
		{"%RESPONSE_FLAGS_LONG%", "UpstreamConnectionFailure,UpstreamRetryLimitExceeded", `"UpstreamConnectionFailure,UpstreamRetryLimitExceeded"`},
		{"%BYTES_RECEIVED%", "10", "10"},
		{"%UPSTREAM_HOST%", "10.0.0.1:8080", `"10.0.0.1:8080"`},
		{"%UPSTREAM_REMOTE_PORT%", "8080", "8080"},
		{"%UPSTREAM_CLUSTER%", "outbound|orders", `"outbound|orders"`},
		{"%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "2", "2"},
		{"%DOWNSTREAM_LOCAL_ADDRESS%", "[2001:db8::1]:15001", `"[2001:db8::1]:15001"`},
		{"%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "2001:db8::1", `"2001:db8::1"`},
		{"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "-", "null"},
		{"%DOWNSTREAM_REMOTE_PORT%", "4000", "4000"},
		{"%CONNECTION_ID%", "7", "7"},
		{"%UPSTREAM_CONNECTION_ID%", "-", "null"},
		{"%TRACE_ID%", "00000000000000ab", `"00000000000000ab"`},
		{"%SPAN_ID%", "0000000000000001", `"0000000000000001"`},
		{"%HOSTNAME%", "node1", `"node1"`},
		{"%ENVIRONMENT(POD)%", "env-POD", `"env-POD"`},
		{"%ACCESS_LOG_TYPE%", "DownstreamEnd", `"DownstreamEnd"`},
		{"%GRPC_STATUS%", "Unavailable", `"Unavailable"`},
		{"%GRPC_STATUS(SNAKE_STRING)%", "UNAVAILABLE", `"UNAVAILABLE"`},
		{"%GRPC_STATUS_NUMBER%", "14", "14"},
		{"%TRAILER(X-SUM)%", "9", `"9"`},
		{"%PATH(NQ)%", "/v1/orders", `"/v1/orders"`},
		{"%QUERY_PARAM(a)%", "b", `"b"`},
		{"%QUERY_PARAM(c)%", "", `""`},
		{"%QUERY_PARAM(d)%", "-", "null"},
		{"%REQ(X-MULTI)%", "one", `"one"`},
		{"%REQ(X-NONE?USER-AGENT)%", "curl/8", `"curl/8"`},
		{"%REQ(X-NONE)%", "-", "null"},
		{"%REQ(USER-AGENT):4%", "curl", `"curl"`},
		{"%RESP(CONTENT-TYPE)%", "text/plain", `"text/plain"`},
		{"%DYNAMIC_METADATA(a:b)%", "-", "null"},
		{"a%%b %REQ(X-NONE)% %RESPONSE_CODE%", "a%b - 503", `"a%b - 503"`},
	} {
		var change func(*record.Record, *codec.RequestHead, *codec.ResponseHead)
		if strings.HasPrefix(c.format, "%GRPC_STATUS") {
			change = asCall
		}
		if got := line(t, textFormat(t, c.format), change); got != c.text {
			t.Errorf("%s as text: got %q, want %q", c.format, got, c.text)
		}
		f := &resource.LogFormat{JSON: []resource.LogField{field(t, "v", c.format)}}
		if got, want := line(t, f, change), `{"v":`+c.json+"}\n"; got != want {
			t.Errorf("%s as JSON: got %q, want %q", c.format, got, want)
		}
	}
}

func TestJSONKeepsItsShape(t *testing.T) {
	fields := []resource.LogField{
		field(t, "absent", "%REQ(X-NONE)%"),
		{Name: "literal", Literal: `{"a":[1,true]}`},
		{Name: "nested", Object: []resource.LogField{field(t, `a"b`, "%RESPONSE_CODE%"), field(t, "gone", "%REQ(X-NONE)%")}},
		{Name: "list", List: []resource.LogField{field(t, "", "%REQ(X-NONE)%"), field(t, "", "x %REQ(X-NONE)%")}},
	}
	got := line(t, &resource.LogFormat{JSON: fields}, nil)
	want := `{"absent":null,"literal":{"a":[1,true]},"nested":{"a\"b":503,"gone":null},"list":[null,"x -"]}` + "\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got = line(t, &resource.LogFormat{JSON: fields, OmitEmpty: true}, nil)
	want = `{"literal":{"a":[1,true]},"nested":{"a\"b":503},"list":["x "]}` + "\n"
	if got != want {
		t.Errorf("omitting empty values: got  %s\nwant %s", got, want)
	}
}

func TestTrafficCannotForgeALine(t *testing.T) {
	evil := "x\" \\ \x1b[31m\x7f\u0085\xff\u2028end"
	f := &resource.LogFormat{JSON: []resource.LogField{field(t, "ua", "%REQ(USER-AGENT)%"), field(t, "mixed", "<%REQ(USER-AGENT)%>")}}
	change := func(r *record.Record, req *codec.RequestHead, _ *codec.ResponseHead) { r.Route = "r\r\nroute" }
	withAgent := func(format *resource.LogFormat) string {
		p, w, path := fileLog(t, &resource.AccessLog{File: &resource.FileLog{Format: format}}, Options{})
		r := exampleRecord()
		req, resp := exampleHeads()
		change(r, req, resp)
		b := record.AppendCapture(nil, []byte("GET"))
		b = record.AppendCapture(b, []byte("/\r\nGET /forged HTTP/1.1"))
		b = record.AppendCapture(b, nil)
		b = record.AppendCapture(b, nil)
		r.Captures = record.AppendCapture(b, []byte(evil))
		p.Consume(r)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	out := withAgent(f)
	var got map[string]string
	if err := json.Unmarshal([]byte(out), &got); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("not one line of JSON: %v: %q", err, out)
	}
	if want := strings.ToValidUTF8(evil, "\uFFFD"); got["ua"] != want || got["mixed"] != "<"+want+">" {
		t.Errorf("got %q, want %q", got, want)
	}
	text := withAgent(textFormat(t, "%REQ(USER-AGENT)% %REQ(:PATH)% %ROUTE_NAME%\n"))
	want := `x\x22 \x5C \x1B[31m\x7F\xC2\x85\xFF\xE2\x80\xA8end /\x0D\x0AGET /forged HTTP/1.1 r\x0D\x0Aroute` + "\n"
	if text != want {
		t.Errorf("got  %q\nwant %q", text, want)
	}
}

func TestABadFormatIsRefusedByName(t *testing.T) {
	for _, c := range []struct{ format, want string }{
		{"%START_TIME(%Q)%", "unknown conversion %Q"},
		{"%COMMON_DURATION(A:B:ms)%", `unknown time point "A"`},
		{"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:h)%", `unknown unit "h"`},
		{"%GRPC_STATUS(X)%", `unknown argument "X"`},
		{"%PATH(X)%", `unknown argument "X"`},
		{"%RESPONSE_CODE_DETAILS(X)%", "ALLOW_WHITESPACES"},
	} {
		w := NewWriters(0)
		logs := []*resource.AccessLog{{}, {File: &resource.FileLog{Path: os.DevNull, Format: textFormat(t, c.format)}}}
		_, err := Compile(logs, w, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "access_log[1]") ||
			!strings.Contains(err.Error(), "access_log[0]: no destination") {
			t.Errorf("%s: got error %v, want one with %q", c.format, err, c.want)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAFileThatCannotBeOpenedIsAnError(t *testing.T) {
	w := NewWriters(0)
	defer w.Close()
	_, err := Compile([]*resource.AccessLog{{File: &resource.FileLog{Path: t.TempDir() + "/no/such/folder/log"}}}, w, Options{})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the folder does not exist", err)
	}
}

func TestValuesAreCapturedOnce(t *testing.T) {
	f := textFormat(t, "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(X-A)% %REQ(X-A)% %RESP(X-A)% %REQ(HOST)% %REQ(X-REQUEST-ID)%")
	p, w, _ := fileLog(t, &resource.AccessLog{File: &resource.FileLog{Format: f}}, Options{})
	defer w.Close()
	if got := len(p.Captures()); got != 2 {
		t.Errorf("got %d captures, want x-a of the request and of the response: %v", got, p.Captures())
	}
}

func FuzzFormats(f *testing.F) {
	f.Add(DefaultFormat, "curl")
	f.Add("%START_TIME(%s.%3f %E3S)%%REQ(A?B):3%", "a\x00b")
	f.Add("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%%GRPC_STATUS%", "\xff\"")
	f.Fuzz(func(t *testing.T, format, value string) {
		parsed, err := substitution.Parse(format)
		if err != nil {
			return
		}
		c := compiler{plan: &Plan{first: record.FixedCaptures}, opts: &Options{Hostname: value}}
		out, err := c.format(&resource.LogFormat{JSON: []resource.LogField{{Name: value, Format: &parsed}}})
		if err != nil {
			return
		}
		r := exampleRecord()
		r.Route = value
		for range record.FixedCaptures + len(c.plan.captures) {
			r.Captures = record.AppendCapture(r.Captures, []byte(value))
		}
		c.plan.vals = appendValues(nil, r.Captures)
		if line := out.append(nil, c.plan, r); !json.Valid(line) || strings.Count(string(line), "\n") != 1 {
			t.Errorf("format %q, value %q: not one line of JSON: %q", format, value, line)
		}
	})
}
