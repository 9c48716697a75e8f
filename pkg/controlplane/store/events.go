// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Types of events.
const (
	EventPut      = "put"
	EventDelete   = "delete"
	EventRejected = "rejected"
	EventRestored = "restored"
	EventHealth   = "health"
	EventWarning  = "warning" // an object is in force, and not all of it, or not as it says

	EventConnected    = "connected"
	EventDisconnected = "disconnected"
	EventRefused      = "refused" // a sidecar refused a resource
	EventLost         = "lost"    // a sidecar could not report all that it had
	EventShared       = "shared"  // several sidecars have one node id
)

// Kinds of events that are no kinds of objects.
const (
	KindInstance = "Instance" // named service/id
	KindFile     = "File"     // of the configuration folder
	KindSidecar  = "Sidecar"  // named by its node id
	KindResource = "Resource" // that could not be built
)

// Event is one thing that happened: to an object, an instance, or a file.
type Event struct {
	Sequence uint64      `json:"sequence"` // grows by one, for the life of the process
	Time     time.Time   `json:"time"`
	Type     string      `json:"type"`
	Kind     string      `json:"kind"`               // of the object; Instance; File
	Name     string      `json:"name"`               // service/id for an instance
	Revision uint64      `json:"revision,omitempty"` // durable revision
	Source   string      `json:"source,omitempty"`   // file that the change came from
	Message  string      `json:"message,omitempty"`
	Services []string    `json:"services,omitempty"` // that an object is about, see mesh.Concerns
	Object   mesh.Object `json:"-"`                  // for watchers; nil for a deletion
	Errors   []string    `json:"errors,omitempty"`

	// Of what a sidecar has reported: the sidecar with its service, its own id of the
	// event, and what the event is about; see docs/events.md.
	Sidecar  string        `json:"sidecar,omitempty"`
	Service  string        `json:"service,omitempty"`
	ID       uint64        `json:"id,omitempty"`
	Cluster  string        `json:"cluster,omitempty"`
	Endpoint string        `json:"endpoint,omitempty"`
	Until    time.Time     `json:"until,omitzero"`
	Numbers  event.Numbers `json:"numbers,omitempty"`
}

// eventLimit bounds the memory of events and how far a watcher may fall behind; so
// many are kept of what happened here, and of what sidecars have reported.
const eventLimit = 2048

// Events are the recent events. Readers go by sequence, so a slow one costs nothing
// and notices that it missed some.
type Events struct {
	mu sync.Mutex
	// Guarded by mu.
	own, reported eventRing     // sidecars cannot push out what watchers of objects wait for
	next          uint64        // sequence of the next event, from 1
	wake          chan struct{} // closed and replaced at each event
}

// eventRing are the last events of one source.
type eventRing struct {
	events  []Event
	at      int    // the oldest, once the ring is full
	evicted uint64 // sequence of the newest that has left
}

func (r *eventRing) add(e Event) {
	if len(r.events) < eventLimit {
		r.events = append(r.events, e)
		return
	}
	r.evicted = r.events[r.at].Sequence
	r.events[r.at] = e
	r.at = (r.at + 1) % eventLimit
}

// after is how many of the ring's events, the oldest first, do not follow a sequence.
func (r *eventRing) after(sequence uint64) int {
	return sort.Search(len(r.events), func(i int) bool { return r.get(i).Sequence > sequence })
}

func (r *eventRing) get(i int) *Event { return &r.events[(r.at+i)%len(r.events)] }

func newEvents() *Events { return &Events{next: 1, wake: make(chan struct{})} }

func (e *Events) add(list ...Event) { e.addTo(&e.own, list) }

func (e *Events) addTo(r *eventRing, list []Event) {
	if len(list) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range list {
		ev.Sequence = e.next
		r.add(ev)
		e.next++
	}
	close(e.wake)
	e.wake = make(chan struct{})
}

// After returns up to limit events that follow a sequence (0 for the oldest
// kept), whether some between were dropped, and a channel that is closed when
// there are more. What sidecars have reported is not among them.
func (e *Events) After(sequence uint64, limit int) (list []Event, missed bool, more <-chan struct{}) {
	return e.after(sequence, limit, func(*Event) bool { return true }, &e.own)
}

// AllAfter is After with what sidecars have reported, of the events that are wanted.
func (e *Events) AllAfter(sequence uint64, limit int, wanted func(*Event) bool) (list []Event, missed bool, more <-chan struct{}) {
	return e.after(sequence, limit, wanted, &e.own, &e.reported)
}

func (e *Events) after(sequence uint64, limit int, wanted func(*Event) bool, rings ...*eventRing) (list []Event, missed bool, more <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range rings {
		missed = missed || sequence != 0 && sequence < r.evicted
		before := len(list)
		for i := r.after(sequence); i < len(r.events) && len(list)-before < limit; i++ {
			if x := r.get(i); wanted(x) {
				list = append(list, *x)
			}
		}
	}
	slices.SortFunc(list, func(a, b Event) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return list[:min(len(list), limit)], missed, e.wake
}

// Report takes events that a sidecar of a service has reported; lost are those that it
// had no more.
func (s *State) Report(node, service string, list []event.Event, lost uint64) {
	out := make([]Event, 0, len(list)+1)
	if lost > 0 {
		out = append(out, Event{
			Time: s.config.Now(), Type: EventLost, Kind: KindSidecar, Name: node, Sidecar: node, Service: service,
			Message: "the sidecar had events no more when it could report them", Numbers: event.Numbers{{Name: "lost", Value: float64(lost)}},
		})
	}
	for i := range list {
		e := &list[i]
		x := Event{
			Time: e.Time, Type: e.Type, Kind: e.Kind, Name: e.Name, Message: e.Message,
			Sidecar: node, Service: service, ID: e.ID, Cluster: e.Cluster, Endpoint: e.Endpoint, Until: e.Until, Numbers: e.Numbers,
		}
		if x.Time.IsZero() {
			x.Time = s.config.Now()
		}
		out = append(out, x)
	}
	s.events.addTo(&s.events.reported, out)
}

// Last is the sequence of the newest event, 0 when there is none.
func (e *Events) Last() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.next - 1
}
