// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/overload"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// loadRig is a simulated proxy whose pressure is the number in a file.
type loadRig struct {
	*simRig
	file  string
	heads *int
}

func newLoadRig(t *testing.T, actions []resource.OverloadAction, edit func(*resource.Snapshot)) *loadRig {
	r := newSilentLoadRig(t, actions, edit)
	r.heads = r.echo(plainAnswer)
	return r
}

// newSilentLoadRig is one without an upstream.
func newSilentLoadRig(t *testing.T, actions []resource.OverloadAction, edit func(*resource.Snapshot)) *loadRig {
	r := &loadRig{file: filepath.Join(t.TempDir(), "pressure")}
	o := resource.Overload{Refresh: time.Second, Monitors: []resource.OverloadMonitor{{Name: "file", Kind: resource.MonitorFile, Max: 1, File: r.file}}, Actions: actions}
	r.simRig = newSimOf(t, Options{Overload: o}, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
		if edit != nil {
			edit(s)
		}
	})
	return r
}

// press sets the pressure and waits until the loop has seen it.
func (r *loadRig) press(pressure float64) {
	r.t.Helper()
	if err := os.WriteFile(r.file, strconv.AppendFloat(nil, pressure, 'g', -1, 64), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.p.updateOverload(0)
	r.until("the state", time.Second, func() bool { return r.p.workers[0].load == r.p.overload.State() })
}

func (r *loadRig) get(p *sim.Peer, fields ...string) {
	p.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"))
}

func act(k resource.OverloadActionKind, from, to float64) resource.OverloadAction {
	return resource.OverloadAction{Kind: k, Triggers: []resource.OverloadTrigger{{Monitor: "file", From: from, To: to}}}
}

func got(p *sim.Peer, status string) int {
	return bytes.Count(p.Received, []byte("HTTP/1.1 "+status))
}

func TestRequestsAreRefusedUnderPressureAndNotAfterIt(t *testing.T) {
	r := newLoadRig(t, []resource.OverloadAction{act(resource.ActionStopAcceptingRequests, 0.5, 1)}, nil)
	p := r.dial()
	r.get(p)
	r.until("the first answer", time.Second, func() bool { return got(p, "200") == 1 })
	r.press(1)
	r.get(p)
	r.until("a refusal", time.Second, func() bool { return got(p, "503") == 1 })
	if !bytes.Contains(p.Received, []byte("\r\n\r\nenvoy overloaded")) || *r.heads != 1 {
		t.Errorf("got %q, %d requests came upstream", p.Received, *r.heads)
	}
	r.get(p, "content-type: application/grpc")
	r.until("a refusal of a call", time.Second, func() bool { return bytes.Contains(p.Received, []byte("grpc-status: 14")) })
	r.press(0.75) // one of two
	const n = 400
	for range n {
		r.get(p)
	}
	r.until("the answers", 10*time.Second, func() bool { return bytes.Count(p.Received, []byte("HTTP/1.1 ")) == n+3 })
	if refused := got(p, "503") - 1; refused < n/2-60 || refused > n/2+60 {
		t.Errorf("%d of %d requests were refused at half", refused, n)
	}
	r.press(0)
	before := got(p, "200")
	r.get(p)
	r.until("an answer again", time.Second, func() bool { return got(p, "200") == before+1 })
	c := r.p.managers["test"].on[0]
	if int(c.rqOverload) != got(p, "503")+1 {
		t.Errorf("downstream_rq_overload_close is %d", c.rqOverload)
	}
	r.settled()
}

func TestConnectionsEndWithTheirResponseUnderPressure(t *testing.T) {
	r := newLoadRig(t, []resource.OverloadAction{act(resource.ActionDisableKeepAlive, 0.5, 0.5)}, nil)
	p := r.dial()
	r.get(p)
	r.until("an answer", time.Second, func() bool { return got(p, "200") == 1 })
	r.press(0.5)
	r.get(p)
	r.until("the end", time.Second, func() bool { return p.EOF })
	if got(p, "200") != 2 || !bytes.Contains(bytes.ToLower(p.Received), []byte("connection: close")) {
		t.Errorf("got %q", p.Received)
	}
}

func TestIdleConnectionsGoEarlierUnderPressure(t *testing.T) {
	reduce := act(resource.ActionReduceTimeouts, 0, 1)
	reduce.ConnectionIdle = resource.ScaledTimeout{On: true, Min: 10 * time.Second}
	r := newLoadRig(t, []resource.OverloadAction{reduce}, nil)
	p := r.dial()
	r.get(p)
	r.until("an answer", time.Second, func() bool { return got(p, "200") == 1 })
	start := r.world.Now()
	r.press(1)
	r.until("the end", time.Hour, func() bool { return p.EOF })
	if took := r.world.Now() - start; took < 9*time.Second || took > 11*time.Second {
		t.Errorf("the idle connection went after %v, not after 10s", took)
	}
	p = r.dial()
	r.get(p)
	r.until("an answer", time.Second, func() bool { return got(p, "200") == 1 })
	r.press(0)
	r.world.Run(10 * time.Minute)
	if p.EOF {
		t.Error("without pressure an idle connection went early")
	}
}

func TestConnectionsWaitOrAreRefusedUnderPressure(t *testing.T) {
	r := newLoadRig(t, []resource.OverloadAction{act(resource.ActionRejectConnections, 0.5, 0.5)}, nil)
	r.press(0.5)
	p := r.dial()
	r.until("the refusal", time.Second, func() bool { return p.EOF || p.Err != nil })
	if n := r.p.listeners["l"].overloadRefused.Load(); n != 1 || r.p.connections.Load() != 0 {
		t.Errorf("%d were refused, %d are open", n, r.p.connections.Load())
	}
	r.press(0)
	p = r.dial()
	r.get(p)
	r.until("an answer", time.Second, func() bool { return got(p, "200") == 1 })

	r = newLoadRig(t, []resource.OverloadAction{act(resource.ActionStopAcceptingConnections, 0.5, 0.5)}, nil)
	r.press(0.5)
	p = r.dial()
	r.get(p)
	r.world.Run(5 * time.Second)
	if len(p.Received) > 0 || p.EOF || *r.heads != 0 {
		t.Error("a connection was accepted")
	}
	r.press(0)
	r.until("the answer to who has waited", time.Second, func() bool { return got(p, "200") == 1 })
}

func TestAListenerMayBypassOverload(t *testing.T) {
	actions := []resource.OverloadAction{
		act(resource.ActionStopAcceptingRequests, 0.5, 0.5), act(resource.ActionRejectConnections, 0.5, 0.5),
		act(resource.ActionStopAcceptingConnections, 0.5, 0.5), act(resource.ActionDisableKeepAlive, 0.5, 0.5),
	}
	r := newLoadRig(t, actions, func(s *resource.Snapshot) { s.Listeners["l"].BypassOverload = true })
	r.press(1)
	p := r.dial()
	for i := range 2 {
		r.get(p)
		r.until("an answer", time.Second, func() bool { return got(p, "200") == i+1 })
	}
}

// What ends makes room, and a listener may be left out.
func TestThereAreNeverMoreConnectionsThanTheProcessMayHave(t *testing.T) {
	o := resource.Overload{Refresh: time.Second, Monitors: []resource.OverloadMonitor{{Name: "cx", Kind: resource.MonitorConnections, Max: 3}}}
	r := newSimOf(t, Options{Overload: o}, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
		other := *s.Listeners["l"]
		other.Name, other.IgnoreGlobalLimit = "free", true
		other.Addresses = []resource.Address{{Host: "10.0.0.1", Port: 81}}
		s.Listeners["free"] = &other
	})
	r.echo(plainAnswer)
	var open []*sim.Peer
	for range 5 {
		p := r.dial()
		p.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
		open = append(open, p)
		r.until("an end or an answer", time.Second, func() bool { return p.EOF || p.Err != nil || got(p, "200") == 1 })
	}
	served := 0
	for _, p := range open {
		served += got(p, "200")
	}
	if served != 3 || r.p.listeners["l"].globalRefused.Load() != 2 || r.p.connections.Load() != 3 {
		t.Errorf("%d served, %d refused, %d open", served, r.p.listeners["l"].globalRefused.Load(), r.p.connections.Load())
	}
	p, err := r.world.Dial(reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.1:81")))
	if err != nil {
		t.Fatal(err)
	}
	p.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
	r.until("an answer of the listener that is not limited", time.Second, func() bool { return got(p, "200") == 1 })
	p.Close()
	open[0].Close()
	r.until("room", time.Second, func() bool { return r.p.connections.Load() == 2 })
	p = r.dial()
	p.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n"))
	r.until("an answer", time.Second, func() bool { return got(p, "200") == 1 })
}

// A real loop that is held up shows in the delay, and the stats tell of it.
func TestTheDelayOfALoopIsAPressure(t *testing.T) {
	o := resource.Overload{Refresh: 10 * time.Millisecond, Monitors: []resource.OverloadMonitor{
		{Name: overload.LoopDelayMonitor, Kind: resource.MonitorLoopDelay, Max: uint64(20 * time.Millisecond)},
		{Name: overload.MemoryMonitor, Kind: resource.MonitorMemory, Max: 1 << 40},
	}, Actions: []resource.OverloadAction{{
		Kind: resource.ActionStopAcceptingRequests, Triggers: []resource.OverloadTrigger{{Monitor: overload.LoopDelayMonitor, From: 1, To: 1}},
	}}}
	r := newRigOf(t, Options{Workers: 1, Overload: o}, func(s *resource.Snapshot) { withCluster(s, "c", "127.0.0.1:1") })
	release := make(chan struct{})
	r.p.workers[0].loop.PostOffLoop(func() { <-release })
	eventually(t, "the action", func() bool {
		return r.p.overload.State().Scale(resource.ActionStopAcceptingRequests) == 100
	})
	close(release)
	eventually(t, "its end", func() bool { return r.p.overload.State() == 0 })
	list, err := r.p.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"overload." + overload.LoopDelayMonitor + ".pressure", "overload." + overload.MemoryMonitor + ".pressure",
		"overload.envoy.overload_actions.stop_accepting_requests.active", "overload.envoy.overload_actions.stop_accepting_requests.scale_percent",
	} {
		found := false
		for i := range list {
			found = found || list[i].FullName() == want
		}
		if !found {
			t.Errorf("there is no %s", want)
		}
	}
}

