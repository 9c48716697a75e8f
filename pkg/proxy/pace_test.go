// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/fault"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func slowTo(kib uint64) *resource.FaultRate {
	return &resource.FaultRate{Percent: always("rate"), Fixed: kib}
}

// bodyOf is what came behind the head.
func bodyOf(p *sim.Peer) []byte {
	_, body, _ := bytes.Cut(p.Received, []byte("\r\n\r\n"))
	return body
}

// A sixteenth of a second's bytes come at once, and as many with each sixteenth.
func TestASlowResponseHasExactlyItsRate(t *testing.T) {
	const size, slice = 4096, 64 // 1 KiB a second
	answer := fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", size, bytes.Repeat([]byte("x"), size))
	r := newFaultRig(t, &resource.Fault{Slow: slowTo(1), MaxActive: -1}, func(s *resource.Snapshot) { withCluster(s, "c", "10.0.0.8:80") })
	r.serve("10.0.0.8:80", func(p *sim.Peer, _ string) { p.Write([]byte(answer)) })
	p := r.request()
	r.until("the first bytes", time.Second, func() bool { return len(bodyOf(p)) > 0 })
	start := r.world.Now()
	for n := slice; n <= size; n += slice {
		r.until("a piece", time.Second, func() bool { return len(bodyOf(p)) >= n })
		want := time.Duration(n/slice-1) * time.Second / 16
		if took := r.world.Now() - start; len(bodyOf(p)) != n || took < want-5*time.Millisecond || took > want+5*time.Millisecond {
			t.Fatalf("%d bytes after %v, want %d after %v", len(bodyOf(p)), took, n, want)
		}
	}
	r.get(p)
	r.until("another answer on the connection", 5*time.Second, func() bool { return len(bodyOf(p)) > size })
	if got := r.counted(); got != "response_rl_injected=2 active_faults=1" {
		t.Errorf("counted %s", got)
	}
	r.until("its end", 10*time.Second, func() bool { return bytes.Count(p.Received, bytes.Repeat([]byte("x"), slice)) == 2*size/slice })
	r.settled()
	if got := r.counted(); got != "response_rl_injected=2" {
		t.Errorf("counted %s", got)
	}
}

func (r *faultRig) get(p *sim.Peer) { p.Write([]byte("GET / HTTP/1.1\r\nhost: h\r\n\r\n")) }

// What waits is bounded, whatever the upstream has; the upstream's timeout ends with its
// response, and a client that goes takes everything along.
func TestASlowResponseIsBoundedInMemoryAndNotInTime(t *testing.T) {
	const size, most = 256 << 10, 32<<10 + 64<<10
	r := newFaultRig(t, &resource.Fault{Slow: slowTo(16), MaxActive: -1}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.8:80")
		s.Listeners["l"].BufferLimit = 64 << 10
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = 15 * time.Second
	})
	answer := fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", size, bytes.Repeat([]byte("x"), size))
	r.serve("10.0.0.8:80", func(p *sim.Peer, _ string) { p.Write([]byte(answer)) })
	p := r.request()
	waiting := 0
	r.until("the end", time.Minute, func() bool {
		if d := r.p.workers[0].downs.first; d != nil && d.x != nil && d.x.paced != nil {
			waiting = max(waiting, len(d.x.paced.waits))
		}
		return len(bodyOf(p)) == size
	})
	if waiting > most || waiting < 16<<10 {
		t.Errorf("%d bytes were kept, at most %d may be", waiting, most)
	}
	r.settled()
	p = r.request()
	r.until("the first bytes", time.Second, func() bool { return len(bodyOf(p)) > 0 })
	p.Close()
	r.until("the exchange's end", time.Second, func() bool { return r.p.managers["test"].on[0].rqActive == 0 })
	r.settled()
}

func TestRequestsAskForSlowResponses(t *testing.T) {
	byHeader := &resource.Fault{Slow: &resource.FaultRate{Percent: always("rate"), ByHeader: true}, MaxActive: -1}
	const whole = 1024
	for _, c := range []struct {
		name    string
		fault   *resource.Fault
		numbers map[string]float64
		fields  []string
		counted string
	}{
		{"asked for", byHeader, nil, []string{"x-envoy-fault-throughput-response: 1"}, "response_rl_injected=1"},
		{"not asked for", byHeader, nil, nil, ""},
		{"asked for no rate", byHeader, nil, []string{"x-envoy-fault-throughput-response: 0"}, ""},
		{"asked for none", byHeader, nil, []string{"x-envoy-fault-throughput-response: 1", "x-envoy-fault-throughput-response-percentage: 0"}, ""},
		{"none by runtime", &resource.Fault{Slow: slowTo(1), MaxActive: -1}, map[string]float64{"rate": 0}, nil, ""},
		{"too many", &resource.Fault{Slow: slowTo(1), MaxActive: 0}, nil, nil, "faults_overflow=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newFaultRig(t, c.fault, func(s *resource.Snapshot) {
				withCluster(s, "c", "10.0.0.8:80")
				s.Runtime = &resource.Runtime{Numbers: c.numbers}
			})
			r.serve("10.0.0.8:80", func(p *sim.Peer, _ string) {
				p.Write(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", whole, bytes.Repeat([]byte("x"), whole)))
			})
			p := r.request(c.fields...)
			r.until("the first bytes", time.Second, func() bool { return len(bodyOf(p)) > 0 })
			if slow := len(bodyOf(p)) < whole; slow != strings.HasPrefix(c.counted, "response_rl") {
				t.Errorf("%d bytes came at once", len(bodyOf(p)))
			}
			r.until("all of it", 2*time.Second, func() bool { return len(bodyOf(p)) == whole })
			r.settled()
			if got := r.counted(); got != c.counted {
				t.Errorf("counted %s, want %s", got, c.counted)
			}
		})
	}
}

// Trailers come behind the body, in both protocols, and a body of no bytes ends at once.
func TestSlowResponsesKeepTheirTrailers(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/empty" {
			return
		}
		w.Header().Set("trailer", "x-t")
		w.Write(bytes.Repeat([]byte("x"), 9000))
		w.Header().Set("x-t", "end")
	})
	for _, http2 := range []bool{false, true} {
		spec := fault.Spec()
		r := newRigWith(t, filter.NewRegistry(spec), func(s *resource.Snapshot) {
			withCluster(s, "c", b)
			m := s.Listeners["l"].FilterChains[0].HTTP
			m.Filters = append(m.Filters, resource.HTTPFilter{Name: spec.Name, TypeURL: spec.TypeURL, Config: &resource.Fault{Slow: slowTo(64), MaxActive: -1}})
		})
		client := protocolClient(t, http2)
		for _, path := range []string{"/", "/empty", "/"} {
			resp, err := client.Get("http://" + r.addr + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || path == "/" && (len(body) != 9000 || resp.Trailer.Get("x-t") != "end") || path != "/" && len(body) != 0 {
				t.Errorf("http2 %v %s: %d bytes, trailers %v, %v", http2, path, len(body), resp.Trailer, err)
			}
		}
	}
}
