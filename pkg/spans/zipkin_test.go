// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// peerReports are spans in every shape, good and bad; TIME stands for a moment ago
// in microseconds without its last digit.
var peerReports = []string{
	`[{"traceId":"1","id":"2","parentId":"2","kind":"PRODUCER","name":"SEND","timestamp":TIME0,"duration":0,"localEndpoint":{"serviceName":"Prod","ipv6":"::ffff:1.2.3.4","port":0},"remoteEndpoint":{"serviceName":"kafka"}},
	{"traceId":"1","id":"3","parentId":"2","kind":"CONSUMER","timestamp":TIME1,"localEndpoint":{"serviceName":"cons"},"remoteEndpoint":{"serviceName":"kafka","ipv4":"nope"},"tags":{"z":"1","a":"é<>&\"\\\u0001\u2028"},"debug":true},
	{"traceId":"00000000000000010000000000000007","id":"4","name":"client-only","kind":"CLIENT","timestamp":TIME2,"duration":-5,"localEndpoint":{"serviceName":"a"},"remoteEndpoint":{"serviceName":"b"},"annotations":[{"timestamp":2,"value":"x"},{"timestamp":1,"value":"y"},{"timestamp":1,"value":"y"}]},
	{"traceId":"00000000000000010000000000000007","id":"5","parentId":"4","kind":"SERVER","timestamp":TIME3,"duration":77,"localEndpoint":{"serviceName":"bb"},"remoteEndpoint":{"serviceName":"zzz"}},
	{"traceId":"9","id":"9","timestamp":TIME4,"localEndpoint":{"serviceName":"loc"},"remoteEndpoint":{"serviceName":"rem"}},
	{"traceId":"a","id":"9","kind":"SERVER","timestamp":TIME5,"localEndpoint":{"serviceName":"srv"},"remoteEndpoint":{"serviceName":"cli"}},
	{"traceId":"b","id":"1","kind":"CLIENT","timestamp":TIME6,"localEndpoint":{"serviceName":"c1"},"remoteEndpoint":{"serviceName":"c2"}},
	{"traceId":"b","id":"2","parentId":"1","timestamp":TIME7,"name":"inner","localEndpoint":{"serviceName":"c2"},"tags":{"error":""}},
	{"traceId":"b","id":"3","parentId":"2","kind":"CLIENT","timestamp":TIME8,"localEndpoint":{"serviceName":"c2"},"remoteEndpoint":{"serviceName":"c3"}},
	{"traceId":"c","id":"1","name":"no-ts","kind":"SERVER","localEndpoint":{"serviceName":"nots"}}]`,
	``, `[]`, `{}`, `[1]`, `[{`,
	`[{"traceId":"AAB","id":"1"}]`,
	`[{"traceId":"0","id":"1"}]`,
	`[{"traceId":"d1","id":"1","kind":"X"}]`,
	`[{"traceId":"d2","id":"1","timestamp":"5"}]`,
	`[{"traceId":"d3","id":"1","tags":{"a":1}}]`,
	`[{"traceId":"d4","id":"1","tags":{"a":null}}]`,
	`[{"traceId":"d5","id":"1","localEndpoint":{"port":70000}}]`,
	`[{"traceId":"d6","id":"1","localEndpoint":null}]`,
	`[{"traceId":"d7","id":"1","annotations":[{"value":"x"}]}]`,
	`[{"traceId":"d8","id":"1","duration":1.0}]`,
	`[{"traceId":"d9","id":"1","future":{"a":[1]}}]`,
}

