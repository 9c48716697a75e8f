// SPDX-License-Identifier: Apache-2.0

package store

import (
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Types of events.
const (
	EventPut      = "put"
	EventDelete   = "delete"
	EventRejected = "rejected"
	EventRestored = "restored"
	EventHealth   = "health"

	EventConnected    = "connected"
	EventDisconnected = "disconnected"
	EventRefused      = "refused" // a sidecar refused a resource
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
	Object   mesh.Object `json:"-"` // for watchers; nil for a deletion
	Errors   []string    `json:"errors,omitempty"`
}

// eventLimit bounds the memory of events and how far a watcher may fall behind.
const eventLimit = 2048

// Events is the ring of recent events. Readers go by sequence, so a slow one
// costs nothing and notices that it missed some.
type Events struct {
	mu sync.Mutex
	// Guarded by mu.
	ring [eventLimit]Event
	next uint64        // sequence of the next event, from 1
	wake chan struct{} // closed and replaced at each event
}

func newEvents() *Events { return &Events{next: 1, wake: make(chan struct{})} }

func (e *Events) add(list ...Event) {
	if len(list) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range list {
		ev.Sequence = e.next
		e.ring[e.next%eventLimit] = ev
		e.next++
	}
	close(e.wake)
	e.wake = make(chan struct{})
}

// After returns up to limit events that follow a sequence (0 for the oldest
// kept), whether some between were dropped, and a channel that is closed when
// there are more.
func (e *Events) After(sequence uint64, limit int) (list []Event, missed bool, more <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := uint64(1)
	if e.next > eventLimit {
		first = e.next - eventLimit
	}
	from := max(sequence+1, first)
	missed = sequence+1 < first && sequence != 0
	for s := from; s < e.next && len(list) < limit; s++ {
		list = append(list, e.ring[s%eventLimit])
	}
	return list, missed, e.wake
}

// Last is the sequence of the newest event, 0 when there is none.
func (e *Events) Last() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.next - 1
}
