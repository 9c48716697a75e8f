// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func spans(list ...string) []span {
	var out []span
	for _, text := range list {
		f := strings.Fields(text) // service kind id parent
		x := span{Kind: f[1], ID: f[2], ParentID: f[3]}
		x.Local.ServiceName = f[0]
		out = append(out, x)
	}
	return out
}

func TestATraceIsCompleteOnlyWithEverySpanAndEveryParent(t *testing.T) {
	whole := []string{"web SERVER a caller", "web CLIENT b a", "orders SERVER c b", "orders CLIENT d c", "payments SERVER e d"}
	for _, tc := range []struct {
		name string
		with []string
		want string // empty: complete
	}{
		{"all", whole, ""},
		{"none", nil, `no span "web SERVER"`},
		{"the last service is missing", whole[:4], `no span "payments SERVER"`},
		{"headers were not handed on", append(whole[:4:4], "payments SERVER e other"), `its parent "other" is missing`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := completeTrace(spans(tc.with...), "caller")
			if got := fmt.Sprint(err); (tc.want == "") != (err == nil) || !strings.Contains(got, tc.want) && tc.want != "" {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestTheCircuitOfTheStreamIsFoundByItsService(t *testing.T) {
	w := &circuitWatch{name: "payments"}
	w.read(strings.NewReader(`ping: 

data: {"type":"HystrixCommand","name":"outbound|payments-v2","isCircuitBreakerOpen":true}

data: {"type":"HystrixThreadPool","name":"outbound|payments","isCircuitBreakerOpen":true}

data: {"type":"HystrixCommand","name":"outbound|payments","isCircuitBreakerOpen":false,"rollingCountShortCircuited":3}

data: not JSON

`))
	if got := w.now(); !w.seen || got.Open || got.ShortCircuited != 3 {
		t.Errorf("got seen %t, %+v, want the closed circuit of payments", w.seen, got)
	}
}

func TestARequestWithoutPaymentsCountsAsAFlaw(t *testing.T) {
	good := &answer{Service: "web", Calls: &answer{Service: "orders", Calls: &answer{Service: "payments", Instance: "payments-1"}}}
	short := &answer{Service: "web", Calls: &answer{Service: "orders", Instance: "orders-1", Error: "503"}}
	tally := tally{instances: map[string]int{}}
	tally.add(good, nil, time.Millisecond)
	if err := tally.flawless(); err != nil || tally.instances["payments-1"] != 1 {
		t.Errorf("got %v, %+v", err, tally)
	}
	tally.add(short, nil, time.Second)
	tally.add(nil, errors.New("refused"), time.Millisecond)
	if err := tally.flawless(); err == nil || tally.degraded != 1 || tally.lost != 1 || tally.slowest != time.Second {
		t.Errorf("got %v, %+v", err, tally)
	}
}

func TestOnlyACompleteLineSaysAnAddress(t *testing.T) {
	var l lines
	fmt.Fprint(&l, "xds   127.0.0.1:15010\nhttp  127.0.0.1:1")
	if xds, http := l.word("xds"), l.word("http"); xds != "127.0.0.1:15010" || http != "" {
		t.Errorf("got %q and %q", xds, http)
	}
	fmt.Fprint(&l, "5014 (token wanted)\n")
	if got := l.word("http"); got != "127.0.0.1:15014" {
		t.Errorf("got %q", got)
	}
}

func TestALakeRowNeedsTheBodyThatWasAskedFor(t *testing.T) {
	for _, tc := range []struct {
		name, rows string
		good       bool
	}{
		{"whole", `{"status":503}` + "\n" + `{"status":200,"response_body":"{\"service\":\"payments\"}"}` + "\n", true},
		{"no body", `{"status":200}` + "\n", false},
		{"nothing", "", false},
	} {
		if err := wholeRow([]byte(tc.rows)); (err == nil) != tc.good {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}

func TestWhoEndsARunIsToldWhatItCutAndNotThatTheTimeWasOver(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cause error
		want  string
	}{
		{"interrupted", context.Canceled, "interrupted before: opens\n"},
		{"out of time", context.DeadlineExceeded, "not seen: opens: the time was over: it did not open"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			if tc.cause == context.DeadlineExceeded {
				ctx, end = context.WithDeadline(t.Context(), time.Now().Add(time.Millisecond))
			}
			defer end()
			var text strings.Builder
			out := &screen{w: &text, began: time.Now()}
			opens := &step{title: "opens", limit: time.Hour, run: func(live context.Context) (string, error) {
				if tc.cause == context.Canceled {
					end()
				}
				<-live.Done()
				return "", errors.New("it did not open")
			}}
			lake := &step{title: "the lake", limit: time.Hour}
			s := &story{out: out, load: &load{}, steps: []*step{opens, lake}, lake: lake}
			s.tell(ctx)
			if code := out.verdict(s, true, tc.cause == context.Canceled); code == 0 || !strings.Contains(text.String(), tc.want) {
				t.Errorf("exit code %d, got\n%s\nwant %q", code, text.String(), tc.want)
			}
		})
	}
}

func TestRequestsWithoutPaymentsAreExplained(t *testing.T) {
	var text strings.Builder
	out := &screen{w: &text, began: time.Now()}
	out.load(tally{sent: 200})
	out.load(tally{sent: 300, degraded: 178})
	if got := text.String(); strings.Count(got, "0 lost\n") != 1 || !strings.Contains(got, "0 lost, 178 answered without payments, as it failed or its circuit was open\n") {
		t.Errorf("got\n%s", got)
	}
}
