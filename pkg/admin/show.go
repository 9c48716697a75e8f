// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

func runReady(s *Server, r *request) {
	st := s.state()
	r.ResponseWriter.Header().Set("Content-Type", textType)
	if st != Live {
		r.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = r.ResponseWriter.Write([]byte(st.String() + "\n")) // nobody left to tell
}

// serverInfo has the shape of envoy.admin.v3.ServerInfo.
type serverInfo struct {
	Version       string `json:"version"`
	State         string `json:"state"`
	UptimeCurrent string `json:"uptime_current_epoch"`
	UptimeAll     string `json:"uptime_all_epochs"`
	HotRestart    string `json:"hot_restart_version"`
	Options       any    `json:"command_line_options"`
	Node          any    `json:"node,omitempty"`
}

func runServerInfo(s *Server, r *request) {
	up := strconv.FormatInt(int64(time.Since(s.config.Started)/time.Second), 10) + "s"
	options := s.config.Options
	if options == nil {
		options = struct{}{}
	}
	r.json(serverInfo{
		Version: s.config.Version, State: s.state().String(), UptimeCurrent: up, UptimeAll: up,
		HotRestart: s.hotRestart(), Options: options, Node: s.config.Node,
	})
}

// hotRestart is the version of handing over, or what Envoy shows where it has none.
func (s *Server) hotRestart() string { return cmp.Or(s.config.HotRestart, "disabled") }

func runHotRestart(s *Server, r *request) { r.text(s.hotRestart() + "\n") }

func runClusters(s *Server, r *request) {
	isJSON, ok := r.asJSON()
	if !ok {
		return
	}
	re, ok := r.regexp("filter")
	if !ok {
		return
	}
	var keep func(string) bool
	if re != nil {
		keep = re.MatchString
	}
	r.setType(isJSON)
	if err := s.config.Proxy.WriteClusters(r.ResponseWriter, isJSON, keep); err != nil {
		s.log.Debug("clusters not written", "error", err)
	}
}

func runListeners(s *Server, r *request) {
	isJSON, ok := r.asJSON()
	if !ok {
		return
	}
	var b bytes.Buffer
	if err := s.config.Proxy.WriteListeners(&b, isJSON); err != nil {
		r.fail(http.StatusInternalServerError, err.Error())
		return
	}
	r.setType(isJSON)
	_, _ = r.ResponseWriter.Write(b.Bytes()) // nobody left to tell
}

func (r *request) setType(isJSON bool) {
	t := textType
	if isJSON {
		t = jsonType
	}
	r.ResponseWriter.Header().Set("Content-Type", t)
}

func runRuntime(s *Server, r *request) {
	type entry struct {
		LayerValues []string `json:"layer_values"`
		FinalValue  string   `json:"final_value"`
	}
	out := struct {
		Entries map[string]entry `json:"entries"`
		Layers  []string         `json:"layers"`
	}{map[string]entry{}, []string{}}
	for k, v := range s.config.Proxy.RuntimeValues() {
		out.Entries[k] = entry{[]string{v}, v}
	}
	if len(out.Entries) > 0 {
		out.Layers = append(out.Layers, "merged") // by the xDS client, the last layer wins
	}
	r.json(out)
}

// runInitDump shows one dump with the names of what is missing.
func runInitDump(s *Server, r *request) {
	type dump struct {
		Name    string   `json:"name"`
		Targets []string `json:"target_names"`
	}
	var out struct {
		Dumps []dump `json:"unready_targets_dumps,omitempty"`
	}
	if s.config.Waiting != nil {
		if names := s.config.Waiting(); len(names) > 0 {
			out.Dumps = append(out.Dumps, dump{"init manager Server", names})
		}
	}
	r.json(out)
}

// memory is the process's, in bytes.
type memory struct {
	allocated, heap, unmapped, free, physical uint64
}

var memoryNames = [...]string{
	"/memory/classes/heap/objects:bytes", "/memory/classes/total:bytes",
	"/memory/classes/heap/released:bytes", "/memory/classes/heap/free:bytes",
}

// readMemory asks the runtime without stopping the world.
func readMemory() memory {
	var list [len(memoryNames)]metrics.Sample
	for i, n := range memoryNames {
		list[i].Name = n
	}
	metrics.Read(list[:])
	m := memory{
		allocated: list[0].Value.Uint64(), unmapped: list[2].Value.Uint64(), free: list[3].Value.Uint64(),
		physical: residentBytes(),
	}
	m.heap = list[1].Value.Uint64() - m.unmapped
	return m
}

// residentBytes is the resident set by /proc; 0 where there is none.
func residentBytes() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// runMemory has the shape of envoy.admin.v3.Memory.
func runMemory(_ *Server, r *request) {
	m := readMemory()
	text := func(n uint64) string { return strconv.FormatUint(n, 10) }
	r.json(struct {
		Allocated string `json:"allocated"`
		HeapSize  string `json:"heap_size"`
		Unmapped  string `json:"pageheap_unmapped"`
		Free      string `json:"pageheap_free"`
		Thread    string `json:"total_thread_cache"`
		Physical  string `json:"total_physical_bytes"`
	}{text(m.allocated), text(m.heap), text(m.unmapped), text(m.free), "0", text(m.physical)})
}

func runContention(s *Server, r *request) {
	if !s.config.Profiling {
		r.text("Lock contention is not measured: profiling is off (--admin-profiling).\n")
		return
	}
	r.text(fmt.Sprintf("goroutines: %d\n", runtime.NumGoroutine()))
	writeProfile(r, "mutex")
}
