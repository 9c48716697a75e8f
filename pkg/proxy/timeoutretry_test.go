// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// The time of the request as a whole ends while a retry waits for its turn, however long.
func TestARequestsTimeoutHoldsWhileARetryWaits(t *testing.T) {
	for name, edit := range map[string]func(*resource.RetryPolicy){
		"per try":           func(p *resource.RetryPolicy) { p.PerTryTimeout = 100 * time.Millisecond },
		"per try, by quiet": func(p *resource.RetryPolicy) { p.PerTryIdleTimeout = 100 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
				withCluster(s, "c", "10.0.0.9:80")
				a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
				a.Timeout = 200 * time.Millisecond
				a.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 3, BaseInterval: time.Hour, MaxInterval: time.Hour}
				edit(a.Retry)
			})
			r.serve("10.0.0.9:80", func(*sim.Peer, string) {})
			c := r.dial()
			start := r.world.Now()
			c.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
			r.until("the answer", 2*time.Hour, func() bool { return len(c.Received) > 0 })
			if took := r.world.Now() - start; took < 200*time.Millisecond || took > 220*time.Millisecond || !bytes.HasPrefix(c.Received, []byte("HTTP/1.1 504 ")) {
				t.Errorf("after %v: %.40q, want a 504 after 200ms", took, c.Received)
			}
			r.settled()
		})
	}
}
