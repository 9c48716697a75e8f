// SPDX-License-Identifier: Apache-2.0

package hystrixcommand_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/breaker/hystrixcommand"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // hystrix-go never ends these
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*metricExchange).Monitor"),
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*poolMetrics).Monitor"))
}

// await polls until the condition holds: hystrix-go counts in the background.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not come", what)
		}
	}
}

var runs atomic.Int32

func TestCommandsShowLikeCircuits(t *testing.T) {
	start := time.Now()
	commands := hystrixcommand.Register("outbound", func() int64 { return int64(time.Since(start)) })
	// hystrix-go's circuits are the process's: each run needs one of its own.
	name := fmt.Sprint("fetch-", runs.Add(1))
	hystrix.ConfigureCommand(name, hystrix.CommandConfig{
		Timeout: 2000, MaxConcurrentRequests: 7, RequestVolumeThreshold: 6, ErrorPercentThreshold: 40,
	})
	do := func(err error) error { return hystrix.Do(name, func() error { return err }, nil) }
	for range 3 {
		if err := do(nil); err != nil {
			t.Fatal(err)
		}
	}
	var m breaker.Metrics
	count := func(o breaker.Outcome) uint64 {
		all := commands.Metrics()
		if len(all) != 1 {
			return 0
		}
		m = all[0]
		return m.Rolling[o]
	}
	await(t, "three successes", func() bool { return count(breaker.Success) == 3 })
	if m.Name != name || m.Group != "outbound" || m.State != breaker.Closed || m.TimeoutMillis != 2000 ||
		m.MaxRequests != 7 || m.Config.RequestVolumeThreshold != 6 || m.Config.ErrorThresholdPercent != 40 || m.Executed != 3 {
		t.Errorf("got %+v", m)
	}
	for range 3 {
		if do(errors.New("refused")) == nil {
			t.Fatal("no error")
		}
	}
	await(t, "three failures", func() bool { return count(breaker.Failure) == 3 })
	await(t, "the opening", func() bool { count(breaker.Failure); return m.IsOpen() })
	if err := do(nil); !errors.Is(err, hystrix.ErrCircuitOpen) {
		t.Fatalf("got %v, want an open circuit", err)
	}
	await(t, "a short circuit", func() bool { return count(breaker.ShortCircuited) == 1 })
	if m.Executed != 6 {
		t.Errorf("%d latencies, want 6: what was refused did not run", m.Executed)
	}
}
