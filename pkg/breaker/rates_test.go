// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// ratedHosts are detection by failure percentage and five hosts.
func ratedHosts() (*Outlier, []*fakeHost) {
	cfg := envoyDefaults
	cfg.Consecutive5xx, cfg.ConsecutiveGateway = 0, 0
	cfg.Failure.Enforcing, cfg.SuccessRate.MinHosts = 100, 1000
	hosts := []*fakeHost{{name: "0"}, {name: "1"}, {name: "2"}, {name: "3"}, {name: "4"}}
	return NewOutlier("c", &cfg, Members{Each: func(f func(Host)) {
		for _, h := range hosts {
			f(h)
		}
	}, Changed: func() {}}, nil, 1), hosts
}

// Every response of every worker is in exactly one interval, however ticks fall.
func TestRatesAreExactOverWorkers(t *testing.T) {
	const workers, each = 4, 20000
	o, hosts := ratedHosts()
	now := int64(time.Hour)
	o.Tick(now)
	var wg, ticker sync.WaitGroup
	var done atomic.Bool
	var sum rate
	collect := func() {
		now += int64(10 * time.Second)
		o.Tick(now)
		for _, r := range o.rates {
			sum.success += r.sum[external].success
			sum.failure += r.sum[external].failure
		}
	}
	ticker.Go(func() {
		for !done.Load() {
			collect()
		}
	})
	for range workers {
		wg.Go(func() {
			tallies := map[*fakeHost]*Tally{}
			for _, h := range hosts {
				tallies[h] = o.Tally(h)
			}
			for i := range each {
				h := hosts[i%len(hosts)]
				o.Result(h, tallies[h], 200+300*(i/len(hosts)%2))
			}
		})
	}
	wg.Wait()
	done.Store(true)
	ticker.Wait()
	collect()
	if want := (rate{workers * each / 2, workers * each / 2}); sum != want {
		t.Errorf("counted %+v, want %+v", sum, want)
	}
}

func TestHostsThatLeaveAreForgottenWithTheirTallies(t *testing.T) {
	o, hosts := ratedHosts()
	now := int64(time.Hour)
	o.Tick(now)
	for range 3 {
		for i := range hosts {
			hosts[i] = &fakeHost{name: "new"}
			o.Result(hosts[i], o.Tally(hosts[i]), 500)
		}
		now += int64(10 * time.Second)
		o.Tick(now)
	}
	if len(o.rates) != len(hosts) {
		t.Errorf("%d hosts are remembered, want %d", len(o.rates), len(hosts))
	}
}

func TestATallyIsAloneOnItsCacheLines(t *testing.T) {
	if size := unsafe.Sizeof(Tally{}); size != 128 {
		t.Errorf("%d bytes, want 128", size)
	}
}

func TestCountingRatesAllocatesNothing(t *testing.T) {
	o, hosts := ratedHosts()
	tally := o.Tally(hosts[0])
	if a := testing.AllocsPerRun(100, func() {
		o.Result(hosts[0], tally, 200)
		o.Local(hosts[0], tally, Reset)
		tally.RetryAt(5)
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

func BenchmarkResultWithRates(b *testing.B) {
	o, hosts := ratedHosts()
	tally := o.Tally(hosts[0])
	b.ReportAllocs()
	for b.Loop() {
		o.Result(hosts[0], tally, 200)
	}
}

func BenchmarkResultByStatuses(b *testing.B) {
	cfg := envoyDefaults
	cfg.Errors = []resource.StatusRange{{First: 500, Last: 599}, {First: 429, Last: 429}}
	o := NewOutlier("c", &cfg, Members{Each: func(func(Host)) {}}, nil, 1)
	h := &fakeHost{}
	for b.Loop() {
		o.Result(h, nil, 200)
	}
}
