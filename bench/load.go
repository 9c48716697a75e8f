// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// body is what the backend answers with.
type body struct {
	name string
	path string
	size int
}

// bodies are the scenarios. The path of the small one has a query, as calls
// between services do.
var bodies = []body{
	{name: "small", path: smallPath, size: len(`{"id":5,"name":"a thing","tags":["x","y"]}`)},
	{name: "16k", path: "/16k", size: 16 << 10},
}

func bodyNames() []string {
	var names []string
	for _, b := range bodies {
		names = append(names, b.name)
	}
	return names
}

func largeBody() []byte {
	return []byte(strings.Repeat("0123456789abcde\n", 1<<10))
}

const (
	warmUp = time.Second
	// settle lets what a proxy does after the last response (logs, traces) fall
	// into the sample that caused it.
	settle = 60 * time.Millisecond
)

// runLoad measures every proxy under every load, round by round.
func (s *session) runLoad(ctx context.Context) error {
	var running []*instance
	defer func() {
		for _, in := range running {
			s.spawn.end(in.process)
		}
	}()
	for _, p := range proxies {
		if !s.o.measures(p.Name) {
			continue
		}
		in, took, err := s.startProxy(ctx, p, nil)
		if err != nil {
			return err
		}
		running = append(running, in)
		if err := s.check(ctx, in); err != nil {
			return err
		}
		s.say("%s is ready after %.0f ms", p.Name, 1000*took.Seconds())
	}
	if !s.o.Quick {
		if err := s.warm(ctx, running); err != nil {
			return err
		}
	}
	for round := range s.o.Rounds {
		for _, b := range bodies {
			if !s.wants(b) {
				continue
			}
			for _, n := range s.o.Connections {
				for i := range running { // another one begins each round
					in := running[(i+round)%len(running)]
					if err := s.sample(ctx, in, b, n, round); err != nil {
						return err
					}
				}
			}
		}
		s.say("round %d of %d is done", round+1, s.o.Rounds)
	}
	return s.checkBatches(running)
}

func (s *session) wants(b body) bool {
	for _, name := range s.o.Bodies {
		if name == b.name {
			return true
		}
	}
	return false
}

// warm loads every proxy as it will be, so that no round has the pools, caches
// and first connections of the others to pay for.
func (s *session) warm(ctx context.Context, running []*instance) error {
	for _, in := range running {
		for _, b := range bodies {
			if !s.wants(b) {
				continue
			}
			for _, n := range s.o.Connections {
				if _, err := s.wrk(ctx, in, b, n, warmUp); err != nil {
					return err
				}
			}
		}
	}
	s.say("%d proxies are warm", len(running))
	return nil
}

func (s *session) wrk(ctx context.Context, in *instance, b body, connections int, d time.Duration) (wrkResult, error) {
	if err := in.ended(); err != nil {
		return wrkResult{}, err
	}
	r, err := s.wrkOn(ctx, in.url+b.path, connections, d)
	if err != nil {
		return r, fmt.Errorf("%s: %w", in.Name, err)
	}
	return r, in.ended()
}

func (s *session) wrkOn(ctx context.Context, url string, connections int, d time.Duration) (wrkResult, error) {
	text, err := s.spawn.runToEnd(ctx, "wrk", s.loadCPU, s.tools.Wrk, "--latency", "-t1",
		"-c"+strconv.Itoa(connections), "-d"+strconv.Itoa(int(d/time.Second))+"s",
		"-H", "User-Agent: bench/1.0", "-H", "Accept: */*", "-H", "X-Custom: abc", url)
	if err != nil {
		return wrkResult{}, err
	}
	return parseWrk(text)
}

// sample is one wrk run with the accounting around it.
func (s *session) sample(ctx context.Context, in *instance, b body, connections, round int) error {
	before, core, err := s.readings(ctx, in)
	if err != nil {
		return err
	}
	began := time.Now()
	r, err := s.wrk(ctx, in, b, connections, s.o.Duration)
	if err != nil {
		return err
	}
	after, coreAfter, err := s.readings(ctx, in)
	if err != nil {
		return err
	}
	wall := time.Since(began)
	m, err := readMemory(in.pid())
	if err != nil {
		return fmt.Errorf("%s: %w", in.Name, err)
	}
	total, user := after.since(&before)
	x := Sample{
		Round: round, Requests: r.Requests, Failed: failed(r, b), Memory: m,
		PerSecond: float64(r.Requests) / r.Seconds,
		P50Micros: micros(r.P50), P99Micros: micros(r.P99),
		CoreShare:   share(total, wall),
		OthersShare: max(0, share(coreAfter.busy-core.busy-total, wall)),
		StealShare:  share(coreAfter.steal-core.steal, wall),
	}
	if r.Requests > 0 {
		x.CPUMicros = micros(total) / float64(r.Requests)
		x.UserMicros = micros(user) / float64(r.Requests)
	}
	if x.Failed > 0 || r.Requests == 0 {
		s.fault("%s, %s body, %d connections, round %d: %d of %d requests failed", in.Name, b.name, connections, round+1, x.Failed, r.Requests)
	}
	c := s.result.cell(in.Name, b.name, connections)
	if c == nil {
		s.result.Load = append(s.result.Load, Cell{Proxy: in.Name, Features: in.Features, Body: b.name, Connections: connections})
		c = &s.result.Load[len(s.result.Load)-1]
	}
	c.Samples = append(c.Samples, x)
	s.say("%-10s %-5s %3d connections: %6.2f µs/request (%.2f user), %6.0f requests/s, p99 %.2f ms, others %.0f %%",
		in.Name, b.name, connections, x.CPUMicros, x.UserMicros, x.PerSecond, x.P99Micros/1000, 100*x.OthersShare)
	return nil
}

// readings are those of the proxy and of its core, when it has come to rest.
func (s *session) readings(ctx context.Context, in *instance) (cpuUse, coreTimes, error) {
	if err := pause(ctx, settle); err != nil {
		return cpuUse{}, coreTimes{}, err
	}
	use, err := readCPU(in.pid())
	if err != nil {
		return use, coreTimes{}, fmt.Errorf("%s: %w", in.Name, err)
	}
	core, err := readCore(s.proxyCPU)
	return use, core, err
}

// failed counts what went wrong. wrk does not look at bodies: fewer bytes than the
// bodies alone make all suspect.
func failed(r wrkResult, b body) int64 {
	n := r.SocketError + r.Non2xx
	// wrk prints three digits: the last may be rounded down.
	if whole := float64(r.Requests) * float64(b.size); n == 0 && r.BytesRead < 0.99*whole {
		n = r.Requests
	}
	return n
}

// checkBatches sees that those with features on have exported spans.
func (s *session) checkBatches(running []*instance) error {
	text, err := os.ReadFile(filepath.Join(s.dir, "batches"))
	if err != nil {
		return err
	}
	for _, in := range running {
		n := strings.Count(string(text), "/"+in.Name+"/api/v2/spans\n")
		if in.Features {
			s.say("%s: the collector took %d batches of spans", in.Name, n)
		}
		if (n > 0) != in.Features {
			s.fault("%s: the trace collector has had %d batches of its spans", in.Name, n)
		}
	}
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func share(part, of time.Duration) float64 { return float64(part) / float64(of) }

// pause waits, or ends with the context.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
