// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// goneRig is a proxy whose first answer is a 503 that is retried seconds later.
func goneRig(t *testing.T) (*simRig, *resource.Cluster, *sim.Peer) {
	r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
		a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
		a.Timeout = time.Minute
		a.Retry = &resource.RetryPolicy{On: resource.Retry5xx, NumRetries: 1, BaseInterval: time.Second,
			RateLimited: &resource.RateLimitedBackOff{Headers: []resource.ResetHeader{{Name: "retry-after"}}, MaxInterval: time.Minute}}
	})
	asked := 0
	r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) {
		if asked++; asked == 1 {
			p.Write([]byte("HTTP/1.1 503 Busy\r\nconnection: close\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n"))
			return
		}
		r.world.At(time.Second, func() { p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) })
	})
	c := r.dial()
	c.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
	r.until("the first answer", time.Second, func() bool { return asked == 1 })
	r.pass(time.Second)
	res := r.snap.Clusters["c"]
	delete(r.snap.Clusters, "c")
	r.apply()
	r.pass(time.Second)
	return r, res, c
}

func (r *simRig) answered(c *sim.Peer) {
	r.t.Helper()
	r.until("the answer", time.Minute, func() bool { return bytes.HasSuffix(c.Received, []byte("\r\n\r\nok")) })
	r.pass(time.Second)
	r.settled()
}

func TestARetryGoesOnWhenItsClusterGoesMeanwhile(t *testing.T) {
	r, _, c := goneRig(t)
	w := r.p.workers[0]
	seen := false
	r.until("the retry", time.Minute, func() bool {
		for _, on := range w.clusters {
			seen = seen || on.stats.cxActive == 1
		}
		return len(c.Received) > 0
	})
	if !seen {
		t.Error("the connection of the retry was not on the books")
	}
	r.answered(c)
	if n := len(w.clusters); n != 0 {
		t.Errorf("the worker keeps %d clusters", n)
	}
}

func TestARetryGoesToTheClusterThatHasComeBack(t *testing.T) {
	r, res, c := goneRig(t)
	r.snap.Clusters["c"] = res
	r.apply()
	r.answered(c)
	h := r.p.slots["c"].spec.Load().lb.View().Hosts()[0]
	if n := h.Stats.RqTotal.Load(); n != 1 {
		t.Errorf("%d requests went to the endpoint of the cluster that has come back, want 1", n)
	}
}

func TestNothingIsKeptOfTheEndpointsOfAClusterThatWentAndCameBack(t *testing.T) {
	r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) { withCluster(s, "c", "10.0.0.9:80") })
	r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) {
		r.world.At(5*time.Second/2, func() { p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) })
	})
	c := r.dial()
	c.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
	r.pass(time.Second)
	res := r.snap.Clusters["c"]
	old := r.p.slots["c"].spec.Load().lb.View().Hosts()[0]
	delete(r.snap.Clusters, "c")
	r.apply()
	r.pass(time.Second)
	r.snap.Clusters["c"] = res
	r.apply()
	r.answered(c)
	if n := old.Conns.Load(); n != 0 {
		t.Errorf("%d connections are kept to the endpoint of the cluster that went", n)
	}
	for c, on := range r.p.workers[0].clusters {
		if !on.empty() {
			t.Errorf("cluster %s has pools of endpoints that have gone", c.name)
		}
	}
}
