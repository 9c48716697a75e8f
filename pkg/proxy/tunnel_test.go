// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A tunnel has no message at whose end it could be told to go.
func TestTunnelsOfARemovedListenerEndWithTheDrainTime(t *testing.T) {
	b := scripted(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
			StatPrefix: "t", Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour}}
	})
	c := r.dial()
	echo := func() error {
		if _, err := c.Write([]byte("ping")); err != nil {
			return err
		}
		got := make([]byte, 4)
		_, err := io.ReadFull(c, got)
		return err
	}
	if err := echo(); err != nil {
		t.Fatal(err)
	}
	kept := r.snap.Listeners["l"]
	delete(r.snap.Listeners, "l")
	r.apply(r.snap)
	if err := echo(); err != nil {
		t.Errorf("before the drain time is over: %v", err)
	}
	eventually(t, "the tunnel ends", func() bool { return echo() != nil })
	var counted, active uint64
	eventually(t, "nothing is left of it", func() bool {
		done := make(chan struct{})
		r.p.workers[0].loop.PostOffLoop(func() {
			s := &r.p.workers[0].stats
			counted, active = s.tcpDrained, s.tcpActive
			if r.p.workers[0].tunnels != nil {
				active++
			}
			close(done)
		})
		<-done
		return active == 0
	})
	if counted != 1 {
		t.Errorf("%d drained", counted)
	}
	r.snap.Listeners["l"] = kept
}

func TestAMirrorThatIsNotToBeTracedSaysSo(t *testing.T) {
	names := []string{"Traceparent", "X-B3-Sampled", "X-B3-Flags", "B3"}
	sent := []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "1", "1", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d-05e3ac9a4f6e3b90"}
	want := []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "0", "0", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0-05e3ac9a4f6e3b90"}
	for _, sampled := range []bool{true, false} {
		t.Run(fmt.Sprint(sampled), func(t *testing.T) {
			mirrored, answered := make(chan http.Header, 1), make(chan http.Header, 1)
			m := backend(t, func(_ http.ResponseWriter, q *http.Request) { mirrored <- q.Header })
			b := backend(t, func(_ http.ResponseWriter, q *http.Request) { answered <- q.Header })
			r := newRig(t, func(s *resource.Snapshot) {
				withCluster(s, "c", b)
				withCluster(s, "m", m)
				s.Routes["r"].VirtualHosts[0].Routes[0].Action.Mirrors = []resource.Mirror{{Cluster: "m", Fraction: resource.Percent{PerMillion: 1e6}, TraceSampled: sampled}}
			})
			q, err := http.NewRequest(http.MethodGet, "http://"+r.addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, n := range names {
				q.Header.Set(n, sent[i])
			}
			resp, err := r.client().Do(q)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			main, copied := <-answered, <-mirrored
			for i, n := range names {
				inCopy := sent[i]
				if !sampled {
					inCopy = want[i]
				}
				if main.Get(n) != sent[i] || copied.Get(n) != inCopy {
					t.Errorf("%s: %q, in the mirror %q, want %q and %q", n, main.Get(n), copied.Get(n), sent[i], inCopy)
				}
			}
		})
	}
}

// A client that resets a connection in the midst of an upload that is held back
// would keep its upstream busy until the idle time.
func TestAResetEndsAnUploadThatIsHeldBack(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	b := scripted(t, func(net.Conn) { <-release }) // reads nothing
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = 0
	})
	c := r.dial().(*net.TCPConn)
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 1<<30); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	onLoop := func(f func(w *worker) bool) (is bool) {
		done := make(chan struct{})
		w := r.p.workers[0]
		w.loop.PostOffLoop(func() { is = f(w); close(done) })
		<-done
		return is
	}
	// Write until all is full from here to the backend, that is, until the kernel
	// holds input of a connection that is paused.
	held := func() bool {
		c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := c.Write(block)
		return errors.Is(err, os.ErrDeadlineExceeded) && onLoop(func(w *worker) bool { return w.downs.first.held })
	}
	eventually(t, "the upload is held back", held)
	c.SetLinger(0)
	c.Close()
	eventually(t, "the exchange ends", func() bool {
		return onLoop(func(w *worker) bool { return w.downs.first == nil })
	})
}
