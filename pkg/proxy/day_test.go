// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// The day: a proxy with settings, clients, upstreams, faults and updates that a seed
// draws, on the virtual clock and network of reactor/sim. Traffic comes in waves with
// quiet times between them. What must hold at any time is looked at after every step
// (dayaudit_test.go), what must hold when all is over at the end of each wave.
//
//	OUTRIGGER_SIM_SEEDS=N   seeds, from OUTRIGGER_SIM_FIRST (0) on
//	OUTRIGGER_SIM_HOURS=H   hours of virtual time for each
//
// A seed that fails is run again by its number: OUTRIGGER_SIM_FIRST=17 OUTRIGGER_SIM_SEEDS=1.
// Days repeat to the byte (dayagain_test.go).

// daySettings is how much of it there is.
type daySettings struct {
	first, seeds int
	length       time.Duration // of virtual time, of each seed
	waves        int           // in each seed
	quiet        time.Duration // most between two waves
}

func settingsOfDay(t *testing.T) daySettings {
	number := func(name string, def int) int {
		v := os.Getenv(name)
		if v == "" {
			return def
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			t.Fatalf("%s=%q: want a number", name, v)
		}
		return n
	}
	s := daySettings{first: number("OUTRIGGER_SIM_FIRST", 0), waves: 2, quiet: 10 * time.Minute}
	def := 700
	if testing.Short() {
		def = 140
	}
	if h := number("OUTRIGGER_SIM_HOURS", 0); h > 0 {
		s.length, s.quiet, def = time.Duration(h)*time.Hour, 4*time.Minute, 1
	}
	s.seeds = number("OUTRIGGER_SIM_SEEDS", def)
	return s
}

func TestADayOfFaultsLosesLeaksAndExceedsNothing(t *testing.T) {
	s := settingsOfDay(t)
	t.Cleanup(func(percent int) func() { return func() { debug.SetGCPercent(percent) } }(debug.SetGCPercent(400)))
	var total daySums
	began := time.Now()
	for seed := range s.seeds {
		seed += s.first
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			d := newDay(t, uint64(seed))
			d.run(s)
			total.add(&d.sums)
			if seed%repeated == 0 && s.length == 0 {
				again(t, uint64(seed), s)
			}
		})
	}
	t.Logf("day: %d seeds, %s", s.seeds, total.String())
	t.Logf("day: %.1f virtual hours for each second of this machine", total.virtual.Hours()/time.Since(began).Seconds())
}

// daySums are what a day was made of.
type daySums struct {
	virtual                                  time.Duration
	requests, answers, cut, records, bad     int
	attempts, served, faults, updates, audit int
	connections, mirrored                    int
	tunnels, wholeTunnels, tcpRecords        int
	ejections, limited, adapted, fromKept    int
	goneAway, shed                           int
}

func (s *daySums) add(o *daySums) {
	s.virtual += o.virtual
	s.requests += o.requests
	s.answers += o.answers
	s.cut += o.cut
	s.records += o.records
	s.bad += o.bad
	s.attempts += o.attempts
	s.served += o.served
	s.faults += o.faults
	s.updates += o.updates
	s.audit += o.audit
	s.connections += o.connections
	s.mirrored += o.mirrored
	s.tunnels += o.tunnels
	s.wholeTunnels += o.wholeTunnels
	s.tcpRecords += o.tcpRecords
	s.ejections += o.ejections
	s.limited += o.limited
	s.adapted += o.adapted
	s.fromKept += o.fromKept
	s.goneAway += o.goneAway
	s.shed += o.shed
}

func (s *daySums) String() string {
	return fmt.Sprintf("%.1f virtual hours, %d connections, %d requests (%d answered, %d cut), %d attempts, %d served upstream, %d tunnels (%d to the end of both sides, %d ends of WebSockets told to go), %d ejections, %d refused by rate limits, %d changes of adaptive limits, %d answers that were kept, %d let go of under pressure, %d faults, %d updates, %d audits",
		s.virtual.Hours(), s.connections, s.requests, s.answers, s.cut, s.attempts, s.served, s.tunnels, s.wholeTunnels, s.goneAway, s.ejections, s.limited, s.adapted, s.fromKept, s.shed, s.faults, s.updates, s.audit)
}

