// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"io"
	"strconv"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
)

// BenchmarkStatsOfAThousandClusters is one scrape of a proxy with as many
// clusters; ns/turn is the longest that it holds a worker.
func BenchmarkStatsOfAThousandClusters(b *testing.B) {
	p, err := New(Options{Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	s := baseSnapshot(freeAddr(b))
	for i := range 1000 {
		withCluster(s, "cluster-"+strconv.Itoa(i), "192.0.2.1:80", "192.0.2.2:80")
	}
	s.Version++
	if err := p.Apply(s); err != nil {
		b.Fatal(err)
	}
	w := p.workers[0]
	for _, c := range *p.clusters.Load() {
		if err := p.ask(ctx, w, func() { w.clusterOn(c).stats.response(200, 1e6) }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		list, err := p.Stats(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if err := metrics.WritePrometheus(io.Discard, list); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	longest := int64(0)
	if err := p.ask(ctx, w, func() { longest = int64(w.loop.Stats().MaxTick) }); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(longest), "ns/turn")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
