// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// shedRig is a simulated proxy with one load-shed point, which sheds as much as the
// number in a file says.
func shedRig(t *testing.T, k resource.LoadShedPointKind, edit func(*resource.Snapshot)) *loadRig {
	r := &loadRig{file: filepath.Join(t.TempDir(), "pressure")}
	o := shedOverload(r.file, k)
	r.simRig = newSimOf(t, Options{Overload: o}, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
		if edit != nil {
			edit(s)
		}
	})
	r.heads = r.echo(plainAnswer)
	return r
}

func shedOverload(file string, k resource.LoadShedPointKind) resource.Overload {
	return resource.Overload{
		Refresh:  time.Hour,
		Monitors: []resource.OverloadMonitor{{Name: "file", Kind: resource.MonitorFile, Max: 1, File: file}},
		Points:   []resource.LoadShedPoint{{Kind: k, Triggers: []resource.OverloadTrigger{{Monitor: "file", From: 0, To: 1}}}},
	}
}

// shed sets how much is shed, 0 to 1, and waits until the loop has seen it.
func (r *loadRig) shed(scale float64) {
	r.t.Helper()
	r.press(scale)
	r.until("the points", time.Second, func() bool { return r.p.workers[0].shed == r.p.overload.Points() })
}

func (r *loadRig) count(k resource.LoadShedPointKind) uint64 {
	for _, p := range r.p.overload.PointList() {
		if p.Kind == k {
			return p.Shed
		}
	}
	return 0
}