// day is one seed's proxy with all around it.
type day struct {
	t     testing.TB
	seed  uint64
	rng   *rand.Rand
	world *sim.World
	p     *Proxy
	snap  *resource.Snapshot
	plan  dayPlan

	instances []*dayInstance
	at        map[netip.AddrPort]*dayInstance
	places    map[string][]dayPlaces   // by cluster
	spilled   map[string]time.Duration // when priority 0 of a cluster had not all of the load last
	sessions  []daySession
	kept      map[uint64]*dayKept  // by request
	changed   map[string]dayChange // by key
	buckets   []*dayBucket
	adaptives []*dayAdaptive
	clients   map[int]*dayClient         // whose connection is open, by number
	requests  map[uint64]*dayRequest     // not judged yet
	ends      map[string]*dayEnd         // of tunnels, not judged yet, by name
	pipes     map[netip.AddrPort]*dayEnd // those of clients that have a connection of their own
	judged    map[uint64]bool            // that have been since the last settle, and had a record
	lastID    uint64
	traffic   time.Duration // when something came or went last
	hard      dayWeather
	watch     dayWatch
	posted    []string // errors of the proxy's log
	pressure  float64
	heap      []uint64 // in use after a wave, in a long day
	history   []string // of what was done beside requests, the last lines
	lasting   bool     // WebSockets that are made go on until the drain
	calming   bool     // nothing that goes on for ever begins
	traced    bool
	events    []dayEvent
	sums      daySums
}

var dayAddr = reactor.TCPAddr(netip.MustParseAddrPort("10.0.0.1:80"))

