// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime/pprof"
	"sync"
	"time"
)

// maxProfile ends a CPU profile that nobody stopped.
const maxProfile = time.Minute

// cpuProfile is the CPU profile that runs, of which a process can have one. It is
// kept in memory and handed out when it is stopped; Envoy writes a file instead,
// which has to be fetched from the host by other means.
type cpuProfile struct {
	mu      sync.Mutex // guards what follows
	running bool
	out     *bytes.Buffer
	limit   *time.Timer
}

func (p *cpuProfile) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running {
		return fmt.Errorf("a profile is running")
	}
	out := new(bytes.Buffer)
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	p.out, p.running = out, true
	p.limit = time.AfterFunc(maxProfile, p.end)
	return nil
}

// end stops the profile and keeps it for take.
func (p *cpuProfile) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running {
		p.limit.Stop()
		pprof.StopCPUProfile()
		p.running = false
	}
}

// take hands out the profile and forgets it; nil where there is none.
func (p *cpuProfile) take() []byte {
	p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out == nil {
		return nil
	}
	b := p.out.Bytes()
	p.out = nil
	return b
}

// profiling refuses where it is off.
func (s *Server) profiling(r *request) bool {
	if !s.config.Profiling {
		r.fail(http.StatusForbidden, "profiling is off (--admin-profiling)")
	}
	return s.config.Profiling
}

func runCPUProfiler(s *Server, r *request) {
	if !s.profiling(r) || !r.only("enable") {
		return
	}
	switch r.query.Get("enable") {
	case "y":
		if err := s.profile.start(); err != nil {
			r.fail(http.StatusConflict, err.Error())
			return
		}
		r.ok()
	case "n":
		b := s.profile.take()
		if b == nil {
			r.fail(http.StatusConflict, "no profile was started")
			return
		}
		r.attach("cpu.pprof", b)
	default:
		r.fail(http.StatusBadRequest, "?enable=<y|n>")
	}
}

func runHeapProfiler(s *Server, r *request) {
	if !s.profiling(r) || !r.only("enable") {
		return
	}
	switch r.query.Get("enable") {
	case "", "y":
		writeProfile(r, "heap")
	case "n":
		r.ok() // heap samples are always taken
	default:
		r.fail(http.StatusBadRequest, "?enable=<y|n>")
	}
}

func runHeapDump(s *Server, r *request) {
	if s.profiling(r) {
		writeProfile(r, "heap")
	}
}

func writeProfile(r *request, name string) {
	debug := 0
	if name == "mutex" {
		debug = 1 // text, behind what was written already
	}
	var b bytes.Buffer
	if err := pprof.Lookup(name).WriteTo(&b, debug); err != nil {
		r.fail(http.StatusInternalServerError, err.Error())
		return
	}
	if debug == 1 {
		_, _ = r.ResponseWriter.Write(b.Bytes()) // nobody left to tell
		return
	}
	r.attach(name+".pprof", b.Bytes())
}

func (r *request) attach(name string, b []byte) {
	h := r.ResponseWriter.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	_, _ = r.ResponseWriter.Write(b) // nobody left to tell
}
