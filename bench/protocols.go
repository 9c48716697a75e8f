// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// scenario is one load of the protocol part.
type scenario struct {
	Name  string
	Title string
	Unit  string // what CPU time is divided by
	// frontend is the port that is loaded; peer says that the second proxy behind
	// it is in the path, whose CPU time counts as well.
	frontend string
	peer     bool
	// lacks are the kinds that cannot do it.
	lacks []string
	load  func(context.Context, *target) (outcome, error)
}

// target is what a load is put on.
type target struct {
	s        *session
	in       *instance
	name     string // of the proxy, for logs
	port     int
	duration time.Duration
}

func (t *target) address() string { return fmt.Sprintf("127.0.0.1:%d", t.port) }

// outcome is what a load has seen.
type outcome struct {
	Done, Failed int64
	Seconds      float64
	P50, P99     time.Duration // 0: not known
	Failure      error         // the first
}

// scenarios is every load, in the order of tables and plots.
var scenarios = []scenario{
	{Name: "h2c-16x32", Title: "HTTP/2 in, HTTP/1.1 out, 16 connections of 32 streams", Unit: "request", frontend: "h2c", load: loadH2("http", 16, 32)},
	{Name: "h2c-64x1", Title: "HTTP/2 in, HTTP/1.1 out, 64 connections of one stream", Unit: "request", frontend: "h2c", load: loadH2("http", 64, 1)},
	{Name: "h2tls-16x32", Title: "HTTP/2 over TLS in, HTTP/1.1 out, 16 connections of 32 streams", Unit: "request", frontend: "tls", load: loadH2("https", 16, 32)},
	{Name: "h2tls-64x1", Title: "HTTP/2 over TLS in, HTTP/1.1 out, 64 connections of one stream", Unit: "request", frontend: "tls", load: loadH2("https", 64, 1)},
	{Name: "h1tls-64", Title: "HTTP/1.1 over TLS in, HTTP/1.1 out, 64 connections", Unit: "request", frontend: "tls", load: loadWrk("https", 64)},
	{Name: "grpc-unary", Title: "gRPC, unary, HTTP/2 in and out, 16 connections of 8 calls", Unit: "call", frontend: "grpc", load: loadGRPC(false, 16, 8)},
	{Name: "grpc-stream", Title: "gRPC, streams in both directions, HTTP/2 in and out, 16 connections of 8 streams", Unit: "message and its answer", frontend: "grpc", load: loadGRPC(true, 16, 8)},
	{Name: "mtls-h1", Title: "Two proxies with mutual TLS between them, HTTP/1.1 all the way, 64 connections; CPU of both", Unit: "request", frontend: "out1", peer: true, load: loadWrk("http", 64)},
	{Name: "mtls-h2", Title: "Two proxies with mutual TLS and HTTP/2 between them, HTTP/1.1 outside, 64 connections; CPU of both", Unit: "request", frontend: "out2", peer: true, lacks: []string{"nginx"}, load: loadWrk("http", 64)},
	{Name: "handshake-full", Title: "TLS 1.3 handshakes with a P-256 certificate, one request each", Unit: "connection", frontend: "tls", load: loadHandshakes(false)},
	{Name: "handshake-resumed", Title: "TLS 1.3 handshakes, resumed, one request each", Unit: "connection", frontend: "tls", load: loadHandshakes(true)},
	{Name: "tcp-bulk", Title: "TCP, 4 connections that download", Unit: "MB", frontend: "tcp", load: loadDownload(4)},
	{Name: "tcp-small", Title: "TCP, 64 connections with messages of 64 bytes to and fro", Unit: "message and its answer", frontend: "echo", load: loadEcho(64)},
}

func scenarioNames() []string {
	var names []string
	for i := range scenarios {
		names = append(names, scenarios[i].Name)
	}
	return names
}

// contestant is a proxy of the protocol part with the one behind it.
type contestant struct {
	*instance
	peer *instance
}

// runProtocols measures every proxy under every scenario, round by round.
func (s *session) runProtocols(ctx context.Context) error {
	servers, err := s.startServers()
	if err != nil {
		return err
	}
	defer servers.close()
	var running []contestant
	defer func() {
		for _, c := range running {
			s.spawn.end(c.process, c.peer.process)
		}
	}()
	for _, p := range s.atRest("nginx", "haproxy", "envoy", "sidecar") {
		c, err := s.startPair(ctx, p, servers)
		if err != nil {
			return err
		}
		running = append(running, c)
		if err := s.check(ctx, c.instance); err != nil {
			return err
		}
	}
	if !s.o.Quick {
		if err := s.warmProtocols(ctx, running); err != nil {
			return err
		}
	}
	for round := range s.o.Rounds {
		for i := range scenarios {
			for k := range running { // another one begins each round
				c := running[(k+round)%len(running)]
				if err := s.protocolSample(ctx, c, &scenarios[i], round); err != nil {
					return err
				}
			}
		}
		s.say("round %d of %d of the protocols is done", round+1, s.o.Rounds)
	}
	return nil
}

