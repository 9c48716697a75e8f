// SPDX-License-Identifier: Apache-2.0

package adaptiveconcurrency

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

func message(num protowire.Number, parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
}

func number(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
}

func count(num protowire.Number, v uint64) []byte { return message(num, number(1, v)) }

func share(num protowire.Number, v float64) []byte {
	return message(num, protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), math.Float64bits(v)))
}

func seconds(num protowire.Number, n uint64) []byte { return message(num, number(1, n)) }

func gradient(parts ...[]byte) []byte { return message(1, parts...) }

var (
	everySecond = message(2, seconds(3, 1))
	everyMinute = message(3, seconds(1, 60))
)

func TestDefaultsAreEnvoys(t *testing.T) {
	got, err := parse(gradient(everySecond, everyMinute))
	want := defaults
	want.Update = time.Second
	if err != nil || got != want {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestSettingsAreRead(t *testing.T) {
	got, err := parse(append(append(gradient(
		share(1, 90),
		message(2, count(2, 100), seconds(3, 2), count(4, 5)),
		message(3, seconds(1, 30), count(2, 7), share(3, 1.5), count(4, 9), share(5, 0), message(6, number(2, 5_000_000))),
	), message(2, message(1, number(1, 0)))...), message(3, number(1, 429))...))
	want := Config{
		Status: 429, Percentile: 90, MaxLimit: 100, MinLimit: 5, Update: 2 * time.Second,
		Interval: 30 * time.Second, FixedRTT: 5 * time.Millisecond, RequestCount: 7, Jitter: 1.5, MinConcurrency: 9,
	}
	if err != nil || got != want {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestSettingsThatAreWrongAreRefusedByName(t *testing.T) {
	const g = "gradient_controller_config"
	for _, tt := range []struct {
		config []byte
		want   string
	}{
		{nil, g + ": is required"},
		{gradient(everyMinute), g + ".concurrency_limit_params: is required"},
		{gradient(everySecond), g + ".min_rtt_calc_params: is required"},
		{gradient(message(2, count(2, 5)), everyMinute), g + ".concurrency_limit_params.concurrency_update_interval: is required"},
		{gradient(everySecond, message(3)), g + ".min_rtt_calc_params: interval or fixed_value is required"},
		{gradient(message(2, seconds(3, 1), count(2, 0)), everyMinute), g + ".concurrency_limit_params.max_concurrency_limit: must be greater than 0"},
		{gradient(message(2, seconds(3, 1), count(2, 2)), everyMinute), g + ".concurrency_limit_params.max_concurrency_limit: 2 is less than"},
		{gradient(message(2, seconds(3, 1<<40)), everyMinute), g + ".concurrency_limit_params.concurrency_update_interval: must be between"},
		{gradient(everySecond, message(3, message(1, number(2, 1000)))), g + ".min_rtt_calc_params.interval: must be at least 1ms"},
		{gradient(share(1, 101), everySecond, everyMinute), g + ".sample_aggregate_percentile: must be between 0 and 100"},
		{append(gradient(everySecond, everyMinute), message(2, message(2, []byte("key")))...), "enabled.runtime_key"},
		{append(gradient(everySecond, everyMinute), message(9)...), "field 9: not supported"},
		{gradient(message(9)), g + ": field 9: not supported"},
	} {
		if _, err := parse(tt.config); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

// chain is a filter with its own clock.
func chain(t *testing.T, s *store, prefix string, config []byte) (*limiter, *int64) {
	t.Helper()
	c, err := parse(config)
	if err != nil {
		t.Fatal(err)
	}
	now := new(int64)
	*now = int64(time.Hour)
	sh := &shared{config: c}
	return &limiter{now: func() int64 { return *now }, shared: sh, blocked: s.show(prefix, sh)}, now
}

func exchange() *filter.Exchange { return &filter.Exchange{Slots: make([]any, 1)} }

func shows(s *store) string {
	var list []string
	for _, c := range s.counts(0, nil) {
		if c.Value > 0 {
			list = append(list, fmt.Sprintf("%s.%s=%d", c.Scope, c.Name, c.Value))
		}
	}
	return strings.Join(list, " ")
}

func TestWhatIsBeyondTheLimitIsRefused(t *testing.T) {
	s := &store{}
	f, now := chain(t, s, "in", append(gradient(everySecond, everyMinute), message(3, number(1, 429))...))
	var under []*filter.Exchange
	for range 3 {
		x := exchange()
		if f.OnRequest(x) != filter.Next {
			t.Fatal("refused")
		}
		under = append(under, x)
	}
	x := exchange()
	if v := f.OnRequest(x); v != filter.Reply || x.Local.Status != 429 || x.Local.Details != "reached_concurrency_limit" {
		t.Fatalf("verdict %d, %+v", v, x.Local)
	}
	f.OnDone(x) // was never counted
	const scope = "http.in.adaptive_concurrency.gradient_controller."
	if got, want := shows(s), scope+"rq_blocked=1 "+scope+"concurrency_limit=3 "+scope+"min_rtt_calculation_active=1"; got != want {
		t.Errorf("shows %s\nwant  %s", got, want)
	}
	*now += int64(5 * time.Millisecond)
	under[0].Record.Status = 200
	under[1].Record.Status, under[1].Record.Flags = 200, record.DC // cut: no sample
	for _, x := range under {                                      // the last got no response at all
		f.OnDone(x)
		f.OnDone(x)
	}
	if st := f.controller.State(); st.Outstanding != 0 || f.controller.samples.count.Load() != 1 {
		t.Errorf("%d under way, %d samples", st.Outstanding, f.controller.samples.count.Load())
	}
	// Another configuration begins anew, its counter does not.
	chain(t, s, "in", gradient(everySecond, message(3, seconds(1, 60), count(4, 9))))
	if got, want := shows(s), scope+"rq_blocked=1 "+scope+"concurrency_limit=9"; got != want {
		t.Errorf("shows %s\nwant  %s", got, want)
	}
}

func TestADisabledFilterLetsEverythingPass(t *testing.T) {
	f, _ := chain(t, &store{}, "in", append(gradient(everySecond, everyMinute), message(2, message(1, number(1, 0)))...))
	for range 10 {
		if f.OnRequest(exchange()) != filter.Next {
			t.Fatal("refused")
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(gradient(everySecond, everyMinute))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parse(b); err == nil && (c.MinLimit == 0 || c.MinLimit > c.MaxLimit || c.Update <= 0 || c.RequestCount == 0) {
			t.Errorf("%+v", c)
		}
	})
}
