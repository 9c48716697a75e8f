// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// wrkResult is what one run of wrk said.
type wrkResult struct {
	Requests    int64
	Seconds     float64
	P50, P99    time.Duration
	BytesRead   float64
	SocketError int64 // connect, read, write and time-out together
	Non2xx      int64 // neither 2xx nor 3xx
}

// parseWrk reads the text of `wrk --latency`.
func parseWrk(text string) (wrkResult, error) {
	var r wrkResult
	seen := map[string]bool{}
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		f := strings.Fields(line)
		var err error
		switch {
		case len(f) == 2 && f[0] == "50%":
			seen["p50"] = true
			r.P50, err = parseWrkTime(f[1])
		case len(f) == 2 && f[0] == "99%":
			seen["p99"] = true
			r.P99, err = parseWrkTime(f[1])
		case len(f) == 6 && strings.HasPrefix(line, f[0]+" requests in "):
			seen["requests"] = true
			err = r.parseTotals(f)
		case strings.HasPrefix(line, "Socket errors:"):
			r.SocketError, err = parseSocketErrors(line)
		case strings.HasPrefix(line, "Non-2xx or 3xx responses:"):
			r.Non2xx, err = strconv.ParseInt(f[len(f)-1], 10, 64)
		}
		if err != nil {
			return r, fmt.Errorf("wrk's line %q: %w", line, err)
		}
	}
	for _, want := range []string{"requests", "p50", "p99"} {
		if !seen[want] {
			return r, fmt.Errorf("wrk's output has no %s:\n%s", want, tail(text, 15))
		}
	}
	return r, nil
}

// parseTotals reads "N requests in 3.00s, 12.34MB read".
func (r *wrkResult) parseTotals(f []string) (err error) {
	if r.Requests, err = strconv.ParseInt(f[0], 10, 64); err != nil {
		return err
	}
	took, err := parseWrkTime(strings.TrimSuffix(f[3], ","))
	if err != nil {
		return err
	}
	r.Seconds = took.Seconds()
	r.BytesRead, err = parseWrkSize(f[4])
	return err
}

func parseSocketErrors(line string) (int64, error) {
	var n [4]int64
	_, err := fmt.Sscanf(line, "Socket errors: connect %d, read %d, write %d, timeout %d", &n[0], &n[1], &n[2], &n[3])
	return n[0] + n[1] + n[2] + n[3], err
}

// wrkTimes are wrk's units of time; it writes minutes and hours too.
var wrkTimes = []struct {
	suffix string
	unit   time.Duration
}{{"us", time.Microsecond}, {"ms", time.Millisecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}}

func parseWrkTime(text string) (time.Duration, error) {
	for _, u := range wrkTimes {
		if digits, ok := strings.CutSuffix(text, u.suffix); ok {
			n, err := strconv.ParseFloat(digits, 64)
			return time.Duration(n * float64(u.unit)), err
		}
	}
	return 0, fmt.Errorf("%q has no unit of time", text)
}

var wrkSizes = []struct {
	suffix string
	unit   float64
}{{"KB", 1 << 10}, {"MB", 1 << 20}, {"GB", 1 << 30}, {"TB", 1 << 40}, {"B", 1}}

func parseWrkSize(text string) (float64, error) {
	for _, u := range wrkSizes {
		if digits, ok := strings.CutSuffix(text, u.suffix); ok {
			n, err := strconv.ParseFloat(digits, 64)
			return n * u.unit, err
		}
	}
	return 0, fmt.Errorf("%q has no unit of size", text)
}
