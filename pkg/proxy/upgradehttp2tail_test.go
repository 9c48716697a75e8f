// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// beyondWindows is more than a stream's window and less than two: all of it leaves its
// sender, and a part waits in the proxy for an end that takes none.
const beyondWindows = 120_000

// newTails is a tunnel from stream to stream, with little room in connections. once: an
// endpoint's connection is worn out by its first request.
func newTails(t *testing.T, once bool) (s *span, client, server *wireEnd) {
	s = newSpan(t, &span{downH2: true, upH2: true, connect: true, agree: true}, func(snap *resource.Snapshot) {
		snap.Clusters["c"].BufferLimit = 4 << 10
		snap.Listeners["l"].FilterChains[0].HTTP.HTTP2.StreamWindow = 256 << 10
		if once {
			snap.Clusters["c"].MaxRequestsPerConn = 1
		}
	})
	s.r.world.SetLink(sim.Link{Latency: time.Millisecond, Window: 2 << 10})
	client, server = s.open("")
	return s, client, server
}

func (s *span) exchangeOver() {
	s.r.t.Helper()
	s.r.until("the exchange is over", time.Second, func() bool { return s.r.p.managers["test"].on[0].rqActive == 0 })
}

func TestWhatAClientSentThroughATunnelArrivesBehindItsEnd(t *testing.T) {
	for name, once := range map[string]bool{"connection goes on": false, "connection worn out": true} {
		t.Run(name, func(t *testing.T) {
			s, c, up := newTails(t, once)
			up.write(nil, true)
			s.r.until("the endpoint's end", time.Second, c.over)
			up.stall(true)
			said := bytes.Repeat([]byte("last words "), 250_000/11) // windows open again while the connection is full
			c.write(said, true)
			s.exchangeOver()
			if err := s.r.world.Run(tailStall - time.Second); err != nil {
				t.Fatal(err)
			}
			if up.ended || up.broken() || up.peer.EOF {
				t.Fatalf("ended %v, reset %q, connection %v, before the endpoint has read", up.ended, up.reset, up.peer.EOF)
			}
			up.stall(false)
			s.r.until("the end", time.Second, up.over)
			if !bytes.Equal(up.data, said) || up.broken() {
				t.Errorf("%d bytes of %d arrived, reset %q", len(up.data), len(said), up.reset)
			}
			if err := s.r.world.Run(time.Second); err != nil {
				t.Fatal(err)
			}
			if up.peer.EOF != once {
				t.Errorf("the connection has ended: %v, want %v", up.peer.EOF, once)
			}
			s.closed(c)
		})
	}
}

func TestATailThatAnEndpointDoesNotTakeIsGivenUp(t *testing.T) {
	for name, tt := range map[string]struct {
		once  bool
		takes int // bytes, 8 s after the end
		after time.Duration
	}{
		"nothing is taken":    {after: tailStall},
		"of a worn one":       {once: true, after: tailStall},
		"some is taken later": {takes: 40_000, after: 2 * tailStall},
	} {
		t.Run(name, func(t *testing.T) {
			s, c, up := newTails(t, tt.once)
			up.write(nil, true)
			s.r.until("the endpoint's end", time.Second, c.over)
			up.stall(true)
			c.write(make([]byte, beyondWindows), true)
			s.exchangeOver()
			start := s.r.world.Now()
			s.r.world.At(8*time.Second, func() {
				up.codec.Consumed(up.id, tt.takes)
				up.flush()
			})
			s.r.until("the reset", time.Minute, up.broken)
			if took := s.r.world.Now() - start; took < tt.after-time.Second || took > tt.after+time.Second || up.reset != http2.Cancel.String() {
				t.Errorf("reset by %s after %v, want CANCEL after %v", up.reset, took, tt.after)
			}
			s.closed(c)
		})
	}
}

func TestATailIsGivenUpWithItsStreamOrConnection(t *testing.T) {
	for name, end := range map[string]func(*wireEnd){
		"stream":     func(up *wireEnd) { up.breakOff() },
		"connection": func(up *wireEnd) { up.peer.Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			s, c, up := newTails(t, false)
			up.write(nil, true)
			s.r.until("the endpoint's end", time.Second, c.over)
			up.stall(true)
			c.write(make([]byte, beyondWindows), true)
			s.exchangeOver()
			end(up)
			if err := s.r.world.Run(time.Second); err != nil {
				t.Fatal(err)
			}
			if n := s.r.p.workers[0].http2Calls.used; n != 0 {
				t.Errorf("%d calls are left", n)
			}
			s.closed(c)
		})
	}
}

// An endpoint may have said all and want no more of the client's (RFC 9113 §8.1): that
// ends the tunnel, and takes nothing from a client that reads slowly.
func TestWhatAnEndpointSaidToItsEndArrivesThoughItBreaksOff(t *testing.T) {
	for name, end := range map[string]func(*wireEnd){
		"stream": func(up *wireEnd) {
			up.codec.Reset(up.id, http2.NoError)
			up.flush()
		},
		"connection": func(up *wireEnd) { up.peer.Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			s, c, up := newTails(t, false)
			c.stall(true)
			said := bytes.Repeat([]byte("last words "), beyondWindows/11)
			up.write(said, true)
			s.r.until("all is sent", time.Second, func() bool { return up.codec.Queued(up.id) == 0 })
			if err := s.r.world.Run(time.Second); err != nil {
				t.Fatal(err)
			}
			end(up)
			s.exchangeOver()
			if c.over() || c.broken() {
				t.Fatalf("ended %v, reset %q, before the client has read", c.ended, c.reset)
			}
			c.stall(false)
			s.r.until("the end", time.Second, c.over)
			s.r.until("the reset", time.Second, c.broken)
			if !bytes.Equal(c.data, said) || c.reset != http2.NoError.String() {
				t.Errorf("%d bytes of %d arrived, reset by %s", len(c.data), len(said), c.reset)
			}
			s.closed(c)
		})
	}
}