// startPair starts a proxy, and before it the second one that it reaches over mutual
// TLS.
func (s *session) startPair(ctx context.Context, p proxy, servers *servers) (c contestant, err error) {
	second := p
	second.Name += "-peer"
	set := s.settings()
	set.Listeners = []frontend{{Name: "main", Upstream: "backend"}, {Name: "in", Upstream: "backend", Mutual: true, HTTP2: true}}
	if c.peer, _, err = s.startWithSettings(ctx, second, set); err != nil {
		return c, err
	}
	set = s.settings()
	set.StreamModule = s.tools.NginxStream
	set.Listeners = append(plainAndTLS(),
		frontend{Name: "h2c", Upstream: "backend", HTTP2: true},
		frontend{Name: "grpc", Upstream: "grpc", HTTP2: true},
		frontend{Name: "tcp", Upstream: "source", TCP: true},
		frontend{Name: "echo", Upstream: "echo", TCP: true},
		frontend{Name: "out1", Upstream: "peer1", ToMutual: true},
	)
	set.Upstreams = append(set.Upstreams,
		upstream{Name: "grpc", Ports: []int{servers.grpc}, HTTP2: true},
		upstream{Name: "source", Ports: []int{servers.source}, TCP: true},
		upstream{Name: "echo", Ports: []int{servers.echo}, TCP: true},
		upstream{Name: "peer1", Ports: []int{c.peer.ports["in"]}, Mutual: true},
	)
	if p.Kind != "nginx" {
		set.Listeners = append(set.Listeners, frontend{Name: "out2", Upstream: "peer2", ToMutual: true})
		set.Upstreams = append(set.Upstreams, upstream{Name: "peer2", Ports: []int{c.peer.ports["in"]}, Mutual: true, HTTP2: true})
	}
	c.instance, _, err = s.startWithSettings(ctx, p, set)
	return c, err
}

// warmTime is how long each scenario is warmed up with.
const warmTime = time.Second

func (s *session) warmProtocols(ctx context.Context, running []contestant) error {
	for _, c := range running {
		for i := range scenarios {
			if x := &scenarios[i]; s.runs(x, c) {
				if _, err := x.load(ctx, s.target(c, x, warmTime)); err != nil {
					return fmt.Errorf("%s: %s: %w", c.Name, x.Name, err)
				}
			}
		}
	}
	s.say("%d proxies are warm in all protocols", len(running))
	return nil
}

func (s *session) runs(x *scenario, c contestant) bool {
	return slices.Contains(s.o.Protocols, x.Name) && !slices.Contains(x.lacks, c.Kind)
}

func (s *session) target(c contestant, x *scenario, d time.Duration) *target {
	return &target{s: s, in: c.instance, name: c.Name, port: c.ports[x.frontend], duration: d}
}

// quickLoad is the time of a load in a quick run, where the generator is our own.
const quickLoad = 100 * time.Millisecond

// protocolSample is one load with the accounting around it.
func (s *session) protocolSample(ctx context.Context, c contestant, x *scenario, round int) error {
	if !s.runs(x, c) {
		return nil
	}
	paths := []*instance{c.instance}
	if x.peer {
		paths = append(paths, c.peer)
	}
	d := s.o.Duration
	if s.o.Quick {
		d = quickLoad
	}
	before, core, err := s.readingsOf(ctx, paths)
	if err != nil {
		return err
	}
	began := time.Now()
	out, err := x.load(ctx, s.target(c, x, d))
	if err != nil {
		return fmt.Errorf("%s: %s: %w", c.Name, x.Name, err)
	}
	after, coreAfter, err := s.readingsOf(ctx, paths)
	if err != nil {
		return err
	}
	wall := time.Since(began)
	v := Sample{Round: round, Requests: out.Done, Failed: out.Failed, P50Micros: micros(out.P50), P99Micros: micros(out.P99)}
	var total, user time.Duration
	for i, in := range paths {
		t, u := after[i].since(&before[i])
		total, user = total+t, user+u
		m, err := readMemory(in.pid())
		if err != nil {
			return fmt.Errorf("%s: %w", in.Name, err)
		}
		v.Memory.RSS, v.Memory.PSS = v.Memory.RSS+m.RSS, v.Memory.PSS+m.PSS
		if err := in.ended(); err != nil {
			return err
		}
	}
	v.CoreShare = share(total, wall)
	v.OthersShare = max(0, share(coreAfter.busy-core.busy-total, wall))
	v.StealShare = share(coreAfter.steal-core.steal, wall)
	if out.Seconds > 0 {
		v.PerSecond = float64(out.Done) / out.Seconds
	}
	if out.Done > 0 {
		v.CPUMicros, v.UserMicros = micros(total)/float64(out.Done), micros(user)/float64(out.Done)
	}
	if out.Failed > 0 || out.Done == 0 {
		s.fault("%s, %s, round %d: %d failed, %d done: %v", c.Name, x.Name, round+1, out.Failed, out.Done, out.Failure)
	}
	row := s.result.protocol(c.Name, x.Name)
	if row == nil {
		s.result.Protocols = append(s.result.Protocols, ProtocolRow{Proxy: c.Name, Features: c.Features, Scenario: x.Name})
		row = &s.result.Protocols[len(s.result.Protocols)-1]
	}
	row.Samples = append(row.Samples, v)
	s.say("%-10s %-17s %7.2f µs/%s (%.2f user), %7.0f/s, others %.0f %%",
		c.Name, x.Name, v.CPUMicros, x.Unit, v.UserMicros, v.PerSecond, 100*v.OthersShare)
	return nil
}

// readingsOf are those of several proxies and of their core.
func (s *session) readingsOf(ctx context.Context, of []*instance) (uses []cpuUse, core coreTimes, err error) {
	for _, in := range of {
		var use cpuUse
		if use, core, err = s.readings(ctx, in); err != nil {
			return nil, core, err
		}
		uses = append(uses, use)
	}
	return uses, core, nil
}
