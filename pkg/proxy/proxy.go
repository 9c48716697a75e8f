// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/health"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/overload"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/trace"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Options are what a proxy is made of.
type Options struct {
	Workers int // loops; 0: one for each processor
	// Rings are NewRings of as many workers; nil: New makes them.
	Rings      []*record.Ring
	Filters    *filter.Registry
	AccessLogs *accesslog.Writers
	// TraceExporter opens destinations of spans; nil: spans go nowhere.
	TraceExporter func(e resource.TraceExporter, service string) (trace.Exporter, error)
	Service       string // of this node, for spans and x-envoy-downstream-service-cluster
	Node          string
	Log           *slog.Logger
	// NewLoop and Binder replace the kernel in simulations, Go the goroutines that
	// finish an Apply, and a Seed other than 0 makes what is drawn at random repeatable.
	NewLoop func(reactor.Config) (*reactor.Loop, error)
	Binder  reactor.Binder
	Go      func(f func())
	Seed    uint64
	// EjectionLog gets a line of Envoy's JSON for each ejection and return of an endpoint,
	// off the loops. It must not wait. Nil: none.
	EjectionLog func(line []byte)
	// Events get what the proxy decides, off the loops; nil: nobody does.
	Events *event.Log
	// AccessLogRemote opens access logs that are no files; nil refuses them.
	AccessLogRemote func(*resource.GRPCLog) (accesslog.Remote, error)
	// Accepting and Dialling are how many connections there may be at a time from
	// downstream and to upstreams, over all workers; 0: no limit. Listeners pause
	// before descriptors run out that others need.
	Accepting, Dialling int
	// DrainTime is how long connections of removed listeners and filter chains may go
	// on, with whatever is under way on them. Default 10 s.
	DrainTime time.Duration
	// DrainIdle is how long a connection without a request may stay once draining has
	// begun: a client that has just decided to use it shall find it open. Default 1 s;
	// negative: none.
	DrainIdle time.Duration
	// HoldAccepting leaves connections in the backlogs until StartAccepting: a
	// predecessor still takes them.
	HoldAccepting bool
	// Overload says what is left undone under pressure; the zero value: nothing.
	Overload resource.Overload
	// LocalCluster is the cluster of proxies as this one, and Locality where this one
	// is: for routing by zone. "": there is none.
	LocalCluster string
	Locality     lb.Place
}

// Proxy is the data path of one process.
type Proxy struct {
	// set once
	options   Options
	workers   []*worker
	sockets   *reactor.Sockets
	log       *slog.Logger
	hostname  string
	ejections *breaker.EventLog
	health    *health.Checks
	accepting *reactor.Places // nil: no limit
	dialling  *reactor.Places
	ends      reactor.Ends // of what the workers have dialled
	// Handshakes compute here: ours do not wait behind those of whoever connects.
	acceptedCPU, dialledCPU mtls.CPU
	tickets                 mtls.Tickets
	overload                *overload.Manager
	memoryOf                memoryWatch   // of who calls updateOverload
	look                    chan struct{} // wakes watchOverload
	burst                   chan struct{} // wakes readRecords: a ring is half full
	answers                 *keptAnswers

	// atomic
	version   atomic.Uint64 // of the last snapshot applied
	draining  atomic.Bool
	drainIdle atomic.Int64 // ns that a connection without a request may stay in a drain
	runtime   atomic.Pointer[resource.Runtime]
	clusters  atomic.Pointer[[]*cluster] // for maintenance and admin
	failing   atomic.Bool                // health checks of this proxy
	// connections from downstream of all listeners
	connections atomic.Int64
	givenUp     givenUp
	// wall is the time of the wall clock, in ns, at which the loops' clock was 0; 0 while
	// nobody knows.
	wall atomic.Int64

	zones zones
	awake awake

	mu       sync.Mutex // guards what follows; held by Apply and readers off the loops
	snapshot *resource.Snapshot
	slots    map[string]*cluster
	leaving  map[string]struct{} // names of clusters that removeStale is to look at
	restless map[string]struct{} // names of clusters whose TLS can change between snapshots
	// aggregates are the names of aggregate clusters.
	aggregates map[string]struct{}
	routes     map[string]*routeSlot
	listeners  map[string]*listener
	managers   map[string]*managerStats
	failed     map[string]error // listeners that could not be opened
	moved      []*listener      // during Apply: they wait for addresses to be free
	counts     configCounts
	rates      connectionRates
	told       map[string]string // what rotate has said last of whom
	shared     mtls.Shared       // of the snapshot's secrets
	holding    bool              // nobody accepts yet
	adopted    int               // connections of a predecessor
	recompile  bool              // during Apply: what has not changed is compiled anew too
	done       chan struct{}     // closed when Run has ended
	alone      chan struct{}     // closed when the successor of a HandOver has gone
}

