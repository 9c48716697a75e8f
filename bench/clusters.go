// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
)

// runClusters measures what many clusters take: time until the first request is
// forwarded, from the start of the process, and memory above that of a process
// with none.
func (s *session) runClusters(ctx context.Context) error {
	many := manyClusters(s.o.ClusterCount)
	for round := range min(s.o.Rounds, idleRounds) {
		for _, p := range s.atRest("envoy", "sidecar") {
			bare, err := s.startWith(ctx, p, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			full, err := s.startWith(ctx, p, many)
			if err != nil {
				return fmt.Errorf("%s with %d clusters: %w", p.Name, len(many), err)
			}
			x := ClusterRound{Round: round, Bare: bare, Full: full}
			x.BytesPerCluster = float64(full.Memory.RSS-bare.Memory.RSS) / float64(len(many))
			row := s.result.clusters(p.Name)
			if row == nil {
				s.result.Clusters = append(s.result.Clusters, ClusterRow{Proxy: p.Name, Clusters: len(many)})
				row = &s.result.Clusters[len(s.result.Clusters)-1]
			}
			row.Rounds = append(row.Rounds, x)
			s.say("%-10s %d clusters: ready after %.3f s (%.3f s of CPU; %.3f s without), %.1f kB each",
				p.Name, len(many), full.ReadySeconds, full.CPUSeconds, bare.ReadySeconds, x.BytesPerCluster/1e3)
		}
	}
	return nil
}

func (s *session) startWith(ctx context.Context, p proxy, clusters []namedEndpoints) (x Start, err error) {
	in, took, err := s.startProxy(ctx, p, clusters)
	if err != nil {
		return x, err
	}
	defer s.spawn.end(in.process)
	use, err := readCPU(in.pid())
	if err != nil {
		return x, fmt.Errorf("%s: %w", p.Name, err)
	}
	x.ReadySeconds = took.Seconds()
	x.CPUSeconds = use.sum().Seconds()
	x.Memory, err = s.restingMemory(ctx, in)
	return x, err
}
