// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// simRig is a whole proxy on a virtual clock and network.
type simRig struct {
	t     testing.TB
	world *sim.World
	p     *Proxy
	addr  reactor.Addr
	snap  *resource.Snapshot
}

func newSim(t testing.TB, seed uint64, link sim.Link, edit func(*resource.Snapshot)) *simRig {
	t.Helper()
	return newSimWith(t, nil, seed, link, edit)
}

func newSimWith(t testing.TB, filters *filter.Registry, seed uint64, link sim.Link, edit func(*resource.Snapshot)) *simRig {
	t.Helper()
	return newSimOf(t, Options{Filters: filters}, seed, link, edit)
}

func newSimOf(t testing.TB, o Options, seed uint64, link sim.Link, edit func(*resource.Snapshot)) *simRig {
	t.Helper()
	r := &simRig{t: t, world: sim.New(seed, link)}
	o.Workers, o.NewLoop, o.Binder, o.Seed = 1, r.world.NewLoop, r.world, seed+1
	o.Go = func(f func()) { r.world.At(0, f) }
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.p = p
	r.addr = reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.1:80"))
	r.snap = baseSnapshot("10.0.0.1:80")
	edit(r.snap)
	r.apply()
	// The maintenance tick, which Run would do by the real clock.
	var tick func()
	tick = func() {
		p.tick(int64(r.world.Now()))
		r.world.At(maintainEvery, tick)
	}
	r.world.At(maintainEvery, tick)
	t.Cleanup(func() {
		for _, w := range p.workers {
			w.loop.StopOffLoop()
		}
		if err := r.world.Run(time.Second); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *simRig) apply() {
	r.t.Helper()
	r.snap.Version++
	if err := r.p.Apply(frozen(r.snap)); err != nil {
		r.t.Fatal(err)
	}
	if err := r.world.RunUntil(time.Second, func() bool { return r.p.AdoptedVersion() == r.snap.Version }); err != nil {
		r.t.Fatal(err)
	}
}

func (r *simRig) until(what string, limit time.Duration, done func() bool) {
	r.t.Helper()
	if err := r.world.RunUntil(limit, done); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
}

func (r *simRig) dial() *sim.Peer {
	p, err := r.world.Dial(r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// serve answers every request head that arrives with the bytes respond returns.
func (r *simRig) serve(addr string, respond func(p *sim.Peer, head string)) {
	err := r.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort(addr)), func(p *sim.Peer) {
		var in []byte
		p.OnData = func(p *sim.Peer, b []byte) {
			in = append(in, b...)
			for {
				i := bytes.Index(in, []byte("\r\n\r\n"))
				if i < 0 {
					return
				}
				n := i + 4
				if j := strings.Index(string(in[:i]), "content-length: "); j >= 0 {
					line, _, _ := strings.Cut(string(in[j+16:i])+"\r\n", "\r\n")
					body, _ := strconv.Atoi(line)
					n += body
				}
				if len(in) < n {
					return
				}
				head := string(in[:i])
				in = append(in[:0:0], in[n:]...)
				respond(p, head)
			}
		}
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// settled checks that nothing is held any more once all is over: no request, no
// attempt, no place in a queue.
func (r *simRig) settled() {
	r.t.Helper()
	w := r.p.workers[0]
	for name, c := range r.p.slots {
		spec := c.spec.Load()
		if spec == nil {
			continue
		}
		u := spec.limits.Use()
		if u.Requests.Active != 0 || u.Pending.Active != 0 || u.Retries.Active != 0 {
			r.t.Errorf("cluster %s still holds %+v", name, u)
		}
		open := uint32(0)
		for _, h := range spec.lb.View().Hosts() {
			if n := h.Active.Load(); n != 0 {
				r.t.Errorf("host %s has %d requests in flight", h, n)
			}
			open += uint32(h.Conns.Load())
		}
		if u.Connections.Active != open {
			r.t.Errorf("cluster %s counts %d connections, its hosts %d", name, u.Connections.Active, open)
		}
	}
	for c, on := range w.clusters {
		for _, p := range on.all {
			h := p.host
			if len(p.waiting) != 0 || p.connecting != 0 || p.total != len(p.idle)+len(p.shared) {
				r.t.Errorf("pool %s of %s: %d waiting, %d connecting, %d in all, %d idle", h, c.name, len(p.waiting), p.connecting, p.total, len(p.idle))
			}
		}
		if on.stats.rqActive != 0 {
			r.t.Errorf("cluster %s: %d requests active", c.name, on.stats.rqActive)
		}
	}
	for d := w.downs.first; d != nil; d = d.next {
		if d.x != nil {
			r.t.Errorf("a connection still has an exchange")
		}
	}
	for _, m := range r.p.managers {
		if n, tunnels := m.on[0].rqActive, m.on[0].upgradesActive; n != 0 || tunnels != 0 {
			r.t.Errorf("%d exchanges active, %d tunnels", n, tunnels)
		}
	}
	seen := map[*exchange]bool{}
	for _, x := range w.exchanges.items {
		if seen[x] {
			r.t.Error("an exchange is twice in the free list")
		}
		seen[x] = true
		if x.living != 0 || x.ended || x.main != nil || len(x.hedges) != 0 {
			r.t.Errorf("a free exchange is not clean: living %d", x.living)
		}
	}
	attempts := map[*attempt]bool{}
	for _, a := range w.attempts.items {
		if attempts[a] {
			r.t.Error("an attempt is twice in the free list")
		}
		attempts[a] = true
	}
}

func TestTheConnectTimeoutIsExact(t *testing.T) {
	r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80").ConnectTimeout = 700 * time.Millisecond
	})
	r.world.Blackhole(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:80")), true)
	c := r.dial()
	c.Write([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))
	start := r.world.Now()
	r.until("the answer", 10*time.Second, func() bool { return len(c.Received) > 0 })
	took := r.world.Now() - start
	// Two attempts: what was never connected is tried once more.
	if took < 1400*time.Millisecond || took > 1420*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
	if !bytes.HasPrefix(c.Received, []byte("HTTP/1.1 503")) {
		t.Errorf("got %q", c.Received)
	}
	r.settled()
}

func TestAnHourOfIdlingClosesAtTheIdleTimeout(t *testing.T) {
	r := newSim(t, 2, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80").IdleTimeout = 10 * time.Minute
		s.Listeners["l"].FilterChains[0].HTTP.IdleTimeout = 30 * time.Minute
	})
	r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) { p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) })
	c := r.dial()
	c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	r.until("the answer", time.Second, func() bool { return bytes.HasSuffix(c.Received, []byte("ok")) })
	host := r.p.slots["c"].spec.Load().lb.View().Hosts()[0]
	start := r.world.Now()
	r.until("the upstream connection's end", time.Hour, func() bool { return host.Conns.Load() == 0 })
	if took := r.world.Now() - start; took < 10*time.Minute-10*time.Millisecond || took > 10*time.Minute+time.Second {
		t.Errorf("upstream closed after %v", took)
	}
	r.until("the downstream connection's end", time.Hour, func() bool { return c.EOF })
	if took := r.world.Now() - start; took < 30*time.Minute-10*time.Millisecond || took > 30*time.Minute+time.Second {
		t.Errorf("downstream closed after %v", took)
	}
	r.settled()
}

