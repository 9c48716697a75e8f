// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// newServerFirst is a proxy before a server that greets those who say nothing.
func newServerFirst(t *testing.T, edit func(*resource.Listener)) *looked {
	l := newLooked(t, sim.Link{Latency: time.Millisecond}, func(ln *resource.Listener, s *resource.Snapshot) {
		ln.Detection = &resource.Detection{Wait: 100 * time.Millisecond, Expiry: time.Minute}
		ln.DetectionTimeout = 15 * time.Second
		s.Assignments["other"] = assignment("other", "10.0.0.9:3306")
		if edit != nil {
			edit(ln)
		}
	})
	if err := l.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.9:3306")), func(p *sim.Peer) { p.Write([]byte("greeting")) }); err != nil {
		t.Fatal(err)
	}
	return l
}

// greeted dials and returns how long the greeting took.
func (l *looked) greeted() time.Duration {
	c := l.dial()
	start := l.world.Now()
	l.until("the greeting", 20*time.Second, func() bool { return string(c.Received) == "greeting" })
	c.Close()
	return l.world.Now() - start
}

func TestWhereTheServerSpeaksFirstTheWaitIsShortAndThenNone(t *testing.T) {
	l := newServerFirst(t, nil)
	if d := l.greeted(); d < 100*time.Millisecond || d > 120*time.Millisecond {
		t.Errorf("the first greeting came after %v", d)
	}
	for range 3 {
		if d := l.greeted(); d > 20*time.Millisecond {
			t.Errorf("the next one came after %v", d)
		}
	}
	if err := l.world.Run(2 * time.Minute); err != nil {
		t.Fatal(err)
	}
	if d := l.greeted(); d < 100*time.Millisecond {
		t.Errorf("what was learned has not expired: greeted after %v", d)
	}
}

func TestAClientThatWasGivenUpOnTooEarlyIsWaitedForLonger(t *testing.T) {
	l := newLooked(t, sim.Link{Latency: time.Millisecond}, func(ln *resource.Listener, _ *resource.Snapshot) {
		ln.Detection = &resource.Detection{Wait: 100 * time.Millisecond, Expiry: time.Minute}
		ln.DetectionTimeout = 15 * time.Second
	})
	say := func(after time.Duration) {
		c := l.dial()
		l.world.At(after, func() { c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) })
		if err := l.world.Run(after + 50*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	say(150 * time.Millisecond)
	if len(l.got["other"]) == 0 || len(l.got["h1"]) != 0 {
		t.Fatalf("the first is not given up on: %v", l.got)
	}
	say(150 * time.Millisecond)
	if len(l.got["h1"]) == 0 {
		t.Error("the second is not waited for")
	}
}

func TestSilenceLeadsToNoChainButATCPProxy(t *testing.T) {
	l := newServerFirst(t, func(ln *resource.Listener) {
		for _, ch := range ln.FilterChains {
			if ch.Name == "other" {
				ch.TCP, ch.HTTP = nil, &resource.HTTPManager{StatPrefix: "http", RouteConfigName: "r", RequestHeadersTimeout: time.Minute, IdleTimeout: time.Hour}
			}
		}
		ln.DetectionTimeout = 3 * time.Second
	})
	c := l.dial()
	start := l.world.Now()
	l.until("the end", 10*time.Second, func() bool { return c.EOF || c.Err != nil })
	if d := l.world.Now() - start; d < 3*time.Second || len(c.Received) != 0 {
		t.Errorf("after %v: %q", d, c.Received)
	}
	// Nor does a byte that means nothing yet.
	l = newServerFirst(t, nil)
	if d := l.greeted(); d > 200*time.Millisecond {
		t.Fatal(d)
	}
	l.p.workers[0].habits = habits{}
	c = l.dial()
	c.Write([]byte("G"))
	if err := l.world.Run(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if len(c.Received) != 0 {
		t.Errorf("one byte of a request got %q", c.Received)
	}
}

func TestWhatIsLearnedIsBounded(t *testing.T) {
	h := habits{}
	ln := &listener{all: new(atomic.Int64)}
	for i := range 10 * maxLearned {
		d := destination{ln, netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.%d:1", i>>8&255, i&255))}
		h.learn(d, habit{serverFirst: true, until: int64(i)}, int64(i)/2)
		if !h.known(d, int64(i)-1, 0).serverFirst {
			t.Fatal("what was just learned is not known")
		}
	}
	if len(h) > maxLearned {
		t.Errorf("%d destinations", len(h))
	}
	h.drop(ln)
	if len(h) != 0 {
		t.Errorf("%d destinations of a listener that has gone", len(h))
	}
}
