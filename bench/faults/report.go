// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// result is what one fault did to one proxy.
type result struct {
	Fault string `json:"fault"`
	What  string `json:"what"`
	Proxy string `json:"proxy"`
	Bar   bool   `json:"noneMayBeLost,omitempty"`
	// Hopeless: for a while there is nothing that could answer.
	Hopeless bool `json:"hopeless,omitempty"`

	Sent     int   `json:"sent"`     // by connections that send all the time
	Failed   int   `json:"failed"`   // of them
	Idle     int   `json:"idle"`     // connections that were idle all through
	IdleLost int   `json:"idleLost"` // those whose next request failed
	Retries  int64 `json:"retries"`  // by the proxies

	// Amplification is how many calls came to the instances for each request while all
	// failed; 0: not looked at.
	Amplification float64 `json:"amplification,omitempty"`

	// Broken is from the fault to the last request lost before it was mended, After
	// from there to the last one lost at all; 0: none was.
	Broken time.Duration `json:"brokenNanos"`
	After  time.Duration `json:"afterMendingNanos"`
	P50    time.Duration `json:"p50Nanos"` // of requests that were answered, from the fault on
	P99    time.Duration `json:"p99Nanos"`
	Why    []string      `json:"why,omitempty"` // how requests failed, the most frequent first
}

// report is a run.
type report struct {
	Date        time.Time `json:"date"`
	Rate        int       `json:"requestsPerSecond"`
	Connections int       `json:"connections"`
	Seconds     float64   `json:"secondsOfAFault"`
	Repeats     int       `json:"repeats"`
	Rows        []result  `json:"rows"`
}

// count judges what clients have seen. A zero mended: the fault took its own time.
func count(samples []sample, caused, mended time.Time) (r result) {
	var took []time.Duration
	why := map[string]int{}
	for _, s := range samples {
		if s.idle {
			r.Idle++
		} else {
			r.Sent++
		}
		if s.err == "" {
			if !s.at.Before(caused) {
				took = append(took, s.took)
			}
			continue
		}
		why[s.err]++
		if s.idle {
			r.IdleLost++
			continue
		}
		r.Failed++
		switch {
		case s.at.Before(caused):
		case mended.IsZero() || s.at.Before(mended):
			r.Broken = max(r.Broken, s.at.Sub(caused))
		default:
			r.After = max(r.After, s.at.Sub(mended))
		}
	}
	slices.Sort(took)
	if n := len(took); n > 0 {
		r.P50, r.P99 = took[n/2], took[n*99/100]
	}
	for text := range why {
		r.Why = append(r.Why, text)
	}
	slices.SortFunc(r.Why, func(a, b string) int { return cmp.Or(why[b]-why[a], strings.Compare(a, b)) })
	r.Why = r.Why[:min(len(r.Why), 3)]
	return r
}

// String is the result on a line.
func (r result) String() string {
	text := fmt.Sprintf("%d of %d lost, %d retries, p50 %s, p99 %s", r.Failed, r.Sent, r.Retries, short(r.P50), short(r.P99))
	if r.Amplification > 0 {
		text += fmt.Sprintf(", %.2f calls for each request", r.Amplification)
	}
	if r.Idle > 0 {
		text += fmt.Sprintf(", %d of %d idle connections lost", r.IdleLost, r.Idle)
	}
	if len(r.Why) > 0 {
		text += " (" + strings.Join(r.Why, "; ") + ")"
	}
	return text
}

// maxAmplification is what a request may become over three proxies.
const maxAmplification = 1.25

// amplifies counts the calls for each request that was sent between two times.
func (r *result) amplifies(samples []sample, from, to time.Time, calls int64) {
	n := 0
	for _, s := range samples {
		if !s.at.Before(from) && s.at.Before(to) {
			n++
		}
	}
	r.Amplification = float64(calls) / float64(max(n, 1))
}

// recovery says until when requests were lost.
func (r result) recovery() string {
	switch {
	case r.After > 0:
		return fmt.Sprintf("%s after it was mended", short(r.After))
	case r.Broken > 0:
		return short(r.Broken)
	}
	return "–"
}

func short(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// markdown is the table that people read.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Faults of %s\n\n", r.Date.Format("2006-01-02 15:04 UTC"))
	fmt.Fprintf(&b, "`go run ./bench/faults`: %d requests a second on %d keep-alive connections, by clients that never\nretry; a fault lasts %g s, changes in a row are %d. Both proxies have the same bootstrap.\n\n",
		r.Rate, r.Connections, r.Seconds, r.Repeats)
	b.WriteString("| fault | proxy | sent | lost | idle connections lost | retries | calls per request | lost until | p50 | p99 |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		idle := "–"
		if row.Idle > 0 {
			idle = fmt.Sprintf("%d of %d", row.IdleLost, row.Idle)
		}
		calls := "–"
		if row.Amplification > 0 {
			calls = fmt.Sprintf("%.2f", row.Amplification)
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %s | %d | %s | %s | %s | %s |\n", row.What, row.Proxy, row.Sent, row.Failed, idle,
			row.Retries, calls, row.recovery(), short(row.P50), short(row.P99))
	}
	b.WriteString("\n")
	for _, kind := range proxyKinds() {
		if line := r.sum(kind); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// sum is what a proxy has lost under the faults that need not lose anything; "": it had
// none. Those where nothing is left that could answer are not among them.
func (r *report) sum(kind string) string {
	n, sent, lost, idle, idleLost := 0, 0, 0, 0, 0
	for _, row := range r.Rows {
		if row.Proxy != kind || row.Hopeless {
			continue
		}
		n++
		sent, lost = sent+row.Sent, lost+row.Failed
		idle, idleLost = idle+row.Idle, idleLost+row.IdleLost
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %d of %d requests lost under %d faults, %d of %d idle connections", kind, lost, sent, n, idleLost, idle)
}

// write prints the table and keeps it in the folder, with the figures beside it.
func (r *report) write(folder string, out io.Writer) error {
	text := r.markdown()
	if _, err := io.WriteString(out, text); err != nil || folder == "" {
		return err
	}
	figures, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "faults.md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(folder, "faults.json"), append(figures, '\n'), 0o644),
	)
}

// verdict is an error where the sidecar lost a request that it may not lose.
func (r *report) verdict() error {
	var errs []error
	for _, row := range r.Rows {
		if row.Proxy == "sidecar" && row.Amplification >= maxAmplification {
			errs = append(errs, fmt.Errorf("%s: %s, must be below %.2f", row.Fault, row, maxAmplification))
		}
		if row.Bar && row.Proxy == "sidecar" && row.Failed+row.IdleLost > 0 {
			errs = append(errs, fmt.Errorf("%s: %s", row.Fault, row))
		}
	}
	return errors.Join(errs...)
}
