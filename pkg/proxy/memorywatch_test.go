// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Between two looks at memory what a worker has come to hold counts by itself.
func TestConnectionsCountBeforeMemoryIsMeasured(t *testing.T) {
	o := resource.Overload{Refresh: time.Second, SocketBuffer: 16 << 10, SocketCharged: true,
		Monitors: []resource.OverloadMonitor{{Name: "memory", Kind: resource.MonitorMemory, Max: 4 << 20}},
		Actions: []resource.OverloadAction{{
			Kind: resource.ActionStopAcceptingRequests, Triggers: []resource.OverloadTrigger{{Monitor: "memory", From: 1, To: 1}},
		}}}
	r := newSimOf(t, Options{Overload: o}, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) { withCluster(s, "c", "10.0.0.9:80") })
	r.echo(plainAnswer)
	get := func(status string) {
		t.Helper()
		p := r.dial()
		p.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
		r.until(status, time.Second, func() bool { return got(p, status) == 1 })
		p.Close()
	}
	look := func(counted bool) {
		r.p.overload.Update(func(int, *resource.OverloadMonitor) (float64, error) {
			m := r.p.overload.Measure()
			if counted {
				m.Counted()
			}
			m.CountedKernel()
			return 1, nil
		})
	}
	look(true)
	get("200")
	w := r.p.workers[0]
	for range (4 << 20) / int(w.perSocket+connectionCost) {
		r.dial()
	}
	r.until("the worker to have told", time.Second, func() bool { return w.load != 0 })
	get("503")
	select {
	case <-r.p.look:
	default:
		t.Error("nobody looks before it is time to")
	}
	look(false)
	get("200") // the kernel has queued nothing
}

// Under pressure, who does not read has little waiting for him.
func TestPressureMakesBuffersSmall(t *testing.T) {
	r := newSilentLoadRig(t, []resource.OverloadAction{act(resource.ActionReduceBuffers, 0.5, 1)}, nil)
	const size = 1 << 20
	r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) {
		p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: " + strconv.Itoa(size) + "\r\n\r\n" + strings.Repeat("x", size)))
	})
	held := func(pressure float64) int64 {
		r.press(pressure)
		p := r.dial()
		p.Hold()
		before, _ := r.p.workers[0].loop.Held()
		r.get(p)
		r.pass(time.Second)
		after, _ := r.p.workers[0].loop.Held()
		p.Release()
		r.until("all of it", time.Minute, func() bool { return len(p.Received) > size })
		p.Close()
		return after - before
	}
	if n := held(0); n < fullBuffer/2 {
		t.Errorf("%d bytes wait without pressure: the test shows nothing", n)
	}
	if n := held(1); n > 2*leastBuffer+1024 {
		t.Errorf("%d bytes wait for a reader under pressure", n)
	}
}
