// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"runtime/debug"

	"github.com/outrigger-mesh/outrigger/pkg/overload"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// memoryWatch is what is known of the process' memory, off the loops.
type memoryWatch struct {
	gauge  overload.Gauge
	last   overload.Measure
	kernel uint64 // bytes, what was read last
	told   bool   // that it cannot be read
	heap   uint64 // the Go runtime's limit as it was set last; 0: not yet
}

// memory is what the process needs, and the kernel for it.
func (p *Proxy) memory(o *resource.OverloadMonitor) (float64, error) {
	look, m := p.overload.Measure(), &p.memoryOf
	n, within, collected, err := m.gauge.Memory(o.Max, p.overload.Grown())
	if err != nil {
		return 0, err
	}
	switch {
	case within:
		look.Counted()
	case collected: // some time since the last look: that has surely been seen
		m.last.Counted()
	}
	m.last = look
	beside, err := p.kernelMemory(o.File, o.Max)
	if err == nil {
		look.CountedKernel()
	}
	return float64(n + beside), err
}

// kernelMemory has with an error what was read last: the process' own memory counts
// without it.
func (p *Proxy) kernelMemory(file string, limit uint64) (uint64, error) {
	m := &p.memoryOf
	n, err := overload.Kernel(file, limit, p.accepting.Taken()+p.dialling.Taken())
	if err == nil {
		m.kernel = n
	} else if !m.told {
		m.told = true
		p.log.Warn("overload: what the kernel needs of the memory cannot be read; the last value goes on counting beside the process' own", "bytes", m.kernel, "err", err)
	}
	return m.kernel, err
}

// heapSteps is how many steps the Go runtime's limit has: each new one stops the world.
const heapSteps = 64

// followHeapLimit keeps the Go runtime below what the kernel leaves it of the group's
// limit: else it sees room for garbage where there is none.
func (p *Proxy) followHeapLimit() {
	o := p.overload.Config()
	if o.HeapLimit == 0 || o.HeapLimitFile == "" {
		return
	}
	kernel, err := p.kernelMemory(o.HeapLimitFile, o.HeapLimit)
	if err != nil {
		return
	}
	if n := overload.HeapLimit(o.HeapLimit, kernel, heapSteps); n != p.memoryOf.heap {
		p.memoryOf.heap = n
		debug.SetMemoryLimit(int64(n))
	}
}

// What a worker tells the overload manager of what it has come to hold is exact to
// growthStep. A connection costs the process about connectionCost and the kernel
// socketCost, a request in an exchange exchangeCost, beside what they buffer.
const (
	growthStep     = 128 << 10
	connectionCost = 8 << 10
	socketCost     = 5 << 10
	exchangeCost   = 6 << 10
)

// countHeld tells what the loop has come to hold. What is read and not written is held;
// what is read and thrown away is found out when memory is measured. Of a new connection
// counts all that the kernel may queue for it, where that is charged, until it is known
// how much that is.
func (w *worker) countHeld() {
	bytes, conns := w.loop.Held()
	own := bytes + int64(conns)*connectionCost + int64(w.exchanges.used)*exchangeCost
	kernel := int64(conns) * w.perSocket
	d, k := own-w.held, kernel-w.queued
	if d+k < growthStep && d+k > -growthStep {
		return
	}
	w.held, w.queued = own, kernel
	const refused = resource.ActionStopAcceptingRequests
	if w.proxy.overload.Grow(d, k) && w.proxy.overload.State().Scale(refused) > w.load.Scale(refused) {
		select {
		case w.proxy.look <- struct{}{}:
		default: // it is about to look
		}
	}
}

// growing makes buffers small within a tick; the rest of a new state waits for the next.
func (w *worker) growing() {
	w.countHeld()
	if n := w.proxy.overload.State().Scale(resource.ActionReduceBuffers); n > w.bounded {
		w.boundBuffers(n)
	}
}

// Least that one read brings, and that waits for a reader, under pressure, and the parts
// of a socket's buffer that are left then.
const (
	leastBuffer      = 4 << 10
	fullBuffer       = 64 << 10
	leastSocketParts = 8
)

// queues is how many times the bound of a socket the kernel may use: it allows twice as
// much, each way.
const queues = 2 * 2

// boundBuffers puts into force what the pressure leaves of buffers.
func (w *worker) boundBuffers(scale uint8) {
	socket := w.proxy.overload.Config().SocketBuffer
	b := reactor.Bounds{Socket: socket, Relay: socket}
	if n := int(min(scale, 100)); n > 0 {
		b.Read = fullBuffer - (fullBuffer-leastBuffer)*n/100
		b.Watermark = b.Read
		b.Relay = -1
		b.Socket = socket - (socket-socket/leastSocketParts)*n/100
	}
	w.bounded = scale
	w.loop.SetBounds(b)
}