// peerQueries are asked of both; NOW is the time in milliseconds.
var peerQueries = []string{
	"/services", "/spans?serviceName=orders", "/spans?serviceName=Prod", "/spans", "/remoteServices?serviceName=orders",
	"/remoteServices?serviceName=cons", "/remoteServices", "/autocompleteKeys", "/autocompleteValues?key=x", "/autocompleteValues",
	"/traces", "/traces?limit=2", "/traces?serviceName=web", "/traces?serviceName=WEB&spanName=GET%20/", "/traces?spanName=all&serviceName=web",
	"/traces?annotationQuery=error", "/traces?annotationQuery=ws", "/traces?annotationQuery=http.method%3DPOST%20and%20error",
	"/traces?serviceName=web&annotationQuery=error", "/traces?remoteServiceName=kafka", "/traces?serviceName=web&remoteServiceName=payments-lb",
	"/traces?minDuration=30000", "/traces?minDuration=30001", "/traces?minDuration=2000&maxDuration=2000", "/traces?maxDuration=5",
	"/traces?minDuration=5&maxDuration=2", "/traces?minDuration=0", "/traces?limit=0", "/traces?limit=x", "/traces?lookback=0", "/traces?endTs=0",
	"/trace/5af7183fb1d4cf5f48485a3953bb6124", "/trace/1", "/trace/10000000000000007", "/trace/0000000000000007", "/trace/c", "/trace/abcdef",
	"/trace/XYZ", "/trace/0", "/trace/d2", "/trace/d3", "/trace/d6", "/trace/d7", "/trace/d8", "/trace/d9",
	"/traceMany?traceIds=1,b", "/traceMany?traceIds=1", "/traceMany?traceIds=1,1", "/traceMany", "/traceMany?traceIds=1,zz",
	"/dependencies?endTs=NOW", "/dependencies?endTs=NOW&lookback=0", "/dependencies?endTs=x", "/dependencies",
}

// Needs a Zipkin that holds nothing yet, at ZIPKIN_URL.
func TestAnswersEqualThoseOfARealZipkin(t *testing.T) {
	if os.Getenv("OUTRIGGER_PEERS") == "" {
		t.Skip("needs real peers: set OUTRIGGER_PEERS=1 and ZIPKIN_URL")
	}
	zipkin := os.Getenv("ZIPKIN_URL")
	if zipkin == "" {
		t.Fatal("ZIPKIN_URL: the address of a freshly started Zipkin is required with OUTRIGGER_PEERS=1")
	}
	ours := httptest.NewServer(newStore(t, Config{}).Handler("", time.Now))
	defer ours.Close()

	moment := strconv.FormatInt((time.Now().UnixMicro()-5_000_000)/10, 10)
	sample, err := os.ReadFile("testdata/trace.json")
	if err != nil {
		t.Fatal(err)
	}
	// Zipkin orders traces by their last span, this store by when they began: the
	// long one is well before the others.
	earlier := strconv.FormatInt(time.Now().UnixMicro()-10_000_000, 10)
	reports := append(slices.Clone(peerReports), strings.ReplaceAll(string(sample), "17000000000", earlier[:11]))
	for _, report := range reports {
		report = strings.ReplaceAll(report, "TIME", moment)
		var status [2]int
		var body [2]string
		for i, base := range []string{ours.URL, zipkin} {
			r, err := http.NewRequest(http.MethodPost, base+"/api/v2/spans", strings.NewReader(report))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			status[i], body[i] = do(t, r)
		}
		if status[0] != status[1] {
			t.Errorf("report %.80s:\nours   %d %s\nZipkin %d %s", report, status[0], body[0], status[1], body[1])
		}
	}
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	for _, query := range peerQueries {
		query = strings.ReplaceAll(query, "NOW", now)
		// Zipkin answers a report before it has stored it.
		var difference string
		deadline := time.Now().Add(10 * time.Second)
		for {
			difference = compare(t, ours.URL, zipkin, "/api/v2"+query)
			if difference == "" || time.Now().After(deadline) {
				break
			}
		}
		if difference != "" {
			t.Errorf("GET %s:\n%s", query, difference)
		}
	}
}

// compare asks both and describes how the answers differ: in status, or as JSON.
func compare(t *testing.T, ours, theirs, path string) string {
	t.Helper()
	var status [2]int
	var body [2]string
	var value [2]any
	for i, base := range []string{ours, theirs} {
		r, err := http.NewRequest(http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		status[i], body[i] = do(t, r)
		if status[i] == http.StatusOK {
			// Zipkin 3.5 pads a body with zero bytes where it escapes U+2028.
			if err := json.Unmarshal([]byte(strings.TrimRight(body[i], "\x00")), &value[i]); err != nil {
				return err.Error()
			}
			if strings.Contains(path, "/dependencies") {
				value[i] = byText(value[i]) // Zipkin's order is not defined
			}
		}
	}
	if status[0] == status[1] && reflect.DeepEqual(value[0], value[1]) {
		return ""
	}
	return fmt.Sprintf("ours   %d %s\nZipkin %d %s", status[0], body[0], status[1], body[1])
}

func byText(list any) any {
	items, ok := list.([]any)
	if !ok {
		return list
	}
	slices.SortFunc(items, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return items
}
