// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// clock is a second after the sample trace.
func clock() time.Time { return time.UnixMilli(1_700_000_001_000) }

func serve(t *testing.T) *httptest.Server {
	t.Helper()
	s := newStore(t, Config{AutocompleteKeys: []string{"http.method"}})
	server := httptest.NewServer(s.Handler("/zipkin", clock))
	t.Cleanup(server.Close)
	sample, err := os.ReadFile("testdata/trace.json")
	if err != nil {
		t.Fatal(err)
	}
	if status, body := post(t, server, sample, nil); status != http.StatusAccepted || body != "" {
		t.Fatalf("post: got %d %q, want 202 and no body", status, body)
	}
	return server
}

func post(t *testing.T, server *httptest.Server, body []byte, header map[string]string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, server.URL+"/zipkin/api/v2/spans", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		r.Header.Set(k, v)
	}
	return do(t, r)
}

func get(t *testing.T, server *httptest.Server, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, server.URL+"/zipkin"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, r)
}

func do(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestTheQueryAPIAnswersAsZipkinDoes(t *testing.T) {
	server := serve(t)
	const id = "5af7183fb1d4cf5f48485a3953bb6124"
	for _, tc := range []struct {
		name, path string
		status     int
		want       string
	}{
		{"services", "/api/v2/services", 200, `["orders","payments","web"]`},
		{"span names", "/api/v2/spans?serviceName=Orders", 200, `["compute","get /orders","post /pay"]`},
		{"span names of nobody", "/api/v2/spans?serviceName=none", 200, `[]`},
		{"span names without a service", "/api/v2/spans", 400, "serviceName: required"},
		{"remote services", "/api/v2/remoteServices?serviceName=orders", 200, `["payments-lb"]`},
		{"autocomplete keys", "/api/v2/autocompleteKeys", 200, `["http.method"]`},
		{"autocomplete values", "/api/v2/autocompleteValues?key=http.method", 200, `["GET","POST"]`},
		{"autocomplete values of another key", "/api/v2/autocompleteValues?key=http.path", 200, `[]`},
		{"dependencies", "/api/v2/dependencies?endTs=1700000001000", 200,
			`[{"parent":"orders","child":"payments","callCount":1,"errorCount":1},{"parent":"payments","child":"postgres","callCount":1},{"parent":"web","child":"orders","callCount":1}]`},
		{"dependencies without an end", "/api/v2/dependencies", 400, "endTs: required"},
		{"dependencies with a bad lookback", "/api/v2/dependencies?endTs=1&lookback=x", 400, `lookback: want a whole number above 0, not "x"`},
		{"unknown trace", "/api/v2/trace/abc", 404, "0000000000000abc not found"},
		{"bad trace id", "/api/v2/trace/XYZ", 400, `trace id: want 1 to 32 lower-case hexadecimal digits, not all zero, not "XYZ"`},
		{"no traces", "/api/v2/traces?serviceName=none", 200, `[]`},
		{"duplicate of many", "/api/v2/traceMany?traceIds=a,a", 400, "traceIds: redundant 000000000000000a"},
		{"many, none known", "/api/v2/traceMany?traceIds=a,b", 200, `[]`},
		{"one of many", "/api/v2/traceMany?traceIds=a", 400, "traceIds: want at least two, separated by commas"},
		{"bad limit", "/api/v2/traces?limit=0", 400, `limit: want a whole number above 0, not "0"`},
		{"longest without shortest", "/api/v2/traces?maxDuration=1", 400, "maxDuration: only with minDuration"},
		{"longest below shortest", "/api/v2/traces?minDuration=2&maxDuration=1", 400, "maxDuration: less than minDuration"},
		{"huge numbers", "/api/v2/traces?endTs=9223372036854775807&lookback=9223372036854775807&minDuration=9223372036854775807", 200, `[]`},
		{"user interface", "/config.json", 200,
			`{"environment":"","queryLimit":10,"defaultLookback":900000,"searchEnabled":true,"dependency":{"enabled":true,"lowErrorRate":0.5,"highErrorRate":0.75}}`},
		{"health", "/health", 200, `{"status":"UP","zipkin":{"status":"UP","details":{"OutriggerSpanStore":{"status":"UP"}}}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, body := get(t, server, tc.path)
			if status != tc.status || body != tc.want {
				t.Errorf("got  %d %s\nwant %d %s", status, body, tc.status, tc.want)
			}
		})
	}
	t.Run("a trace in full", func(t *testing.T) {
		status, body := get(t, server, "/api/v2/trace/"+id)
		want := string(AppendJSONList(nil, sampleSpans(t)))
		if status != 200 || body != want {
			t.Errorf("got %d %s\nwant %s", status, body, want)
		}
	})
	t.Run("many traces", func(t *testing.T) {
		status, body := get(t, server, "/api/v2/traceMany?traceIds=a,"+id)
		want := "[" + string(AppendJSONList(nil, sampleSpans(t))) + "]"
		if status != 200 || body != want {
			t.Errorf("got %d %s\nwant %s", status, body, want)
		}
	})
}

func TestTracesAreFoundByWhatTheirSpansCarry(t *testing.T) {
	server := serve(t)
	for _, tc := range []struct {
		query string
		found bool
	}{
		{"", true},
		{"serviceName=web", true},
		{"serviceName=WEB&spanName=GET%20/", true},
		{"spanName=all", true},
		{"serviceName=web&spanName=post%20/pay", false},
		{"serviceName=orders&spanName=post%20/pay", true},
		{"serviceName=orders&remoteServiceName=payments-lb", true},
		{"serviceName=web&remoteServiceName=payments-lb", false},
		{"annotationQuery=error", true},
		{"annotationQuery=ws", true},
		{"annotationQuery=http.method%3DPOST", true},
		{"annotationQuery=http.method%3DPUT", false},
		{"annotationQuery=http.method%3DPOST%20and%20error", true},
		{"serviceName=web&annotationQuery=error", false},
		{"serviceName=web&annotationQuery=http.method%3DGET%20and%20ws", true},
		{"minDuration=30000", true},
		{"minDuration=30001", false},
		{"minDuration=2000&maxDuration=2000", true},
		{"minDuration=2001&maxDuration=6999", false},
		{"serviceName=web&minDuration=7000&maxDuration=7000", false},
		{"endTs=1700000000000&lookback=1", true},
		{"endTs=1699999999999", false},
		{"endTs=1700000001000&lookback=999", false},
	} {
		t.Run(tc.query, func(t *testing.T) {
			status, body := get(t, server, "/api/v2/traces?"+tc.query)
			if status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
			if got := body != "[]"; got != tc.found {
				t.Errorf("got found %v, want %v", got, tc.found)
			}
		})
	}
}

func TestTheLatestTracesComeFirstUpToTheLimit(t *testing.T) {
	s := newStore(t, Config{})
	for i := 1; i <= 20; i++ {
		s.Add([]*Span{span(i, 1, 0)})
	}
	got := s.Traces(Query{Limit: 3})
	if len(got) != 3 || got[0][0].Timestamp != 20 || got[2][0].Timestamp != 18 {
		t.Errorf("got %d traces, want the latest three, latest first", len(got))
	}
}

func TestReportsAreReadInEveryFormZipkinTakesAndRefusedOtherwise(t *testing.T) {
	server := serve(t)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write([]byte(`[{"traceId":"abc","id":"1","localEndpoint":{"serviceName":"packed"}}]`))
	_ = w.Close()
	var bomb bytes.Buffer
	w = gzip.NewWriter(&bomb)
	for range 16 {
		_, _ = w.Write(bytes.Repeat([]byte{' '}, 1<<20))
	}
	_ = w.Close()
	for _, tc := range []struct {
		name   string
		body   []byte
		header map[string]string
		status int
		want   string
	}{
		{"gzip", packed.Bytes(), map[string]string{"Content-Encoding": "gzip"}, 202, ""},
		{"with a charset", []byte(`[]`), map[string]string{"Content-Type": "application/json; charset=utf-8"}, 202, ""},
		{"empty", nil, nil, 202, ""},
		{"protobuf", []byte{1}, map[string]string{"Content-Type": "application/x-protobuf"}, 415, "content-type: want application/json"},
		{"other encoding", []byte(`[]`), map[string]string{"Content-Encoding": "br"}, 415, "content-encoding: want gzip"},
		{"gzip that is not", []byte(`[]`), map[string]string{"Content-Encoding": "gzip"}, 400, "gzip"},
		{"too large unpacked", bomb.Bytes(), map[string]string{"Content-Encoding": "gzip"}, 413, "more than 8388608 bytes"},
		{"too large", bytes.Repeat([]byte{' '}, maxBodyBytes+1), nil, 413, "more than 8388608 bytes"},
		{"bad span", []byte(`[{"traceId":"1","id":"2"},{"traceId":"!"}]`), nil, 400, "spans[1].traceId"},
		{"binary", []byte{0xff, 0x00, 0x01}, nil, 400, "want a JSON list"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, body := post(t, server, tc.body, tc.header)
			if status != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("got %d %q, want %d with %q", status, body, tc.status, tc.want)
			}
		})
	}
	if _, body := get(t, server, "/api/v2/trace/abc"); !strings.Contains(body, "packed") {
		t.Errorf("the packed span is not there: %s", body)
	}
	if status, _ := get(t, server, "/api/v2/trace/1"); status != 404 {
		t.Error("a report with a bad span was kept in part")
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("serviceName=web&annotationQuery=a%3Db%20and%20c&minDuration=1&maxDuration=2&limit=3&endTs=4&lookback=5")
	f.Add("annotationQuery=%20and%20%3D%20and%20&spanName=all")
	f.Add("endTs=9223372036854775807&lookback=9223372036854775807&minDuration=9223372036854775807&limit=9223372036854775807")
	f.Fuzz(func(t *testing.T, text string) {
		values, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		q, err := parseQuery(values, clock())
		if err != nil {
			return
		}
		if q.Limit <= 0 || q.Limit > maxLimit || q.Lookback <= 0 || q.MinDuration < 0 || q.MaxDuration < 0 {
			t.Fatalf("accepted %q as %+v", text, q)
		}
		s := newStore(t, Config{})
		s.Add(sampleSpans(t))
		s.Traces(q)
	})
}
