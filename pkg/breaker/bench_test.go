// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func BenchmarkAllowClosed(b *testing.B) {
	cfg := hystrixDefaults
	c := NewCircuit("c", &cfg)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := c.Allow(1); !ok {
			b.Fatal("refused")
		}
	}
}

func BenchmarkAllowOpen(b *testing.B) {
	cfg := hystrixDefaults
	c := NewCircuit("c", &cfg)
	n := Counts{Failure: 100}
	c.Flush(&n)
	c.Tick(int64(time.Hour))
	for b.Loop() {
		if _, ok := c.Allow(int64(time.Hour)); ok {
			b.Fatal("allowed")
		}
	}
}

// BenchmarkRequest is all that a request that succeeds costs here.
func BenchmarkRequest(b *testing.B) {
	cfg := hystrixDefaults
	c, h := NewCircuit("c", &cfg), &fakeHost{}
	detect := envoyDefaults
	o := NewOutlier("c", &detect, Members{Each: func(func(Host)) {}}, nil, 1)
	l := NewLimits(resource.Thresholds{MaxRequests: 1 << 20})
	var n Counts
	b.ReportAllocs()
	for b.Loop() {
		token, _ := c.Allow(1)
		l.TryRequest()
		n.Add(c.Classify(Response, 200))
		n.Observe(1e6)
		c.Report(token, Success, 1)
		o.Result(h, nil, 200)
		l.ReleaseRequest()
	}
}

func BenchmarkTryRequest(b *testing.B) {
	l := NewLimits(resource.Thresholds{MaxRequests: 1 << 20})
	for b.Loop() {
		l.TryRequest()
		l.ReleaseRequest()
	}
}

func BenchmarkTick(b *testing.B) {
	cfg := hystrixDefaults
	c := NewCircuit("c", &cfg)
	var n Counts
	now := int64(time.Hour)
	for b.Loop() {
		n.Success = 100
		c.Flush(&n)
		now += int64(100 * time.Millisecond)
		c.Tick(now)
	}
}

func BenchmarkOutlierTickWhenNothingFails(b *testing.B) {
	detect := envoyDefaults
	o := NewOutlier("c", &detect, Members{Each: func(func(Host)) {}}, nil, 1)
	for b.Loop() {
		o.Tick(1)
	}
}
