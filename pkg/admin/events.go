// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/event"
)

// Bounds of /events.
const (
	maxEventReaders = 16 // streams at a time
	eventBatch      = 256
	// A reader that takes nothing for so long loses its stream.
	eventWriteTimeout = 10 * time.Second
	eventKeepAlive    = 15 * time.Second
)

var eventParams = []param{
	{"since", "only events behind this id"},
	{"kind", "only these kinds, comma separated: " + strings.Join(event.Kinds[:], ", ")},
}

// runEvents answers what is kept as an array, or streams it with what follows to those
// who accept text/event-stream.
func runEvents(s *Server, r *request) {
	if !r.only("since", "kind") {
		return
	}
	since, filter, err := eventQuery(r)
	if err != nil {
		r.fail(http.StatusBadRequest, err.Error())
		return
	}
	if !strings.Contains(r.Request.Header.Get("Accept"), "text/event-stream") {
		_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(responseTimeout))
		list, _, _ := s.config.Events.After(since, filter, len(event.Kinds)*event.DefaultPerKind)
		if list == nil {
			list = []event.Event{}
		}
		r.json(list)
		return
	}
	defer s.eventReaders.Add(-1)
	if s.eventReaders.Add(1) > maxEventReaders {
		r.fail(http.StatusServiceUnavailable, fmt.Sprintf("%d readers of events are connected, that is the limit", maxEventReaders))
		return
	}
	s.streamEvents(r, since, filter)
}

// eventQuery reads where to begin, and what is wanted.
func eventQuery(r *request) (since uint64, f event.Filter, err error) {
	from, name := r.query.Get("since"), "since"
	if id := r.Request.Header.Get("Last-Event-ID"); id != "" {
		from, name = id, "Last-Event-ID"
	}
	if from != "" {
		if since, err = strconv.ParseUint(from, 10, 64); err != nil {
			return 0, f, fmt.Errorf("%s: want the id of an event, got %.40q", name, from)
		}
	}
	for _, list := range r.query["kind"] {
		for k := range strings.SplitSeq(list, ",") {
			if k = strings.ToLower(strings.TrimSpace(k)); !slices.Contains(event.Kinds[:], k) {
				return 0, f, fmt.Errorf("kind: want some of %s, got %.40q", strings.Join(event.Kinds[:], ", "), k)
			}
			f.Kinds = append(f.Kinds, k)
		}
	}
	return since, f, nil
}

// streamEvents goes on until the reader leaves, or the server ends. Nothing is kept for
// the reader: it has what the ring still has when it comes for it.
func (s *Server) streamEvents(r *request, since uint64, f event.Filter) {
	h := r.ResponseWriter.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(r.ResponseWriter)
	send := func(b []byte) bool {
		_ = control.SetWriteDeadline(time.Now().Add(eventWriteTimeout))
		if _, err := r.ResponseWriter.Write(b); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	if !send([]byte(event.KeepAlive)) { // the head goes out before there is an event
		return
	}
	alive := time.NewTicker(eventKeepAlive)
	defer alive.Stop()
	var frames []byte
	for {
		list, missed, more := s.config.Events.After(since, f, eventBatch)
		frames = frames[:0]
		if missed {
			frames = event.AppendFrame(frames, event.Frame{Type: event.Missed, Data: "{}"})
		}
		for i := range list {
			data, err := json.Marshal(&list[i])
			if err != nil {
				return // no field of an event can fail
			}
			since = list[i].ID
			frames = event.AppendFrame(frames, event.Frame{ID: since, Type: list[i].Kind, Data: string(data)})
		}
		if len(frames) > 0 {
			if !send(frames) {
				return
			}
			continue
		}
		select {
		case <-more:
		case <-alive.C:
			if !send([]byte(event.KeepAlive)) {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		}
	}
}
