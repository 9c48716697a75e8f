// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// smallPath is that of the small body.
const smallPath = "/api/v1/things?id=5"

// fewRequests are those of a load too short for h2load's clock, whose version 1.52
// never ends where the time is over before all connections are open.
const fewRequests = 2000

// loadH2 is h2load with one thread.
func loadH2(scheme string, connections, streams int) func(context.Context, *target) (outcome, error) {
	return func(ctx context.Context, t *target) (outcome, error) {
		length := "-D" + strconv.Itoa(int(t.duration/time.Second))
		if t.duration < time.Second {
			length = "-n" + strconv.Itoa(fewRequests)
		}
		ctx, cancel := context.WithTimeout(ctx, t.duration+graceTime)
		defer cancel()
		args := []string{t.s.tools.H2load, "-t1",
			"-c" + strconv.Itoa(connections), "-m" + strconv.Itoa(streams), length,
			"-H", "user-agent: bench/1.0", "-H", "accept: */*", "-H", "x-custom: abc",
			scheme + "://" + t.address() + smallPath}
		text, err := t.s.spawn.runToEnd(ctx, "h2load", t.s.loadCPU, args...)
		if err != nil {
			return outcome{}, err
		}
		out, err := parseH2load(text)
		if err == nil && out.Done > 0 && out.bytes < 99*out.Done*int64(bodies[0].size)/100 {
			out.Failed, out.Failure = out.Done, errors.New("fewer bytes than the bodies")
		}
		return out.outcome, err
	}
}

// h2loadResult is what one run of h2load said.
type h2loadResult struct {
	outcome
	bytes int64 // of bodies
}

// parseH2load reads the text of `h2load -D`.
func parseH2load(text string) (r h2loadResult, err error) {
	seen := map[string]bool{}
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := s.Text()
		name, rest, _ := strings.Cut(line, ":")
		var n [8]int64
		var wrong error
		switch name {
		case "finished in":
		case "requests":
			_, wrong = fmt.Sscanf(rest, "%d total, %d started, %d done, %d succeeded, %d failed, %d errored, %d timeout", &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6])
			r.Done, r.Failed = n[3], r.Failed+n[4]
			if n[4] > 0 {
				r.Failure = errors.New("h2load: " + line)
			}
		case "status codes":
			_, wrong = fmt.Sscanf(rest, "%d 2xx, %d 3xx, %d 4xx, %d 5xx", &n[0], &n[1], &n[2], &n[3])
			if bad := n[1] + n[2] + n[3]; bad > 0 {
				r.Failed, r.Failure = r.Failed+bad, errors.New("h2load: "+line)
			}
		case "traffic":
			_, after, ok := strings.Cut(rest, "headers (space savings")
			if _, data, found := strings.Cut(after, "), "); ok && found {
				_, data, _ = strings.Cut(data, "(")
				_, wrong = fmt.Sscanf(data, "%d) data", &r.bytes)
			}
		default:
			if took, ok := strings.CutPrefix(line, "finished in "); ok {
				took, _, _ = strings.Cut(took, ",")
				var d time.Duration
				d, wrong = time.ParseDuration(took)
				r.Seconds, name = d.Seconds(), "finished in"
			}
		}
		if wrong != nil {
			return r, fmt.Errorf("h2load's line %q: %w", line, wrong)
		}
		seen[name] = true
	}
	for _, want := range []string{"finished in", "requests", "status codes", "traffic"} {
		if !seen[want] {
			return r, fmt.Errorf("h2load's output has no %q:\n%s", want, tail(text, 15))
		}
	}
	return r, nil
}

// loadWrk is wrk with one thread, and h2load's HTTP/1.1 for less than a second.
func loadWrk(scheme string, connections int) func(context.Context, *target) (outcome, error) {
	return func(ctx context.Context, t *target) (outcome, error) {
		r, err := t.s.wrkOn(ctx, scheme+"://"+t.address()+smallPath, connections, max(t.duration, time.Second))
		if err != nil {
			return outcome{}, err
		}
		return r.outcome(bodies[0]), nil
	}
}

func (r wrkResult) outcome(b body) outcome {
	out := outcome{Done: r.Requests, Failed: failed(r, b), Seconds: r.Seconds, P50: r.P50, P99: r.P99}
	if out.Failed > 0 {
		out.Failure = fmt.Errorf("wrk: %d errors of sockets, %d answers that are no 2xx, %.0f bytes", r.SocketError, r.Non2xx, r.BytesRead)
	}
	return out
}