// What the kernel needs may be unknown: the process' own memory counts all the same.
func TestMemoryIsWatchedWithoutTheKernelsPart(t *testing.T) {
	var lines bytes.Buffer
	kernel := filepath.Join(t.TempDir(), "memory.kmem.usage_in_bytes")
	o := resource.Overload{Refresh: time.Second, Monitors: []resource.OverloadMonitor{{Name: "memory", Kind: resource.MonitorMemory, Max: 1 << 20, File: kernel}}, Actions: []resource.OverloadAction{{
		Kind: resource.ActionStopAcceptingRequests, Triggers: []resource.OverloadTrigger{{Monitor: "memory", From: 1, To: 1}},
	}}}
	r := newSimOf(t, Options{Overload: o, Log: slog.New(slog.NewTextHandler(&lines, nil))}, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) { withCluster(s, "c", "10.0.0.9:80") })
	for range 3 {
		r.p.updateOverload(0)
	}
	if n := r.p.overload.State().Scale(resource.ActionStopAcceptingRequests); n != 100 {
		t.Errorf("with no memory left the action is at %d", n)
	}
	if got := r.p.overload.Resources()[0]; got.Failed != 3 || strings.Count(lines.String(), "cannot be read") != 1 {
		t.Errorf("%+v, log %s", got, lines.String())
	}
	if err := os.WriteFile(kernel, []byte("1000"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.p.updateOverload(0)
	if err := os.Remove(kernel); err != nil {
		t.Fatal(err)
	}
	if n, err := r.p.kernelMemory(kernel, 1<<20); n != 1000 || err == nil {
		t.Errorf("%d, %v, want what was read last", n, err)
	}
}
