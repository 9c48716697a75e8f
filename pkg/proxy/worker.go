// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/sniff"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/overload"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Sizes of the ring that carries records off a worker. 20 ms of records fit at
// 200 000 requests a second.
const (
	ringSlots = 4096
	ringBytes = 1 << 20
)

// mergeInterval is how often a worker adds its counts to the shared breakers.
const mergeInterval = 50 * time.Millisecond

// worker is one loop with all that lives on it. Nothing here is touched from
// elsewhere, but for what is marked.
type worker struct {
	// set once
	proxy *Proxy
	index int
	loop  *reactor.Loop
	ring  *record.Ring
	gate  *mtls.Gate // of its loop
	// counts: memory is limited, and what the loop holds is told.
	counts bool
	// perSocket is what the kernel may need for a connection, in bytes.
	perSocket int64

	// atomic: written by Apply
	adopted atomic.Uint64
	byName  atomic.Pointer[map[string]*cluster]
	// panicked is the last panic that the merge tick has not told of yet.
	panicked atomic.Pointer[panicNote]

	// loop-owned
	random    *rand.PCG
	load      overload.State // of this tick
	shed      overload.Points
	held      int64 // bytes, as told last
	queued    int64 // by the kernel, likewise
	bounded   uint8 // scale of the buffers' bounds
	listeners map[*listener][]*listenerOn
	clusters  map[*cluster]*clusterOn
	all       roll[*clusterOn] // of clusters
	downs     downstreamList
	tunnels   *tunnel // the first of them
	drainEnd  int64   // when tunnels are told in the drain that began last; 0: none did
	http2s    []*http2Conn
	replays   []*http2Call // with something behind a head that a filter held
	ready     []*exchange  // woken by an event of an attempt; run at the end of the tick
	dials     int          // begun in this tick
	late      []*http2Conn // whose streams go on starting in the next tick
	tardy     []*http2Conn // in this one
	doomed    []*attempt   // mirrors to end at the end of the tick
	merge     reactor.Timer
	stats     workerStats
	habits    habits
	flooders  flooders

	// scratch, valid within one callback
	reqHead    codec.RequestHead
	respHead   codec.ResponseHead
	joined     []byte       // all values of a header
	value      []byte       // a header value being made
	ownTrailer codec.Header // of an answer that this proxy ends
	lower      []byte       // an authority in lower case
	rewrite    []byte       // a path being made
	capture    []byte       // captures of a record
	frames     []byte       // of HTTP/2 that a codec has pending
	hello      sniff.Hello
	// inspected is what looked at the connection that is being seated, nil for none.
	inspected *inspection

	exchanges freeList[exchange]
	attempts  freeList[attempt]
	// of all connections: one with few streams keeps none for itself
	http2Streams freeList[http2Stream]
	http2Calls   freeList[http2Call]
	bodies       [][]byte // free list of body buffers
	tidy         reactor.Timer

	wanted atomic.Bool // another worker waits for a place; see makePlace
}

func newWorker(p *Proxy, index int) (*worker, error) {
	w := &worker{
		proxy: p, index: index,
		ring:      p.options.Rings[index],
		random:    rand.NewPCG(p.options.Seed, uint64(index)),
		listeners: map[*listener][]*listenerOn{},
		clusters:  map[*cluster]*clusterOn{},
		habits:    habits{},
	}
	w.byName.Store(&map[string]*cluster{})
	loop, err := p.options.NewLoop(reactor.Config{Index: index, OnPanic: w.onPanic, Accepting: p.accepting, Dialling: p.dialling, Ends: &p.ends})
	if err != nil {
		return nil, err
	}
	w.loop = loop
	w.gate = mtls.NewGate(loop, p.acceptedCPU, p.dialledCPU, mtls.Limits{})
	w.merge.F = w.mergeCounts
	w.tidy.F = w.trim
	o := p.overload.Config()
	w.counts = p.overload.Watches(resource.MonitorMemory)
	if w.perSocket = socketCost; o.SocketCharged {
		w.perSocket += int64(o.SocketBuffer) * queues
	}
	w.boundBuffers(0)
	if w.counts {
		loop.OnGrowth(growthStep, w.growing)
	}
	loop.OnTick(w.beginTick, w.endTick)
	return w, nil
}

func (w *worker) onPanic(v any, stack []byte) {
	w.stats.panics++
	w.panicked.Store(&panicNote{v, stack, w.stats.panics})
	w.proxy.log.Error("panic on a worker; its connection was closed", "worker", w.index, "panic", v, "stack", string(stack))
}

// endTick runs exchanges that were woken during the tick, after all events and
// timers and before what they write is flushed. What they wake in turn is run
// behind them, in the same tick.
func (w *worker) endTick() {
	w.startLate()
	for i := 0; i < len(w.ready); i++ {
		x := w.ready[i]
		w.ready[i] = nil
		if x != nil && x.woken { // nil: its turn was before a panic
			x.woken = false
			w.contain(x)
		}
	}
	w.ready = w.ready[:0]
	for i, a := range w.doomed {
		w.doomed[i] = nil
		if a != nil && a.failed != nil && !a.done {
			a.finish(a.failed)
		}
	}
	w.doomed = w.doomed[:0]
	replays := w.replays
	w.replays = nil
	for _, c := range replays {
		if c.a != nil {
			w.containReplay(c, c.a.x)
		}
	}
}

