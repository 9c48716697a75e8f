// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

var (
	elsewhere = netip.MustParseAddrPort("10.0.0.9:81")
	ourselves = netip.MustParseAddrPort("10.0.0.1:80")
)

// passesOn makes the listener one whose connections go where they were meant to.
func passesOn(s *resource.Snapshot, original resource.OriginalDst) {
	c := withCluster(s, "c")
	delete(s.Assignments, "c")
	original.Cleanup = 5 * time.Second
	c.Type, c.OriginalDst = resource.Original, &original
	l := s.Listeners["l"]
	l.Filters = []resource.ListenerFilter{{Kind: resource.RestoreOriginalDst}}
	l.FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
		StatPrefix: "t", Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour}}
}

// loops checks how many connections the listener has taken, and how many were refused.
func (r *simRig) loops(taken, refused uint64) {
	r.t.Helper()
	if got, n := r.p.listeners["l"].total.Load(), r.p.workers[0].stats.loopsRefused; got != taken || n != refused {
		r.t.Errorf("took %d connections and refused %d as loops, want %d and %d", got, n, taken, refused)
	}
	if n := r.p.listeners["l"].active.Load(); n > 1 { // the client may be there
		r.t.Errorf("%d connections are still counted", n)
	}
}

func (r *simRig) dialTo(to netip.AddrPort) *sim.Peer {
	r.t.Helper()
	p, err := r.world.Dial(reactor.TCPAddr(to))
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// A sidecar whose user the rules do not know is led back to itself with all it dials.
func TestARequestWhoseConnectionIsRedirectedBackEndsAtOnce(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
			s.Listeners["l"].Direction = resource.Outbound
			withCluster(s, "c", elsewhere.String()).HTTP2 = http2
		})
		r.world.Divert(elsewhere, ourselves)
		c := r.dial()
		c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		r.until("the answer", time.Minute, func() bool { return strings.Contains(string(c.Received), "\r\n\r\n") })
		if !strings.HasPrefix(string(c.Received), "HTTP/1.1 503") {
			t.Errorf("answered %q", c.Received)
		}
		r.loops(1, 2) // the attempt, and the one more that nothing was sent with
		r.settled()
	}
}

// What an application dials is its own affair, redirected or not, also from a port that
// a connection of ours has.
func TestConnectionsOfOthersAreNoLoops(t *testing.T) {
	r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		s.Listeners["l"].Direction = resource.Outbound
		withCluster(s, "c", "10.0.0.8:80")
	})
	r.world.Divert(elsewhere, ourselves)
	r.serve("10.0.0.8:80", func(p *sim.Peer, _ string) { p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) })
	for _, to := range []netip.AddrPort{elsewhere, ourselves, elsewhere} {
		c := r.dialTo(to)
		c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		r.until("the answer", time.Minute, func() bool { return strings.HasSuffix(string(c.Received), "ok") })
		c.Close()
		r.until("it has gone", time.Minute, func() bool { return r.p.listeners["l"].active.Load() == 0 })
	}
	r.loops(3, 0)
}

func TestAConnectionThatIsPassedOnAndRedirectedBackEndsAtOnce(t *testing.T) {
	for _, direction := range []resource.Direction{resource.Unspecified, resource.Inbound, resource.Outbound} {
		t.Run(direction.String(), func(t *testing.T) {
			r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
				s.Listeners["l"].Direction = direction
				passesOn(s, resource.OriginalDst{})
			})
			r.world.Divert(elsewhere, ourselves)
			c := r.dialTo(elsewhere)
			c.Write([]byte("hello"))
			r.until("the end", time.Minute, func() bool { return c.EOF || c.Err != nil })
			taken := uint64(2) // by the chain of the second time, which finds no endpoint
			if direction == resource.Outbound {
				taken = 1
			}
			r.loops(taken, 1)
		})
	}
}

// dialler is what the outbound side of the sidecar does: it dials, and says hello.
type dialler struct {
	received []byte
	over     bool
}