func newDay(t testing.TB, seed uint64) *day {
	d := &day{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0x646179)), clients: map[int]*dayClient{}, requests: map[uint64]*dayRequest{}, judged: map[uint64]bool{}, ends: map[string]*dayEnd{}, pipes: map[netip.AddrPort]*dayEnd{}, at: map[netip.AddrPort]*dayInstance{}, kept: map[uint64]*dayKept{}, changed: map[string]dayChange{}, places: map[string][]dayPlaces{}, spilled: map[string]time.Duration{}}
	rng := d.rng
	d.world = sim.New(seed, d.link())
	o := Options{
		Workers: 1 + rng.IntN(3), NewLoop: d.world.NewLoop, Binder: d.world, Seed: seed + 1,
		Go:        func(f func()) { d.world.At(0, f) },
		DrainTime: 5 * time.Second, DrainIdle: 500 * time.Millisecond,
		AccessLogRemote: func(*resource.GRPCLog) (accesslog.Remote, error) { return (*dayLog)(d), nil },
		Log:             slog.New(slog.NewTextHandler(&dayErrors{d: d}, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	for range o.Workers {
		o.Rings = append(o.Rings, record.NewRing(512, 128<<10))
	}
	d.drawPlan(&o)
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d.p = p
	d.apply()
	d.maintain()
	return d
}

// link draws how bytes travel.
func (d *day) link() sim.Link {
	rng := d.rng
	return sim.Link{
		Latency: time.Duration(rng.IntN(3000)) * time.Microsecond, Jitter: time.Duration(rng.IntN(3)) * time.Millisecond,
		MaxSegment: []int{0, 0, 1400, 97}[rng.IntN(4)], Window: []int{0, 0, 16 << 10, 2048}[rng.IntN(4)], ShortWrites: float64(rng.IntN(3)) / 8,
	}
}

// maintain is what Run does beside the loops, by the virtual clock. Nobody waits for it
// while nothing moves: then it is done less often.
func (d *day) maintain() {
	d.look()
	d.watch.ejections(d, func() { d.p.tick(int64(d.world.Now())) })
	d.look()
	d.drainRecords()
	every := maintainEvery
	if d.world.Now()-d.traffic > 3*time.Second {
		every = time.Second
	}
	d.world.At(every, d.maintain)
}

func (d *day) drainRecords() {
	for _, w := range d.p.workers {
		w.ring.Drain(1 << 20)
	}
}

// apply puts the settings into service.
func (d *day) apply() {
	d.snap.Version++
	d.sums.updates++
	d.watch.prepare(d)
	d.look()
	if err := d.p.Apply(frozen(d.snap)); err != nil {
		d.fail("apply: %v", err)
	}
	d.watch.clusters(d)
	d.remember()
	d.look()
}

// fail reports what must not be, with the time.
func (d *day) fail(format string, args ...any) {
	d.t.Helper()
	d.t.Fatalf("at %v: %s\nbefore:\n%s", d.world.Now(), fmt.Sprintf(format, args...), strings.Join(d.history, "\n"))
}

// note keeps a line for fail.
func (d *day) note(format string, args ...any) {
	if len(d.history) == 20 {
		d.history = append(d.history[:0], d.history[1:]...)
	}
	d.history = append(d.history, fmt.Sprintf("%v ", d.world.Now())+fmt.Sprintf(format, args...))
}

// pass lets time go by, with a look after each step.
func (d *day) pass(t time.Duration) {
	until := d.world.Now() + t
	if err := d.world.RunUntil(t+time.Millisecond, func() bool { d.watch.step(d); return d.world.Now() >= until }); err != nil {
		d.fail("%v", err)
	}
}

// until waits for something that must come.
func (d *day) until(what string, most time.Duration, done func() bool, left func() string) {
	if err := d.world.RunUntil(most, func() bool { d.watch.step(d); return done() }); err != nil {
		d.fail("%s: %v: %s", what, err, left())
	}
}

func (d *day) run(s daySettings) {
	for wave := 0; ; wave++ {
		if s.length > 0 && d.world.Now() >= s.length || s.length == 0 && wave >= s.waves {
			break
		}
		d.wave()
		d.rest()
		d.between(s.quiet)
		if s.length > 0 && wave%20 == 0 {
			d.weigh()
		}
	}
	d.end()
	d.sums.virtual = d.world.Now()
}

// wave is some seconds of traffic.
func (d *day) wave() {
	rng := d.rng
	d.hard, d.calming = drawWeather(rng), false
	length := time.Duration(200+rng.IntN(3000)) * time.Millisecond
	for range 2 + rng.IntN(10) {
		d.world.At(time.Duration(rng.Int64N(int64(length))), d.connect)
	}
	if len(d.plan.tcp.clusters) > 0 {
		for range rng.IntN(10) {
			d.world.At(time.Duration(rng.Int64N(int64(length))), d.connectTCP)
		}
	}
	if d.plan.upgrades {
		for range rng.IntN(8) {
			d.world.At(time.Duration(rng.Int64N(int64(length))), d.connectAsker)
		}
	}
	for range rng.IntN(8) {
		d.world.At(time.Duration(rng.Int64N(int64(length))), d.disturb)
	}
	d.pass(length)
}

// rest waits until everybody has an answer, or knows that there is none.
func (d *day) rest() {
	d.calm()
	d.until("the end of a wave", 15*time.Minute, func() bool {
		for _, r := range d.requests {
			if r.end == 0 {
				return false
			}
		}
		return d.active() == 0 && d.tunnelsActive() == 0 && len(d.endsOpen()) == 0
	}, func() string {
		var b strings.Builder
		for _, r := range d.requests {
			if r.end == 0 {
				fmt.Fprintf(&b, "\n%s", r)
			}
		}
		for _, e := range d.endsOpen() {
			fmt.Fprintf(&b, "\n%s", e)
		}
		fmt.Fprintf(&b, "\n%d active, %d tunnels", d.active(), d.tunnelsActive())
		return b.String()
	})
	d.drainRecords()
	d.audit()
	d.judge()
	d.judgeEnds()
}

// between is the time without traffic.
func (d *day) between(most time.Duration) {
	rng := d.rng
	if rng.IntN(3) > 0 {
		d.pass(time.Duration(rng.Int64N(int64(most))))
		d.audit()
	}
	if rng.IntN(3) == 0 {
		d.settle()
	}
}

// settle waits for longer than anything may stay, and looks for what does.
func (d *day) settle() {
	d.pass(d.plan.longest() + 4*trimEvery)
	d.drainRecords()
	d.audit()
	d.nothingLeft()
	clear(d.judged)
}

// end drains the proxy with some traffic, and ends it.
func (d *day) end() {
	rng := d.rng
	for range 3 {
		d.connect()
		if len(d.plan.tcp.clusters) > 0 {
			d.connectTCP()
		}
	}
	if d.lasting = d.plan.upgrades && maybe(rng, 2, 3); d.lasting {
		for range 4 {
			d.connectAsker()
		}
	}
	d.pass(time.Duration(rng.IntN(200)) * time.Millisecond)
	d.lasting = false
	list := d.p.startDrain(DrainAll)
	for range 2 {
		d.connect()
	}
	d.rest()
	d.until("the drain", time.Minute, func() bool { return activeOn(list) == 0 }, func() string {
		return fmt.Sprintf("%d connections", activeOn(list))
	})
	d.rest()
	d.settle()
	for _, l := range list {
		d.p.detach(l)
	}
	for _, w := range d.p.workers {
		w.loop.StopOffLoop()
	}
	if err := d.world.Run(time.Second); err != nil {
		d.fail("%v", err)
	}
	d.p.releaseListeners()
	for _, c := range inOrder(d.clients) {
		c.p.Close()
	}
	if n := d.world.OpenFDs(); n != 0 {
		d.fail("%d descriptors are open in the end", n)
	}
}

// weigh looks at the heap of a long day: what grows does so wave by wave.
func (d *day) weigh() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	d.heap = append(d.heap, m.HeapAlloc)
	const slack = 8 << 20
	if n := len(d.heap); n > 2 && d.heap[n-1] > max(d.heap[0], d.heap[1])+slack {
		d.fail("the heap has grown: %d", d.heap)
	}
}

// active is the number of exchanges that have not ended.
func (d *day) active() (n uint64) {
	for _, m := range d.p.managers {
		for i := range m.on {
			n += m.on[i].rqActive
		}
	}
	return n
}

// tunnelsActive is the number of connections of TCP proxies that have not ended.
func (d *day) tunnelsActive() (n uint64) {
	for _, w := range d.p.workers {
		n += w.stats.tcpActive
	}
	return n
}

// dayErrors takes what the proxy logs as an error.
type dayErrors struct{ d *day }

func (e *dayErrors) Write(b []byte) (int, error) {
	e.d.posted = append(e.d.posted, string(bytes.TrimSpace(b)))
	return len(b), nil
}

// dayLog is the access log.
type dayLog day

// Log implements accesslog.Remote.
func (l *dayLog) Log(r *record.Record, _ accesslog.Values) {
	d := (*day)(l)
	d.traceRecord(r)
	if r.Kind != record.HTTPExchange {
		d.loggedTCP(r)
		return
	}
	d.sums.records++
	d.sums.attempts += int(r.Attempts)
	path, _ := r.Capture(record.CapturePath)
	agent, _ := r.Capture(record.CaptureUserAgent)
	number := idOfRecord(path, agent)
	e := d.ends["<"+strconv.FormatUint(number, 10)+">"]
	if e == nil && len(path) == 0 {
		e = d.pipes[r.Remote]
	}
	if e != nil {
		e.logged(r)
		return
	}
	q := d.requests[number]
	if q == nil { // no request at all, or one whose client has gone while it was on its way
		if id := number; len(path) > 0 && (id == 0 || id > d.lastID || d.judged[id]) {
			d.fail("a record of a request that nobody has sent, or the second one: %q", path)
		} else if id != 0 {
			d.judged[id] = true
		}
		d.sums.bad++
		return
	}
	q.logged(r)
}

// idOf is the number of a request in its path, 0: none.
func idOf(path []byte) uint64 {
	i := bytes.LastIndexByte(path, '/')
	n, _ := strconv.ParseUint(string(path[i+1:]), 10, 64)
	return n
}