func TestEachLoadShedPointLetsGoOfWhatComesToIt(t *testing.T) {
	for _, tt := range []struct {
		point  resource.LoadShedPointKind
		fresh  string // what a new connection gets
		used   string // and one that was used before
		counts func(r *loadRig) uint64
		want   uint64
	}{
		{resource.ShedAccept, "end", "200", func(r *loadRig) uint64 { return r.p.listeners["l"].overloadRefused.Load() }, 1},
		{resource.ShedCodec, "end", "200", func(r *loadRig) uint64 { return r.p.managers["test"].on[0].rqOverload }, 1},
		{resource.ShedHTTP1, "503 end", "503 end", func(r *loadRig) uint64 { return r.p.managers["test"].on[0].rqOverload }, 2},
		{resource.ShedHeaders, "503", "503", func(r *loadRig) uint64 { return r.p.managers["test"].on[0].rqOverload }, 2},
		{resource.ShedFilters, "503", "503", func(r *loadRig) uint64 { return r.p.managers["test"].on[0].rqOverloadLocal }, 2},
		{resource.ShedUpstream, "200", "200", func(r *loadRig) uint64 { return r.p.overload.PointList()[0].Shed }, 0},
	} {
		t.Run(tt.point.String(), func(t *testing.T) {
			r := shedRig(t, tt.point, nil)
			used := r.dial()
			r.get(used)
			r.until("an answer", time.Second, func() bool { return got(used, "200") == 1 })
			r.shed(1)
			outcome := func(p *sim.Peer) string {
				before, ended := len(p.Received), func() bool { return p.EOF || p.Err != nil }
				r.get(p)
				r.until("an answer or the end", time.Second, func() bool { return len(p.Received) > before || ended() })
				if err := r.world.Run(10 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
				var out []string
				if b := p.Received[before:]; len(b) > 0 {
					out = append(out, string(b[len("HTTP/1.1 "):][:3]))
				}
				if ended() {
					out = append(out, "end")
				}
				return strings.Join(out, " ")
			}
			if got := outcome(r.dial()); got != tt.fresh {
				t.Errorf("a new connection gets %q, want %q", got, tt.fresh)
			}
			if got := outcome(used); got != tt.used {
				t.Errorf("a connection in use gets %q, want %q", got, tt.used)
			}
			if n := tt.counts(r); n != tt.want {
				t.Errorf("it is counted %d times, want %d", n, tt.want)
			}
			r.shed(0)
			p := r.dial()
			if got := outcome(p); got != "200" {
				t.Errorf("without pressure there is %q", got)
			}
			r.settled()
		})
	}
}

// What has begun on a connection goes on, and a listener may bypass all of it.
func TestARequestThatHasBegunIsNotShed(t *testing.T) {
	r := shedRig(t, resource.ShedHTTP1, nil)
	p := r.dial()
	p.Write([]byte("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na"))
	r.until("the request", time.Second, func() bool { return r.p.managers["test"].on[0].rqActive == 1 })
	r.shed(1)
	p.Write([]byte("b"))
	r.until("the answer", time.Second, func() bool { return got(p, "200") == 1 })

	for k := range resource.LoadShedPoints {
		if k == resource.ShedUpstream { // no listener's
			continue
		}
		r := shedRig(t, k, func(s *resource.Snapshot) { s.Listeners["l"].BypassOverload = true })
		r.shed(1)
		p := r.dial()
		r.get(p)
		r.until("the answer of a listener that bypasses "+k.String(), time.Second, func() bool { return got(p, "200") == 1 })
		if r.count(k) != 0 {
			t.Errorf("%s has shed", k)
		}
	}
}

func TestNoConnectionIsMadeUnderPressure(t *testing.T) {
	r := shedRig(t, resource.ShedUpstream, nil)
	r.shed(1)
	p := r.dial()
	r.get(p)
	r.until("an answer", time.Second, func() bool { return got(p, "503") == 1 })
	if n := r.count(resource.ShedUpstream); n != 1 || *r.heads != 0 || !bytes.Contains(p.Received, []byte("x-envoy-overloaded: true")) {
		t.Errorf("%d were shed, %d requests came upstream, the answer is %q", n, *r.heads, p.Received)
	}
	r.settled()
}

// Real clients of HTTP/2 go on elsewhere after a graceful end, and what is cut comes
// back with nothing done for it.
func TestConnectionsOfHTTP2AreShed(t *testing.T) {
	for _, k := range []resource.LoadShedPointKind{resource.ShedGoAway, resource.ShedGoAwayAndClose} {
		file := filepath.Join(t.TempDir(), "pressure")
		if err := os.WriteFile(file, []byte("0"), 0o600); err != nil {
			t.Fatal(err)
		}
		var calls atomic.Int64
		b := backend(t, func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			io.WriteString(w, "hello")
		})
		r := newRigOf(t, Options{Workers: 1, Overload: shedOverload(file, k)}, func(s *resource.Snapshot) { withCluster(s, "c", b) })
		client := protocolClient(t, true)
		get := func() error {
			resp, err := client.Get("http://" + r.addr + "/")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
			return err
		}
		if err := get(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.p.updateOverload(0)
		err := get()
		eventually(t, "the connection's end", func() bool { return r.p.connections.Load() == 0 })
		n := r.stat("overload." + k.String() + ".shed_load_count")
		if k == resource.ShedGoAway && (err != nil || calls.Load() != 2) || k == resource.ShedGoAwayAndClose && (err == nil || calls.Load() != 1) || n == 0 {
			t.Errorf("%s: %v after %d calls, %d shed", k, err, calls.Load(), n)
		}
	}
}

// overloadedPeer is a proxy that stands for an inbound sidecar under pressure.
func overloadedPeer(t *testing.T) *rig {
	file := filepath.Join(t.TempDir(), "pressure")
	if err := os.WriteFile(file, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	app := backend(t, func(http.ResponseWriter, *http.Request) { t.Error("a request came to an overloaded application") })
	r := newRigOf(t, Options{Workers: 1, Overload: shedOverload(file, resource.ShedHeaders)}, func(s *resource.Snapshot) {
		s.Listeners["l"].Direction = resource.Inbound
		withCluster(s, "c", app)
	})
	r.p.updateOverload(0)
	return r
}

func TestWhatAnOverloadedSidecarRefusesIsTriedElsewhere(t *testing.T) {
	for _, grpc := range []bool{false, true} {
		busy := overloadedPeer(t)
		var calls atomic.Int64
		fine := backend(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			calls.Add(1)
			if grpc {
				w.Header().Set("content-type", "application/grpc")
				w.Header().Set("grpc-status", "0")
			}
			w.Write(body)
		})
		out := newRig(t, func(s *resource.Snapshot) {
			s.Listeners["l"].Direction = resource.Outbound
			withCluster(s, "c", busy.addr, fine)
		})
		const requests = 20
		for range requests {
			req, err := http.NewRequest(http.MethodPost, "http://"+out.addr+"/", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			if grpc {
				req.Header.Set("content-type", "application/grpc")
			}
			resp, err := out.client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK || string(body) != "body" || resp.Header.Get(peerHeader) != "" {
				t.Fatalf("grpc %v: %d %q %v %v", grpc, resp.StatusCode, body, resp.Header, err)
			}
		}
		if n := busy.stat("http.test.downstream_rq_overload_close"); n == 0 || calls.Load() != requests {
			t.Errorf("grpc %v: %d refused, %d answered", grpc, n, calls.Load())
		}
		if n := out.stat("cluster.c.upstream_cx_total"); n > 4 { // a refusal leaves its connection usable
			t.Errorf("grpc %v: %d connections were made", grpc, n)
		}
	}
}

// Where all are overloaded there are no more retries than the limit allows, and
// callers learn what was the matter.
func TestOverloadOfAllEndpointsIsNotDoubled(t *testing.T) {
	busy := overloadedPeer(t)
	out := newRig(t, func(s *resource.Snapshot) {
		s.Listeners["l"].Direction = resource.Outbound
		withCluster(s, "c", busy.addr).Default = resource.Thresholds{
			MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, RetryBudget: true, BudgetPercent: 20, MinRetries: 1,
		}
	})
	const requests = 100
	for range requests {
		resp, err := out.client().Get("http://" + out.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || string(body) != "envoy overloaded" || resp.Header.Get("x-envoy-overloaded") != "true" {
			t.Fatalf("%d %q %v %v", resp.StatusCode, body, resp.Header, err)
		}
	}
	if n := busy.stat("http.test.downstream_rq_overload_close"); n != requests+10 {
		t.Errorf("%d requests came, want %d and the reserve of 10", n, requests)
	}
}

// An application cannot say it in the sidecar's place.
func TestOnlyASidecarSaysThatItIsOverloaded(t *testing.T) {
	app := backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(peerHeader, peerOverload)
		if r.URL.Path == "/call" {
			w.Header().Set("content-type", "application/grpc")
			w.Header().Set("grpc-status", "14")
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	r := newRig(t, func(s *resource.Snapshot) {
		s.Listeners["l"].Direction = resource.Inbound
		withCluster(s, "c", app)
	})
	for _, path := range []string{"/", "/call"} {
		req, err := http.NewRequest(http.MethodGet, "http://"+r.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if path == "/call" {
			req.Header.Set("content-type", "application/grpc")
		}
		resp, err := r.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if v := resp.Header.Get(peerHeader); v != "" {
			t.Errorf("%s: the application said %q", path, v)
		}
	}
	if failurePeerOverloaded.Flag != record.UO {
		t.Error("proxies before us would try it again")
	}
}
