// SPDX-License-Identifier: Apache-2.0

package overload

import (
	"errors"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// memoryMetrics are what Memory adds up: what was alive at the last collection, and what
// is not heap. What of the heap is garbage by now is no pressure: it can be had again.
var memoryMetrics = [...]string{
	"/gc/heap/live:bytes", "/memory/classes/total:bytes", "/memory/classes/heap/released:bytes",
	"/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes", "/memory/classes/heap/unused:bytes",
	"/gc/cycles/total:gc-cycles",
}

// collectFrom is from which part of its limit on memory is collected to find out how much of
// it is garbage, where garbageFrom of the limit may be.
const collectFrom, garbageFrom = 0.70, 0.05

// Gauge measures the memory of the process. It is its user's.
type Gauge struct{ cycles uint64 }

// Memory is how many bytes of memory the process needs, which may have limit, beside what
// it is not told of here. What has become needed since the last collection is known only
// after another one: near the limit, as near as grown brings it, which are the bytes that
// have come to be held since the last measure, there is one at each call, which takes
// milliseconds. It reports whether there was one within the call, and whether one was
// since the last. It is not for loops.
func (g *Gauge) Memory(limit, grown uint64) (needed uint64, within, collected bool, err error) {
	needed, held, cycles, err := memory()
	if err != nil {
		return 0, false, false, err
	}
	near := collectFrom * float64(limit)
	within = float64(held) >= near && float64(held-needed) >= garbageFrom*float64(limit) ||
		grown > 0 && float64(needed+grown) >= near && float64(grown) >= garbageFrom*float64(limit)
	if within {
		runtime.GC()
		needed, _, cycles, err = memory()
	}
	collected = cycles != g.cycles
	g.cycles = cycles
	return needed, within, collected, err
}

// memory is what the process needed at the last collection, that with what may be garbage,
// and how many collections there were.
func memory() (needed, held, cycles uint64, err error) {
	var s [len(memoryMetrics)]metrics.Sample
	for i, name := range memoryMetrics {
		s[i].Name = name
	}
	metrics.Read(s[:])
	var v [len(memoryMetrics)]uint64
	for i := range s {
		if s[i].Value.Kind() != metrics.KindUint64 {
			return 0, 0, 0, errors.New("the runtime does not know " + memoryMetrics[i])
		}
		v[i] = s[i].Value.Uint64()
	}
	beside := v[1] - min(v[1], v[2]+v[3]+v[4]+v[5])
	return v[0] + beside, max(v[0], v[3]) + beside, v[6], nil
}

// MemoryLimit is how much memory the process may have, in bytes: the least of GOMEMLIMIT and
// the limits of its control groups (of both versions); 0: nobody says. Where it is a group's,
// kernel is the file for Kernel: what the kernel needs for the group counts, too; empty where
// it cannot be read.
func MemoryLimit() (limit uint64, kernel string) {
	least := uint64(math.MaxUint64)
	if os.Getenv("GOMEMLIMIT") != "" {
		least = uint64(debug.SetMemoryLimit(-1))
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		if n, file := groupLimit("/sys/fs/cgroup", string(own)); n < least {
			least, kernel = n, file
		}
	}
	if least >= noLimit { // as GOMEMLIMIT=off
		return 0, ""
	}
	return least, kernel
}

// Kernel is how many bytes the kernel needs for a group's connections, files and processes:
// those of idle connections are more than their own. file is that of MemoryLimit; empty: 0.
// limit is the group's, sockets are the connections of the process. In version 2 what the
// kernel can take back does not count. Version 1 does not say how much that is: its number
// counts up to a quarter of the limit, or to what so many connections cost if that is more,
// so that a cache of file names alone has nothing refused. What TCP has queued is no part of
// a limit of version 1 and has a counter of its own: it is left out.
func Kernel(file string, limit uint64, sockets int) (uint64, error) {
	if file == "" {
		return 0, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if !strings.HasSuffix(file, statFile) {
		n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		return min(n, max(limit/mostUnsorted, uint64(max(sockets, 0))*socketCost)), err
	}
	var sum, free uint64
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		switch {
		case err != nil:
		case name == "kernel", name == "sock":
			sum += n
		case name == "slab_reclaimable":
			free = n
		}
	}
	return sum - min(sum, free), nil
}

// mostUnsorted is the part of the limit up to which the kernel's memory counts where it does
// not say what of it can be had again.
const mostUnsorted = 4

// socketCost is what the kernel needs for a connection that has nothing queued, at most:
// the socket, its inode, name and file, and its place in epoll. Measured are 4 to 5 KiB.
const socketCost = 8 << 10

// statFile has the kernel's part in version 2.
const statFile = "memory.stat"

// noLimit is from where on a limit is none: version 1 says so by the largest number of
// pages, in bytes.
const noLimit = 1 << 62

// groupLimit is the least limit from the process' own group up to the root of what is
// mounted, with that group's file for Kernel if it can be read; MaxUint64: there is none. A
// container sees its own group at the root, whatever the name is that it has outside.
func groupLimit(mount, own string) (least uint64, kernel string) {
	least = math.MaxUint64
	for line := range strings.Lines(own) {
		// HIERARCHY:CONTROLLERS:/PATH, without controllers in version 2
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, ok := strings.Cut(rest, ":/")
		root, file, kernelFile := mount, "memory.max", statFile
		switch {
		case !ok:
			continue
		case slices.Contains(strings.Split(controllers, ","), "memory"):
			root, file, kernelFile = mount+"/memory", "memory.limit_in_bytes", "memory.kmem.usage_in_bytes"
		case controllers != "":
			continue
		}
		for {
			b, err := os.ReadFile(root + "/" + path + "/" + file)
			if err == nil {
				if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil && n < least {
					least, kernel = n, root+"/"+path+"/"+kernelFile
				}
			}
			if path == "" || strings.Contains(path, "..") {
				break
			}
			i := strings.LastIndexByte(path, '/')
			path = path[:max(i, 0)]
		}
	}
	if _, err := Kernel(kernel, least, 0); err != nil { // as without accounting of the kernel's memory
		kernel = ""
	}
	return least, kernel
}

// Names of the monitors that Defaults has.
const (
	MemoryMonitor    = "envoy.resource_monitors.fixed_heap"
	LoopDelayMonitor = "io.outrigger.resource_monitors.loop_delay"
)

// Thresholds of Defaults, as parts of the limits.
const (
	reduceFrom, reduceTo   = 0.70, 0.85 // of memory: idle connections go earlier
	bufferFrom, bufferTo   = 0.60, 0.80 // of memory: less waits in buffers
	keepAliveFrom          = 0.80       // of memory: connections end with their response
	refuseFrom, refuseTo   = 0.85, 0.95 // of memory: requests are refused
	acceptFrom             = 0.90       // of memory: connections wait to be accepted
	delayFrom, delayTo     = 0.5, 1.0   // of maxLoopDelay: requests are refused
	maxLoopDelay           = 4 * time.Second
	refresh                = 250 * time.Millisecond // as Envoy's; peers on the same host fill 50 MiB in it
	leastIdle, leastStream = 10 * time.Second, 30 * time.Second
)

// Defaults are the settings where nobody has said any, for a process that may have so much
// memory, see MemoryLimit; 0: nobody knows, and memory has no part in it.
func Defaults(limit uint64, kernel string) resource.Overload {
	o := resource.Overload{
		Refresh:  refresh,
		Monitors: []resource.OverloadMonitor{{Name: LoopDelayMonitor, Kind: resource.MonitorLoopDelay, Max: uint64(maxLoopDelay)}},
	}
	refuse := resource.OverloadAction{
		Kind: resource.ActionStopAcceptingRequests, Triggers: []resource.OverloadTrigger{{Monitor: LoopDelayMonitor, From: delayFrom, To: delayTo}},
	}
	if limit == 0 {
		o.Actions = []resource.OverloadAction{refuse}
		return o
	}
	memory := func(k resource.OverloadActionKind, from, to float64) resource.OverloadAction {
		return resource.OverloadAction{Kind: k, Triggers: []resource.OverloadTrigger{{Monitor: MemoryMonitor, From: from, To: to}}}
	}
	o.Monitors = append(o.Monitors, resource.OverloadMonitor{Name: MemoryMonitor, Kind: resource.MonitorMemory, Max: limit, File: kernel})
	refuse.Triggers = append(refuse.Triggers, resource.OverloadTrigger{Monitor: MemoryMonitor, From: refuseFrom, To: refuseTo})
	reduce := memory(resource.ActionReduceTimeouts, reduceFrom, reduceTo)
	reduce.ConnectionIdle = resource.ScaledTimeout{On: true, Min: leastIdle}
	reduce.StreamIdle = resource.ScaledTimeout{On: true, Min: leastStream}
	o.SocketBuffer, o.SocketCharged = socketBuffer(limit), strings.HasSuffix(kernel, statFile)
	o.Actions = []resource.OverloadAction{
		memory(resource.ActionReduceBuffers, bufferFrom, bufferTo),
		reduce,
		memory(resource.ActionShrinkHeap, keepAliveFrom, keepAliveFrom),
		memory(resource.ActionDisableKeepAlive, keepAliveFrom, keepAliveFrom),
		refuse,
		memory(resource.ActionStopAcceptingConnections, acceptFrom, acceptFrom),
	}
	return o
}

// Bounds of what the kernel may queue for a connection, where memory is limited to less
// than socketsUnbounded: a part of the limit that leaves room for thousands of those that
// are not read. By itself the kernel goes up to net.ipv4.tcp_rmem and tcp_wmem, megabytes
// each, whatever the group may have.
const (
	socketsUnbounded  = 1 << 30
	socketParts       = 2048
	leastSocketBuffer = 16 << 10
)

func socketBuffer(limit uint64) int {
	if limit >= socketsUnbounded {
		return 0
	}
	return int(max(limit/socketParts, leastSocketBuffer))
}

// HeapLimit is what the Go runtime may take of a limit of which the kernel needs a part,
// in steps of a part of the limit. Half of the limit is left to it in any case: it would
// only collect all the time.
func HeapLimit(limit, kernel, steps uint64) uint64 {
	step := max(limit/steps, 1)
	return max(limit-min(limit, (kernel+step-1)/step*step), limit/2)
}