func (d *dialler) OnConnect(c *reactor.Conn) { c.Write([]byte("hello")) }
func (d *dialler) OnData(_ *reactor.Conn, in []byte) int {
	d.received = append(d.received, in...)
	return len(in)
}
func (d *dialler) OnEOF(c *reactor.Conn)            { c.Close(nil) }
func (d *dialler) OnHighWater(*reactor.Conn)        {}
func (d *dialler) OnLowWater(*reactor.Conn)         {}
func (d *dialler) OnClose(_ *reactor.Conn, _ error) { d.over = true }

// Rules lead what the sidecar dials at its own host to its inbound listener, and let
// pass what comes from the address that the inbound cluster dials from.
func TestASidecarThatCallsItsOwnServiceIsNoLoop(t *testing.T) {
	for _, c := range []struct {
		bind    string
		passes  bool // the rules let the second connection pass
		taken   uint64
		refused uint64
	}{
		{"127.0.0.6", true, 1, 0},
		{"::ffff:127.0.0.6", true, 1, 0},
		{"127.0.0.6", false, 2, 1},
		{"127.0.0.1", true, 1, 1}, // which everything else comes from
		{"0.0.0.0", true, 1, 1},
		{"", true, 1, 1},
	} {
		r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
			s.Listeners["l"].Direction = resource.Inbound
			passesOn(s, resource.OriginalDst{})
			s.Clusters["c"].BindAddress = c.bind
		})
		if err := r.world.Serve(reactor.TCPAddr(elsewhere), func(p *sim.Peer) {
			p.OnData = func(p *sim.Peer, b []byte) { p.Write(append([]byte("you said "), b...)) }
		}); err != nil {
			t.Fatal(err)
		}
		r.world.Divert(elsewhere, ourselves)
		d := &dialler{}
		if _, err := r.p.workers[0].loop.Dial(reactor.TCPAddr(elsewhere), reactor.DialOptions{}, d); err != nil {
			t.Fatal(err)
		}
		r.until("it is led to the listener", time.Minute, func() bool { return r.p.listeners["l"].total.Load() == 1 })
		if c.passes {
			r.world.Divert(elsewhere, elsewhere)
		}
		r.until("an answer or the end", time.Minute, func() bool { return len(d.received) > 0 || d.over })
		if answered := string(d.received) == "you said hello"; answered != (c.refused == 0) {
			t.Errorf("from %q: the answer is %q", c.bind, d.received)
		}
		r.loops(c.taken, c.refused)
	}
}

// One that was accepted before it was known for a loop is refused with its first bytes,
// and logged once, as what it was.
func TestALoopThatIsSeenLateIsLoggedOnce(t *testing.T) {
	r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		s.Listeners["l"].Direction = resource.Inbound
		withCluster(s, "c", "10.0.0.8:80")
	})
	r.world.Divert(elsewhere, ourselves)
	d := &dialler{}
	if _, err := r.p.workers[0].loop.Dial(reactor.TCPAddr(elsewhere), reactor.DialOptions{}, d); err != nil {
		t.Fatal(err)
	}
	r.until("it is accepted", time.Minute, func() bool { return r.p.listeners["l"].total.Load() == 1 })
	l := *r.snap.Listeners["l"]
	l.Direction = resource.Outbound
	r.snap.Listeners["l"] = &l
	r.apply()
	log := &recorded{}
	r.p.listeners["l"].config.Load().log = &connectionLog{plan: &accesslog.Plan{}, consumer: log}
	r.until("it is refused", time.Minute, func() bool { return d.over })
	r.loops(1, 1)
	r.p.workers[0].ring.Drain(1000)
	if want := []string{"0 UH redirected_back_to_sidecar"}; !slices.Equal(log.lines, want) {
		t.Errorf("logged %q, want %q", log.lines, want)
	}
}

func TestOriginalDestinationsThatAreOurListenersAreRefused(t *testing.T) {
	for name, original := range map[string]resource.OriginalDst{"as they are": {}, "by another port": {Port: ourselves.Port()}} {
		t.Run(name, func(t *testing.T) {
			to := elsewhere
			if original.Port == 0 {
				to = netip.AddrPortFrom(elsewhere.Addr(), ourselves.Port())
			}
			r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) { passesOn(s, original) })
			r.world.Divert(to, ourselves)
			c := r.dialTo(to)
			r.until("the end", time.Minute, func() bool { return c.EOF || c.Err != nil })
			r.loops(1, 1)
		})
	}
}
