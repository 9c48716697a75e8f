// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// Link is how bytes travel. The zero Link delivers in the next instant, whole.
type Link struct {
	// Latency of one way, and the most that is added to it at random.
	Latency, Jitter time.Duration
	// MaxSegment bounds the random size of the pieces that bytes arrive in; 0
	// is no fragmentation.
	MaxSegment int
	// Window is how many bytes may be under way or unread in one direction,
	// 64 KiB when 0.
	Window int
	// ShortWrites is the chance, 0 to 1, that a write takes less than there is room for.
	ShortWrites float64
}

// spinLimit is how often loops may tick without time passing before a run is
// taken to hang.
const spinLimit = 100_000

// ErrSpinning: loops keep ticking with nothing new to do.
var ErrSpinning = errors.New("sim: loops spin while no time passes")

// ErrTimeLimit: what RunUntil waited for did not come.
var ErrTimeLimit = errors.New("sim: time limit reached")

// World is a virtual machine with its network and clock.
type World struct {
	// OnEvent is called with all that Digest is of, at the time it happens: bytes that are
	// written (w), arrive (a) and are read (r), resets that arrive (x), closes (c). It may
	// be nil.
	OnEvent func(what byte, fd, n int)

	link     Link
	now      int64 // ns since the start
	jumped   int64 // ns that the wall clock was set ahead
	stalled  int64 // until when no loop runs
	rng      *rand.Rand
	queue    eventQueue
	sequence uint64
	machines []*machine
	files    []any // by descriptor: *endpoint or *listener
	open     int
	limit    int
	ticks    uint64 // of all loops
	ports    uint16
	servers  map[string]*binding
	holes    map[string]bool
	original func(local, remote netip.AddrPort) netip.AddrPort
	diverted map[netip.AddrPort]netip.AddrPort
	digest   uint64
}

// New returns a world without loops; with the same seed and the same use, it behaves the same.
func New(seed uint64, link Link) *World {
	if link.Window <= 0 {
		link.Window = 64 << 10
	}
	return &World{
		link: link, rng: rand.New(rand.NewPCG(seed, 0x6f757472)), limit: 1 << 20, ports: 32768,
		files: make([]any, 3), servers: map[string]*binding{}, holes: map[string]bool{},
	}
}

// NewLoop makes a loop of this world; c.System is set by it.
func (w *World) NewLoop(c reactor.Config) (*reactor.Loop, error) {
	m := &machine{world: w}
	c.System = m
	l, err := reactor.NewLoop(c)
	if err != nil {
		return nil, err
	}
	m.loop = l
	w.machines = append(w.machines, m)
	return l, nil
}

// Ticks returns how often loops have run: while it stays the same, nothing on them has changed.
func (w *World) Ticks() uint64 { return w.ticks }

// Now returns the time since the world began.
func (w *World) Now() time.Duration { return time.Duration(w.now) }

// SetWall sets the wall clock ahead, or back with a negative d. The time of Now goes on.
func (w *World) SetWall(d time.Duration) { w.jumped += int64(d) }

// Stall has all loops stand still for d, as in a process that is stopped.
func (w *World) Stall(d time.Duration) {
	w.stalled = max(w.stalled, w.now+int64(d))
	w.at(w.stalled, func() {}) // they go on then
}

// Work lets d pass inside a callback: what it computes takes that long. What was due
// meanwhile comes after it.
func (w *World) Work(d time.Duration) { w.now += int64(d) }

// SetLink changes how bytes travel that are sent from now on.
func (w *World) SetLink(link Link) {
	if link.Window <= 0 {
		link.Window = 64 << 10
	}
	w.link = link
}

// SetFDLimit bounds the open descriptors of the loops and peers together.
func (w *World) SetFDLimit(n int) { w.limit = n }

// OpenFDs returns how many descriptors are open.
func (w *World) OpenFDs() int { return w.open }

// Redirect sets what loops are told when they ask where an accepted connection was
// going before it was redirected to them.
func (w *World) Redirect(original func(local, remote netip.AddrPort) netip.AddrPort) {
	w.original = original
}

