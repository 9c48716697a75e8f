// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"sync"
	"testing"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestLimitsKeepTheirSize(t *testing.T) {
	if got := unsafe.Sizeof(Limits{}); got != 128 {
		t.Errorf("limits have %d bytes, want 128", got)
	}
}

func TestLimitsOfTheHighPriorityAreMadeForTheFirstThatAsks(t *testing.T) {
	l := NewLimits(resource.Thresholds{MaxRequests: 1})
	l.SetHigh(&resource.Thresholds{MaxRequests: 2})
	if u := l.UseHigh().Requests; u.Max != 2 || u.Active != 0 || u.Open || l.high.limits.Load() != nil {
		t.Errorf("unused: %+v, made %v", u, l.high.limits.Load() != nil)
	}
	h := l.High()
	for i := range uint32(3) {
		if got, gotHigh := l.TryRequest(), h.TryRequest(); got != (i < 1) || gotHigh != (i < 2) {
			t.Errorf("request %d: default %v, high %v; each has limits of its own, one and two", i, got, gotHigh)
		}
	}
	if u := l.UseHigh().Requests; u.Active != 2 || u.Overflow != 1 || l.AllRequests() != 3 {
		t.Errorf("%+v, %d requests in all", u, l.AllRequests())
	}
	l.SetHigh(&resource.Thresholds{MaxRequests: 3})
	if h.TryRequest(); l.UseHigh().Requests.Active != 3 || l.High() != h {
		t.Errorf("the limit has not become three: %+v", l.UseHigh().Requests)
	}
}

func TestLimitsOfTheHighPriorityAreTheLastOnesSaid(t *testing.T) {
	for range 2000 {
		l := NewLimits(resource.Thresholds{})
		l.SetHigh(&resource.Thresholds{MaxRequests: 1})
		var wg sync.WaitGroup
		got := make([]*Limits, 2)
		for i := range got {
			wg.Go(func() { got[i] = l.High() })
		}
		l.SetHigh(&resource.Thresholds{MaxRequests: 2})
		wg.Wait()
		if n := l.UseHigh().Requests.Max; n != 2 || got[0] != got[1] {
			t.Fatalf("%d requests, the same limits for all %v; want 2", n, got[0] == got[1])
		}
	}
}
