// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// methods that are counted by name; the rest is "other", so that a caller cannot make series.
var countedMethods = [...]string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete, "other"}

// requestCounters counts answers by method and class of status, without a lock.
type requestCounters struct {
	counts [len(countedMethods)][6]atomic.Uint64
}

func (c *requestCounters) add(method string, status int) {
	at := slices.Index(countedMethods[:], method)
	if at < 0 {
		at = len(countedMethods) - 1
	}
	c.counts[at][min(max(status/100, 0), 5)].Add(1)
}

// statusRecorder notes the status of an answer and hands everything else on.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	if r.status == 0 || r.status < 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *statusRecorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (s *Server) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusRecorder{ResponseWriter: w}
		defer func() { s.requests.add(r.Method, rec.status) }()
		next.ServeHTTP(rec, r)
	})
}

// metrics answers in the Prometheus text format 0.0.4.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	s.writeMetrics(&b)
	for _, more := range s.config.Metrics {
		more(&b)
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if _, err := w.Write(b.Bytes()); err != nil {
		s.log.Debug("write answer", "error", err)
	}
}

func (s *Server) writeMetrics(w io.Writer) {
	v := s.statusView()
	family := func(name, kind, help string) {
		fmt.Fprintf(w, "# HELP outrigger_controlplane_%s %s\n# TYPE outrigger_controlplane_%s %s\n", name, help, name, kind)
	}
	sample := func(name, labels string, value any) {
		fmt.Fprintf(w, "outrigger_controlplane_%s%s %v\n", name, labels, value)
	}
	one := func(name, kind, help string, value any) { family(name, kind, help); sample(name, "", value) }

	family("build_info", "gauge", "Version of the control plane, always 1.")
	sample("build_info", "{version="+strconv.Quote(s.config.Version)+",go="+strconv.Quote(runtime.Version())+"}", 1)
	one("start_time_seconds", "gauge", "When the control plane started, as Unix time.", s.started.Unix())
	one("ready", "gauge", "1 when ready.", btoi(v.Ready))
	one("model_revision", "gauge", "Revision of the model since the start.", v.Model)
	one("services", "gauge", "Known services.", v.Services)
	family("objects", "gauge", "Objects by kind.")
	for _, kind := range slices.Sorted(maps.Keys(v.Objects)) {
		sample("objects", `{kind="`+kind+`"}`, v.Objects[kind])
	}
	family("instances", "gauge", "Instances by health.")
	health := s.healthCounts()
	for h := range health {
		sample("instances", `{health="`+mesh.Health(h).String()+`"}`, health[h])
	}
	one("instances_held", "gauge", "Instances that the shrink guard keeps.", v.Held)
	one("config_files_rejected", "gauge", "Configuration files with errors.", len(v.Files))
	one("sidecars_connected", "gauge", "Connected clients of the xDS server.", v.Sidecars.Connected)
	one("sidecars_synced", "gauge", "Connected clients that have accepted the latest of all they asked for.", v.Sidecars.Synced)
	one("sidecars_rejecting", "gauge", "Connected clients that refused something.", v.Sidecars.Rejecting)
	one("watchers", "gauge", "Open event streams.", len(s.watchers))
	s.writeRequests(family, sample)
	one("goroutines", "gauge", "Goroutines of the process.", runtime.NumGoroutine())
}

func (s *Server) writeRequests(family func(name, kind, help string), sample func(name, labels string, value any)) {
	family("http_requests_total", "counter", "Answered HTTP requests by method and class of status.")
	for i, method := range countedMethods {
		for class := 1; class <= 5; class++ {
			if n := s.requests.counts[i][class].Load(); n > 0 {
				sample("http_requests_total", fmt.Sprintf(`{method="%s",class="%dxx"}`, method, class), n)
			}
		}
	}
}

func (s *Server) healthCounts() [4]int {
	var out [4]int
	for _, list := range s.state.Model().Instances {
		for _, i := range list {
			out[int(i.Health)%len(out)]++
		}
	}
	return out
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