// Divert has connections to addr arrive at another listener, which learns by OriginalDst
// where they were going, as a rule of the kernel does.
func (w *World) Divert(addr, at netip.AddrPort) {
	if w.diverted == nil {
		w.diverted = map[netip.AddrPort]netip.AddrPort{}
	}
	w.diverted[addr] = at
}

// Blackhole has connects to addr neither succeed nor fail, or ends that.
func (w *World) Blackhole(addr reactor.Addr, swallow bool) { w.holes[addr.String()] = swallow }

// Digest is a hash of all that happened on the network so far.
func (w *World) Digest() uint64 { return w.digest }

// At calls f after d.
func (w *World) At(d time.Duration, f func()) { w.at(w.now+int64(d), f) }

// Run lets d pass.
func (w *World) Run(d time.Duration) error {
	until := w.now + int64(d)
	err := w.run(until, func() bool { return false })
	if errors.Is(err, ErrTimeLimit) {
		return nil
	}
	return err
}

// RunUntil lets time pass until done returns true, which is asked after each
// step, or limit has passed, which is an error.
func (w *World) RunUntil(limit time.Duration, done func() bool) error {
	return w.run(w.now+int64(limit), done)
}

func (w *World) run(until int64, done func() bool) error {
	spins := 0
	for !done() {
		if w.tickLoops() {
			if spins++; spins > spinLimit {
				return fmt.Errorf("%w at %v", ErrSpinning, w.Now())
			}
			continue
		}
		next := until
		for _, m := range w.machines {
			next = min(next, m.due())
		}
		if len(w.queue) > 0 && w.queue[0].at <= next {
			e := heap.Pop(&w.queue).(event)
			if e.at > w.now {
				w.now, spins = e.at, 0
			}
			e.f()
			continue
		}
		if next >= until {
			w.now = max(until, w.now)
			w.tickLoops()
			if done() {
				return nil
			}
			return fmt.Errorf("%w at %v", ErrTimeLimit, w.Now())
		}
		w.now, spins = max(next, w.now), 0
	}
	return nil
}

// tickLoops runs each loop that has something to do once, in a random order,
// and reports whether there was one.
func (w *World) tickLoops() (ran bool) {
	for _, i := range w.rng.Perm(len(w.machines)) {
		m := w.machines[i]
		if !m.runnable() {
			continue
		}
		ran = true
		w.ticks++
		m.woken.Store(false)
		if !m.loop.Tick(-1) {
			m.stopped = true
		}
	}
	return ran
}

func (w *World) at(when int64, f func()) {
	w.sequence++
	heap.Push(&w.queue, event{at: max(when, w.now), sequence: w.sequence, f: f})
}

// delay is one way over the network.
func (w *World) delay() int64 {
	d := int64(w.link.Latency)
	if w.link.Jitter > 0 {
		d += w.rng.Int64N(int64(w.link.Jitter))
	}
	return d
}

// note adds to the digest (FNV-1a over words).
func (w *World) note(what byte, fd, n int) {
	if w.OnEvent != nil {
		w.OnEvent(what, fd, n)
	}
	for _, v := range [...]uint64{uint64(w.now), uint64(what), uint64(fd), uint64(n)} {
		w.digest = (w.digest ^ v) * 0x100000001b3
	}
}

// install gives f the lowest free descriptor, as the kernel does; -1 when there are too many.
func (w *World) install(f any) int {
	if w.open >= w.limit {
		return -1
	}
	w.open++
	for fd := 3; fd < len(w.files); fd++ {
		if w.files[fd] == nil {
			w.files[fd] = f
			return fd
		}
	}
	w.files = append(w.files, f)
	return len(w.files) - 1
}

func (w *World) uninstall(fd int) {
	w.files[fd] = nil
	w.open--
}

type event struct {
	at       int64
	sequence uint64
	f        func()
}

// eventQueue is a heap by time, then by the order of insertion.
type eventQueue []event

func (q eventQueue) Len() int      { return len(q) }
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].sequence < q[j].sequence
}
func (q *eventQueue) Push(x any) { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return e
}