// behaviours are what the upstreams of the walk do with a request.
var behaviours = []func(rng *rand.Rand, r *simRig, p *sim.Peer, id string){
	func(_ *rand.Rand, _ *simRig, p *sim.Peer, id string) {
		p.Write(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(id), id))
	},
	func(_ *rand.Rand, _ *simRig, p *sim.Peer, id string) {
		p.Write(fmt.Appendf(nil, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nx: y\r\n\r\n", len(id), id))
	},
	func(_ *rand.Rand, _ *simRig, p *sim.Peer, id string) {
		p.Write(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\n\r\n%s", id))
		p.CloseWrite()
	},
	func(_ *rand.Rand, _ *simRig, p *sim.Peer, _ string) { p.Reset() },
	func(_ *rand.Rand, _ *simRig, p *sim.Peer, _ string) { p.Close() },
	func(_ *rand.Rand, _ *simRig, p *sim.Peer, _ string) {
		p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf"))
		p.Close()
	},
	func(_ *rand.Rand, _ *simRig, p *sim.Peer, _ string) { p.Write([]byte("nonsense\r\n\r\n")) },
	func(_ *rand.Rand, _ *simRig, p *sim.Peer, _ string) {
		p.Write([]byte("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"))
	},
	func(_ *rand.Rand, _ *simRig, p *sim.Peer, id string) { // excess bytes
		p.Write(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", len(id), id))
	},
	func(_ *rand.Rand, _ *simRig, _ *sim.Peer, _ string) {}, // never answers
	func(rng *rand.Rand, r *simRig, p *sim.Peer, id string) {
		r.world.At(time.Duration(rng.IntN(400))*time.Millisecond, func() {
			p.Write(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(id), id))
		})
	},
}

// TestAnyMixOfFaultsGivesBackWhatItHeld walks a proxy at random through clients
// and upstreams that do everything wrong, on a network that cuts and delays, with
// retries, mirrors, small limits and configuration changes. Each answer belongs to
// its request, and in the end nothing is held.
func TestAnyMixOfFaultsGivesBackWhatItHeld(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) { walk(t, uint64(seed)) })
	}
}