func (w *worker) containReplay(c *http2Call, x *exchange) {
	defer w.contained(x)
	c.replay()
}

// replayLater passes on what came behind a head, once that was sent.
func (w *worker) replayLater(c *http2Call) {
	w.replays = append(w.replays, c)
	w.loop.Again()
}

// dropLater ends a mirror at the end of the tick, for callers that are inside of
// its writing.
func (w *worker) dropLater(a *attempt) { w.doomed = append(w.doomed, a) }

// lostCluster forgets a cluster if it has gone and nothing uses it any more.
func (w *worker) lostCluster(on *clusterOn) {
	if on.c.spec.Load() == nil && on.empty() && on.stats.rqActive == 0 && on.stats.cxActive == 0 && w.clusters[on.c] == on {
		delete(w.clusters, on.c)
		w.all.remove(on)
		on.lost = true
	}
}

// keepCluster remembers a cluster again that was forgotten while an exchange waited for
// its next attempt, which has found a use for it.
func (w *worker) keepCluster(on *clusterOn) {
	if on.lost && w.clusters[on.c] == nil {
		w.clusters[on.c] = on
		w.all.add(on)
		on.lost = false
	}
}

// contain runs an exchange that no connection's event runs: a panic in it ends
// the exchange with its connections and not the worker.
func (w *worker) contain(x *exchange) {
	defer w.contained(x)
	x.advance()
}

// contained is deferred by what runs an exchange outside of a connection's event.
func (w *worker) contained(x *exchange) {
	if v := recover(); v != nil {
		w.loop.Panicked(v)
		x.abandon()
	}
}

// forgive is deferred by callbacks whose panic leaves nothing half done.
func (w *worker) forgive() {
	if v := recover(); v != nil {
		w.loop.Panicked(v)
	}
}

// wake lets x go on at the end of this tick.
func (w *worker) wake(x *exchange) {
	if !x.woken {
		x.woken = true
		w.ready = append(w.ready, x)
		w.loop.Again() // closes come after the end of the tick
	}
}

// adopt is posted by Apply: the pools of clusters that changed or went give up
// what no longer belongs to them. Connections to those in outdated may be.
func (w *worker) adopt(version uint64, changed, outdated []*cluster) {
	w.refresh(changed)
	w.outdate(outdated)
	w.adopted.Store(version)
}

func (w *worker) refresh(changed []*cluster) {
	for _, c := range changed {
		if on := w.clusters[c]; on != nil {
			on.refresh()
		}
	}
}

func (w *worker) outdate(clusters []*cluster) {
	if len(clusters) == 0 {
		return
	}
	modify := func(is bool) {
		for _, c := range clusters {
			if on := w.clusters[c]; on != nil {
				on.modified = is
			}
		}
	}
	modify(true)
	w.leaveOutdated()
	modify(false)
}

// clusterOn returns the worker's side of a cluster, made at its first use; nil
// where the cluster is not configured.
func (w *worker) clusterOn(c *cluster) *clusterOn {
	spec := c.spec.Load()
	if spec == nil {
		return nil
	}
	on := w.clusters[c]
	if on == nil {
		on = newClusterOn(w, c, spec)
		w.clusters[c] = on
		w.all.add(on)
	} else if on.spec != spec {
		on.use(spec)
	}
	return on
}

// mergeCounts adds what this worker counted to the shared breakers, exactly and
// in batches. It is armed by the first count after an idle time.
func (w *worker) mergeCounts() {
	again := false
	for _, on := range w.all {
		if on.flush(w.loop.Now()) {
			again = true
		}
	}
	if again {
		w.loop.Schedule(&w.merge, mergeInterval)
	}
}

func (w *worker) countsChanged() {
	if !w.merge.Armed() {
		w.loop.Schedule(&w.merge, mergeInterval)
	}
}

func (w *worker) takeBody() []byte {
	if n := len(w.bodies); n > 0 {
		b := w.bodies[n-1]
		w.bodies = w.bodies[:n-1]
		return b
	}
	return make([]byte, 0, 4<<10)
}

// At most maxBodies body buffers are kept, each of at most maxKept bytes.
const (
	maxBodies = 64
	maxKept   = 64 << 10
)

func (w *worker) freeBody(b []byte) {
	if b != nil && cap(b) <= maxKept && len(w.bodies) < maxBodies {
		w.bodies = append(w.bodies, b[:0])
	}
}

func (w *worker) freeExchange(x *exchange) {
	if w.exchanges.give(x) {
		w.trimLater()
	}
}

func (w *worker) freeAttempt(a *attempt) {
	if w.attempts.give(a) {
		w.trimLater()
	}
}

func (w *worker) freeHTTP2Stream(s *http2Stream) {
	if w.http2Streams.give(s) {
		w.trimLater()
	}
}

func (w *worker) freeHTTP2Call(c *http2Call) {
	if w.http2Calls.give(c) {
		w.trimLater()
	}
}

func (w *worker) trimLater() {
	if !w.tidy.Armed() {
		w.loop.Schedule(&w.tidy, trimEvery)
	}
}

func (w *worker) trim() {
	exchanges := w.exchanges.trim(func(x *exchange) { x.timer.Stop() })
	attempts := w.attempts.trim(func(*attempt) {})
	streams := w.http2Streams.trim(func(*http2Stream) {})
	calls := w.http2Calls.trim(func(*http2Call) {})
	if exchanges || attempts || streams || calls {
		w.trimLater()
	}
}