// New makes a proxy with its loops; Run starts them.
func New(o Options) (*Proxy, error) {
	o.Workers = workersOf(o.Workers)
	if o.Rings == nil {
		o.Rings = NewRings(o.Workers)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Filters == nil {
		o.Filters = filter.NewRegistry()
	}
	if o.NewLoop == nil {
		o.NewLoop = reactor.NewLoop
	}
	if o.Go == nil {
		o.Go = func(f func()) { go f() }
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.DrainTime == 0 {
		o.DrainTime = 10 * time.Second
	}
	if o.DrainIdle == 0 {
		o.DrainIdle = time.Second
	}
	p := &Proxy{
		acceptedCPU: mtls.NewCPU(o.Workers), dialledCPU: mtls.NewCPU(o.Workers),
		overload: overload.New(o.Overload), answers: newKeptAnswers(), look: make(chan struct{}, 1), burst: make(chan struct{}, 1),
		options: o, log: o.Log, sockets: reactor.NewSockets(o.Binder),
		slots: map[string]*cluster{}, leaving: map[string]struct{}{}, restless: map[string]struct{}{}, aggregates: map[string]struct{}{}, routes: map[string]*routeSlot{},
		listeners: map[string]*listener{}, managers: map[string]*managerStats{},
		failed: map[string]error{}, done: make(chan struct{}), alone: make(chan struct{}), ejections: breaker.NewEventLog(256, o.EjectionLog, nil),
	}
	p.ejections.Tell(p.tellEjection)
	p.hostname, _ = os.Hostname()
	p.holding = o.HoldAccepting
	p.drainIdle.Store(int64(max(o.DrainIdle, 0)))
	p.health = p.newHealth()
	p.accepting, p.dialling = places(o.Accepting), places(o.Dialling)
	p.clusters.Store(new([]*cluster))
	for i := range o.Workers {
		o.Rings[i].WakeAtHalf(p.wakeReader)
		w, err := newWorker(p, i)
		if err != nil {
			return nil, fmt.Errorf("worker %d: %w", i, err)
		}
		p.workers = append(p.workers, w)
	}
	return p, nil
}

// Run runs the loops and the record reader until the context ends, then closes
// everything. It returns the first error of a loop.
func (p *Proxy) Run(ctx context.Context) error {
	defer close(p.done)
	// One processor more than loops, so that the loops, which rarely let go of
	// theirs, do not wait for each other behind the rest of the process.
	if runtime.GOMAXPROCS(0) < len(p.workers)+1 {
		runtime.GOMAXPROCS(len(p.workers) + 1)
	}
	errs := make(chan error, len(p.workers))
	for _, w := range p.workers {
		go func() { errs <- w.loop.Run() }()
	}
	stop := make(chan struct{})
	var off sync.WaitGroup
	off.Go(func() { p.readRecords(stop) })
	off.Go(func() { p.maintain(stop) })
	off.Go(func() { p.watchOverload(stop) })
	off.Go(func() { p.health.Run(ctx) })
	<-ctx.Done()
	for _, w := range p.workers {
		w.loop.StopOffLoop()
	}
	var all []error
	for range p.workers {
		all = append(all, <-errs)
	}
	close(stop)
	off.Wait()
	p.releaseListeners()
	return errors.Join(all...)
}

// Done is closed when Run has ended.
func (p *Proxy) Done() <-chan struct{} { return p.done }

// Apply puts a snapshot into service: clusters and endpoints first, then routes,
// then listeners; what went is removed in the opposite order (make before
// break). A resource that cannot be compiled or a listener that cannot be opened
// keeps what it was; the error names it, and the rest is applied. Calls must
// not overlap.
func (p *Proxy) Apply(s *resource.Snapshot) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Access logs and tracing have runtime values compiled in.
	p.recompile = s.Runtime != nil && p.runtime.Load() != s.Runtime
	if s.Runtime != nil {
		p.runtime.Store(s.Runtime)
	}
	renewed := p.snapshot == nil || !maps.Equal(p.snapshot.Secrets, s.Secrets)
	if renewed {
		p.shared = mtls.Shared{}
		for _, spec := range p.options.Filters.All() {
			if spec.Secrets != nil {
				spec.Secrets(s.Secrets)
			}
		}
	}
	names := p.changedClusters(s)
	p.snapshot = s
	clusters := p.applyClusters(s, names)
	aggregates := p.applyAggregates(s, names)
	p.publishClusters(clusters.joined, nil) // before routes that name clusters by header
	p.refreshZones(clusters.joined)
	p.applyRoutes(s)
	err := errors.Join(aggregates, p.applyListeners(s))
	p.rotateListeners(false)
	p.rotateClusters(!renewed)
	p.version.Store(s.Version)
	for _, w := range p.workers {
		w.loop.PostOffLoop(func() { w.adopt(s.Version, clusters.changed, clusters.outdated) })
	}
	p.afterWorkers(p.removeStale)
	return err
}

// removeStale removes what the snapshot in service no longer has. It runs once
// every worker has come through a tick since the snapshot was applied: no request
// can be between a route of the old table and the cluster it names.
func (p *Proxy) removeStale() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removeRoutes(p.snapshot)
	gone := p.removeClusters(p.snapshot)
	if len(gone) == 0 {
		return
	}
	p.forgetSlots()
	p.publishClusters(nil, gone)
	for _, w := range p.workers {
		w.loop.PostOffLoop(func() { w.refresh(gone) })
	}
}