func walk(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	link := sim.Link{Latency: time.Millisecond, Jitter: time.Duration(rng.IntN(3)) * time.Millisecond, MaxSegment: rng.IntN(4) * 17, ShortWrites: float64(rng.IntN(3)) / 4, Window: []int{0, 512, 4096}[rng.IntN(3)]}
	r := newSim(t, seed, link, func(s *resource.Snapshot) {
		c := withCluster(s, "c", "10.0.0.9:80", "10.0.0.9:81", "10.0.0.9:82")
		c.ConnectTimeout = 200 * time.Millisecond
		c.Default = resource.Thresholds{MaxConnections: uint32(1 + rng.IntN(6)), MaxPending: uint32(rng.IntN(8)), MaxRequests: uint32(2 + rng.IntN(12)), MaxRetries: uint32(rng.IntN(3))}
		if rng.IntN(2) == 0 {
			c.Breaker = &resource.CircuitBreaker{Enabled: true, ErrorThresholdPercent: 50, RequestVolumeThreshold: 5, Window: time.Second, Buckets: 10, SleepWindow: 100 * time.Millisecond, Count5xx: true, CountTimeout: true, CountConnectFailure: true, CountReset: true}
			c.Outlier = &resource.OutlierDetection{Consecutive5xx: 3, Enforcing5xx: 100, Interval: 100 * time.Millisecond, BaseEjection: 100 * time.Millisecond, MaxEjection: time.Second, MaxEjectionPercent: 60}
		}
		withCluster(s, "m", "10.0.0.9:83").ConnectTimeout = 100 * time.Millisecond
		a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
		a.Timeout = 300 * time.Millisecond
		if rng.IntN(2) == 0 {
			a.Retry = &resource.RetryPolicy{On: resource.Retry5xx | resource.RetryConnectFailure | resource.RetryReset, NumRetries: rng.IntN(3), BaseInterval: 5 * time.Millisecond, PerTryTimeout: time.Duration(rng.IntN(2)) * 80 * time.Millisecond}
		}
		if rng.IntN(2) == 0 {
			a.Hedge = &resource.HedgePolicy{OnPerTryTimeout: true}
		}
		if rng.IntN(2) == 0 {
			a.Mirrors = []resource.Mirror{{Cluster: "m", Fraction: resource.Percent{PerMillion: 5e5}}}
		}
		mayTunnel(rng, s)
		m := s.Listeners["l"].FilterChains[0].HTTP
		m.RequestHeadersTimeout, m.StreamIdleTimeout, m.IdleTimeout = 200*time.Millisecond, 500*time.Millisecond, time.Second
	})
	for port := 80; port < 84; port++ {
		if port == 82 && rng.IntN(2) == 0 {
			continue // refuses
		}
		r.serve("10.0.0.9:"+strconv.Itoa(port), func(p *sim.Peer, head string) {
			_, rest, _ := strings.Cut(head, " /")
			id, _, _ := strings.Cut(rest, " ")
			if asksForTunnel(head) && rng.IntN(4) > 0 {
				runTunnel(rng, r, p, id)
				return
			}
			behaviours[rng.IntN(len(behaviours))](rng, r, p, id)
		})
	}
	type client struct {
		peer *sim.Peer
		sent []string
	}
	var clients []*client
	for i := range 12 {
		c := &client{peer: r.dial()}
		clients = append(clients, c)
		at := time.Duration(rng.IntN(300)) * time.Millisecond
		for j := range 1 + rng.IntN(5) {
			id := fmt.Sprintf("req-%d-%d", i, j)
			size := rng.IntN(3) * rng.IntN(2000)
			if rng.IntN(12) == 0 {
				size = rng.IntN(100_000) // more than is kept for a retry
			}
			body := strings.Repeat("b", size)
			method := []string{"GET", "POST", "PUT"}[rng.IntN(3)]
			msg := fmt.Sprintf("%s /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, id, len(body), body)
			if rng.IntN(6) == 0 {
				msg = tunnelRequest(rng, id)
			}
			if rng.IntN(12) == 0 {
				msg = msg[:rng.IntN(len(msg))] // stops somewhere
			}
			c.sent = append(c.sent, id)
			r.world.At(at, func() { c.peer.Write([]byte(msg)) })
			at += time.Duration(rng.IntN(60)) * time.Millisecond
		}
		switch rng.IntN(6) {
		case 0:
			r.world.At(at, c.peer.Close)
		case 1:
			r.world.At(at, c.peer.Reset)
		case 2:
			r.world.At(at, c.peer.CloseWrite)
		case 3:
			c.peer.Hold()
			r.world.At(at+200*time.Millisecond, c.peer.Release)
		}
	}
	for i := range 3 {
		if err := r.world.Run(time.Duration(50+rng.IntN(100)) * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		addrs := []string{"10.0.0.9:80", "10.0.0.9:81", "10.0.0.9:82"}
		r.snap.Assignments["c"] = assignment("c", addrs[i:]...)
		r.apply()
	}
	if err := r.world.Run(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	// Excess that a cutting network delivers late cannot be told from the next
	// response; what comes with its response, or before the next request has left, can.
	// Once it was taken for an answer, the one that came too late is the next one's.
	shifted := false
	for _, c := range clients {
		if !strings.Contains(string(c.peer.Received), "poison") {
			continue
		}
		if shifted = true; link.MaxSegment == 0 && link.Window == 0 {
			t.Errorf("excess bytes of an upstream reached a client: %q", c.peer.Received)
		}
	}
	for _, c := range clients {
		got := string(c.peer.Received)
		if shifted {
			break
		}
		for _, other := range clients {
			if other == c {
				continue
			}
			for _, id := range other.sent {
				if strings.Contains(got, id+"HTTP") || strings.HasSuffix(got, id) && !contains(c.sent, id) {
					t.Errorf("a client got the answer of another: %q in %q", id, got)
				}
			}
		}
	}
	r.settled()
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
