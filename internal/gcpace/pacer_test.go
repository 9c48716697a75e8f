// SPDX-License-Identifier: Apache-2.0

package gcpace

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// step is a collection, so long after the one before.
type step struct {
	after  time.Duration
	forced bool
	live   uint64
	want   int
}

func TestAHeapThatIsCollectedOftenGathersMore(t *testing.T) {
	const mb = 1 << 20
	many := func(s step, n int, rest ...step) (all []step) {
		for range n {
			all = append(all, s)
		}
		return append(all, rest...)
	}
	for name, steps := range map[string][]step{
		"a start": many(step{10 * time.Millisecond, false, 8 * mb, Tight}, often-1,
			step{20 * time.Second, false, 8 * mb, Tight}),
		"seldom":             many(step{3 * time.Second, false, 8 * mb, Tight}, 50),
		"forced by somebody": many(step{time.Millisecond, true, 8 * mb, Tight}, 50),
		"often": many(step{time.Second, false, 8 * mb, Tight}, often-1,
			step{time.Second, false, 8 * mb, 150},
			step{5 * time.Second, false, 6 * mb, 200}, // seldom enough because of that
			step{59 * time.Second, false, 6 * mb, 200},
			step{61 * time.Second, true, 6 * mb, Tight},
			step{time.Second, false, 6 * mb, Tight}),
		"a large heap": many(step{time.Second, false, 600 * mb, Tight}, 50),
		"a tiny heap":  many(step{time.Second, false, 1000, Tight}, often-1, step{time.Second, false, 1000, 1000}),
	} {
		p, now, n := &Pacer{}, time.Unix(1e9, 0), uint64(0)
		before := Tight
		for i, s := range steps {
			now = now.Add(s.after)
			if !s.forced {
				n++
			}
			got, changed := p.Cycle(now, n, s.live)
			if got != s.want || changed != (got != before) {
				t.Errorf("%s, collection %d: %d, changed %v; want %d", name, i+1, got, changed, s.want)
			}
			before = got
		}
	}
}

var sink []byte

// The process's own heap, while garbage is made and nothing else.
func TestGarbageIsCollectedLessOften(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(Tight))
	Start()
	percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	deadline := time.Now().Add(time.Minute)
	for metrics.Read(percent); percent[0].Value.Uint64() == Tight; metrics.Read(percent) {
		if time.Now().After(deadline) {
			t.Fatal("the percentage stays as it was")
		}
		sink = make([]byte, 64<<10)
		runtime.Gosched()
	}
}