func (p *Proxy) applyRoutes(s *resource.Snapshot) {
	for name, res := range s.Routes {
		r := p.routeSlot(name)
		if t := r.table.Load(); t == nil || t.res != res {
			r.table.Store(compileTable(res, p.slot))
		}
	}
}

func (p *Proxy) removeRoutes(s *resource.Snapshot) {
	for name, r := range p.routes {
		if _, stays := s.Routes[name]; !stays {
			r.table.Store(nil)
		}
	}
}

// forgetSlots drops the places of clusters that are neither configured nor named
// by any route, so that names that come and go leave nothing behind.
func (p *Proxy) forgetSlots() {
	named := map[string]bool{}
	add := func(name string) { named[name] = true }
	for _, r := range p.routes {
		if t := r.table.Load(); t != nil {
			t.clusterNames(add)
		}
	}
	for _, l := range p.listeners {
		for _, ch := range l.config.Load().all() {
			ch.clusterNames(add)
		}
	}
	for name, c := range p.slots {
		if c.spec.Load() == nil && !named[name] {
			delete(p.slots, name)
		}
	}
	for name, r := range p.routes {
		if r.table.Load() == nil && !p.routeNamed(name) {
			delete(p.routes, name)
		}
	}
}

// routeNamed reports whether a listener in service names the route configuration.
func (p *Proxy) routeNamed(name string) bool {
	for _, l := range p.listeners {
		for _, ch := range l.config.Load().all() {
			if m := ch.manager.Load(); m != nil && m.namesRoute(name) {
				return true
			}
		}
	}
	return false
}

// slot returns the place of a cluster, made where it is new. Off the loops, under mu.
func (p *Proxy) slot(name string) *cluster {
	c := p.slots[name]
	if c == nil {
		c = &cluster{name: name}
		p.slots[name] = c
	}
	return c
}

func (p *Proxy) routeSlot(name string) *routeSlot {
	r := p.routes[name]
	if r == nil {
		r = &routeSlot{name: name}
		p.routes[name] = r
	}
	return r
}

// compileScopes builds the key table of scoped routes, of the inline ones and
// those of SRDS.
func (p *Proxy) compileScopes(res *resource.ScopedRoutes) *scopeTable {
	t := &scopeTable{res: res, byKey: map[string]*routeSlot{}, own: map[string]*routeTable{}}
	add := func(r *resource.ScopedRoute) {
		key := scopeKey(r.Key)
		if r.Inline != nil {
			t.own[key] = compileTable(r.Inline, p.slot)
			return
		}
		t.byKey[key] = p.routeSlot(r.RouteConfigName)
	}
	for _, r := range res.Inline {
		add(r)
	}
	if res.FromSRDS {
		for _, r := range p.snapshot.ScopedRoute {
			add(r)
		}
	}
	return t
}

// logOptions are what access logs are compiled with.
func (p *Proxy) logOptions() accesslog.Options {
	return accesslog.Options{Hostname: p.hostname, Runtime: p.runtime.Load(), Remote: p.options.AccessLogRemote}
}

// monotonic asks a loop for its clock, which the maintenance goes by.
func (p *Proxy) monotonic(stop <-chan struct{}) int64 {
	now := make(chan int64, 1)
	w := p.workers[0]
	w.loop.PostOffLoop(func() { now <- w.loop.Now() })
	select {
	case n := <-now:
		return n
	case <-stop:
		return 0
	}
}

func (p *Proxy) environment(name string) string { return os.Getenv(name) }

// AdoptedVersion is the version of the oldest snapshot that any worker still
// runs on: what tests and status wait for.
func (p *Proxy) AdoptedVersion() uint64 {
	oldest := p.version.Load()
	for _, w := range p.workers {
		oldest = min(oldest, w.adopted.Load())
	}
	return oldest
}
