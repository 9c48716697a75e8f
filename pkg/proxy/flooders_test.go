// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestWhoFloodsWaitsLonger(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	var f flooders
	now := int64(time.Hour)
	for i, want := range []time.Duration{0, 0, 100, 200, 400, 800, 1600, 2000, 2000} {
		f.note(a, now)
		now += int64(time.Second)
		if got := f.delay(a, now); got != want*time.Millisecond {
			t.Errorf("%v after %d floods, want %v ms", got, i+1, int(want))
		}
		if got := f.delay(b, now); got != 0 {
			t.Errorf("%v for another", got)
		}
	}
	for range 1000 {
		f.note(a, now)
	}
	if got := f.delay(a, now); got != maxFloodDelay {
		t.Errorf("%v after many", got)
	}
	if now += int64(floodMemory) + 1; f.delay(a, now) != 0 {
		t.Error("nothing is forgotten")
	}
	if len(f.by) > 0 {
		t.Error("who is forgotten is still there")
	}
	f.note(a, now)
	if got := f.delay(a, now); got != 0 {
		t.Errorf("%v after one flood after a long time", got)
	}
}

func TestSourcesOfFloodsAreBounded(t *testing.T) {
	var f flooders
	now := int64(time.Hour)
	address := func(i int) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 0x0a000000|uint32(i))
		return netip.AddrFrom4(b)
	}
	for i := range 3 * maxFlooders {
		for range floodsFree + 1 {
			f.note(address(i), now)
		}
	}
	if len(f.by) != maxFlooders {
		t.Errorf("%d are remembered", len(f.by))
	}
	if f.delay(address(0), now) == 0 || f.delay(address(2*maxFlooders), now) != 0 {
		t.Error("the first are not remembered, or the last are")
	}
	now += int64(floodMemory) + 1
	f.note(address(2*maxFlooders), now)
	if len(f.by) != 1 {
		t.Errorf("%d are remembered after a long time", len(f.by))
	}
}

// A source whose connections end for floods has its next ones read later; others have
// not, and nobody has for ever.
func TestConnectionsOfWhoHasFloodedAreReadLater(t *testing.T) {
	r := newSim(t, 1, sim.Link{}, func(s *resource.Snapshot) { withCluster(s, "c", "10.0.0.9:80") })
	r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) {
		p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
	})
	w := r.p.workers[0]
	floods := func() (n uint64) {
		for _, k := range w.stats.http2Floods {
			n += k
		}
		return n
	}
	flood := func() {
		c := &wireEnd{peer: r.dial()}
		c.attach(http2.Client, http2.Limits{})
		before := floods()
		ping := append([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0}, make([]byte, 8)...)
		for range 3000 {
			c.peer.Write(ping)
		}
		r.until("the end of a flood", time.Minute, func() bool { return floods() > before })
		c.peer.Close()
		r.pass(time.Millisecond)
	}
	answered := func() time.Duration {
		c := &wireEnd{peer: r.dial()}
		c.plain()
		began := r.world.Now()
		c.peer.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
		r.until("an answer", time.Minute, func() bool { return c.head != "" })
		defer c.peer.Close()
		return r.world.Now() - began
	}
	for range floodsFree {
		flood()
	}
	if d := answered(); d >= floodDelay || w.stats.flooderDelayed != 0 {
		t.Errorf("answered after %v behind %d floods", d, floodsFree)
	}
	flood()
	if d := answered(); d < floodDelay || d > floodDelay+50*time.Millisecond || w.stats.flooderDelayed != 1 {
		t.Errorf("answered after %v, %d delayed, want %v", d, w.stats.flooderDelayed, floodDelay)
	}
	r.pass(floodMemory)
	if d := answered(); d >= floodDelay {
		t.Errorf("answered after %v though all is forgotten", d)
	}
	r.settled()
}
