// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

const wrkText = `Running 3s test @ http://127.0.0.1:24004/api/v1/things?id=5
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.33ms    2.27ms  38.50ms   94.22%
    Req/Sec    56.48k     4.66k   62.48k    80.00%
  Latency Distribution
     50%  756.00us
     75%    1.12ms
     90%    2.50ms
     99%   12.53ms
  168693 requests in 3.00s, 31.05MB read
`

const wrkTotals = "Requests/sec:  56231.00\nTransfer/sec:     10.35MB\n"

func TestWrkOutputIsRead(t *testing.T) {
	clean := wrkResult{
		Requests: 168693, Seconds: 3, P50: 756 * time.Microsecond,
		P99: 12530 * time.Microsecond, BytesRead: 31.05 * (1 << 20),
	}
	failing := clean
	failing.SocketError, failing.Non2xx = 1+2+3+4, 17
	slow := clean
	slow.P99, slow.Seconds, slow.BytesRead = 72*time.Second, 90, 1.5*(1<<30)
	for name, c := range map[string]struct {
		text string
		want wrkResult
	}{
		"clean":   {wrkText + wrkTotals, clean},
		"failing": {wrkText + "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 17\n" + wrkTotals, failing},
		"slow":    {strings.NewReplacer("12.53ms", "1.20m", "3.00s, 31.05MB", "1.50m, 1.50GB").Replace(wrkText) + wrkTotals, slow},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseWrk(c.text)
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestWrkOutputThatLacksAFigureIsAnError(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":        {"", "no requests"},
		"refused":        {"unable to connect to 127.0.0.1:1 Connection refused\n", "no requests"},
		"no latencies":   {"  10 requests in 1.00s, 1.00KB read\n", "no p50"},
		"unknown unit":   {strings.Replace(wrkText, "12.53ms", "12.53x", 1), `no unit of time`},
		"unknown size":   {strings.Replace(wrkText, "31.05MB", "31.05", 1), "no unit of size"},
		"no number":      {strings.Replace(wrkText, "168693 req", "many req", 1), "invalid syntax"},
		"socket numbers": {wrkText + "  Socket errors: connect x, read 2, write 3, timeout 4\n", "Socket errors"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseWrk(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestMissingBytesAreFailedRequests(t *testing.T) {
	b := body{name: "16k", size: 16384}
	for name, c := range map[string]struct {
		r    wrkResult
		want int64
	}{
		"whole":          {wrkResult{Requests: 100, BytesRead: 100 * 16600}, 0},
		"short":          {wrkResult{Requests: 100, BytesRead: 100 * 8000}, 100},
		"counted by wrk": {wrkResult{Requests: 100, BytesRead: 100, Non2xx: 3, SocketError: 2}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			if got := failed(c.r, b); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func FuzzWrkOutput(f *testing.F) {
	f.Add(wrkText + wrkTotals)
	f.Add("Socket errors: connect 1, read 2")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseWrk(text)
		if err == nil && !strings.Contains(text, "requests in") {
			t.Errorf("read %+v from what is not wrk's", r)
		}
	})
}
