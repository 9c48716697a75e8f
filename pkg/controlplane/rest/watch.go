// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Types of server-sent events beside the store's own.
const (
	// eventSynced ends the list that a watch begins with.
	eventSynced = "synced"
	// eventReset says that changes were missed: list again.
	eventReset = "reset"
)

const watchBatch = 64

func watching(r *http.Request) bool {
	v, err := strconv.ParseBool(r.URL.Query().Get("watch"))
	return err == nil && v
}

// watchEvent is one server-sent event about an object.
type watchEvent struct {
	Type     string      `json:"type"`
	Kind     string      `json:"kind"`
	Name     string      `json:"name"`
	Revision uint64      `json:"revision,omitempty"`
	Object   *objectView `json:"object,omitempty"`
}

// stream is one open server-sent event stream (HTML standard, section 9.2).
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
	s  *Server
}

func (s *Server) openStream(w http.ResponseWriter) (*stream, error) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	st := &stream{w: w, rc: http.NewResponseController(w), s: s}
	w.WriteHeader(http.StatusOK)
	return st, st.flush()
}

// send writes one event. id is empty for events that cannot be resumed from.
func (st *stream) send(id, event string, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	st.deadline()
	if id != "" {
		if _, err := fmt.Fprintf(st.w, "id: %s\n", id); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(st.w, "event: %s\ndata: %s\n\n", eventName(event), body)
	return err
}

// eventName is a name without what would end its line, or speak to a terminal: types
// that sidecars report are checked where they come in, and here once more, because a
// line too many is an event of whoever wrote it.
func eventName(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// deadline lets a reader that takes nothing for so long lose its stream.
func (st *stream) deadline() {
	_ = st.rc.SetWriteDeadline(st.s.now().Add(requestTimeout)) // without support the server's own limits hold
}

func (st *stream) flush() error {
	st.deadline()
	return st.rc.Flush()
}

// reader reads events after a sequence; *store.Events has two.
type reader func(after uint64, limit int) (list []store.Event, missed bool, more <-chan struct{})

// follow calls each for every event after a sequence until the caller leaves, the
// server stops, or too many events were missed.
func (st *stream) follow(r *http.Request, after uint64, read reader, each func(store.Event) error) error {
	keepalive := time.NewTicker(keepaliveEvery)
	defer keepalive.Stop()
	for {
		last := st.s.state.Events().Last()
		list, missed, more := read(after, watchBatch)
		if missed {
			return errors.Join(st.send("", eventReset, map[string]string{"reason": "changes were missed, list again"}), st.flush())
		}
		for _, e := range list {
			if err := each(e); err != nil {
				return err
			}
			after = e.Sequence
		}
		if len(list) < watchBatch {
			after = max(after, last) // of those before, the reader wants no others
		}
		if len(list) > 0 {
			if err := st.flush(); err != nil {
				return err
			}
			continue
		}
		select {
		case <-more:
		case <-keepalive.C:
			st.deadline()
			if _, err := fmt.Fprint(st.w, ": keep-alive\n\n"); err != nil {
				return err
			}
			if err := st.flush(); err != nil {
				return err
			}
		case <-r.Context().Done():
			return nil
		case <-st.s.stop:
			return nil
		}
	}
}

// watchObjects sends the objects there are, then synced, then each change. A
// reader that comes back with Last-Event-ID gets only what it missed, or reset.
func (s *Server) watchObjects(w http.ResponseWriter, r *http.Request, kind string) {
	resume, err := lastEventID(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	st, err := s.openStream(w)
	if err != nil {
		return // the caller is gone
	}
	after := resume
	if after == 0 || after > s.state.Events().Last() {
		// Taken before the list, so that a change between the two is sent twice and never lost.
		after = s.state.Events().Last()
		m := s.state.Model()
		x := s.reviewer(m)
		for _, o := range sortedObjects(m, kind) {
			if err := st.send("", store.EventPut, s.watched(x, o)); err != nil {
				return
			}
		}
		if err := errors.Join(st.send(strconv.FormatUint(after, 10), eventSynced, map[string]uint64{"modelRevision": m.Revision}), st.flush()); err != nil {
			return
		}
	}
	err = st.follow(r, after, s.state.Events().After, func(e store.Event) error {
		if e.Type != store.EventPut && e.Type != store.EventDelete {
			return nil // of an object, and no change of it
		}
		if _, err := mesh.KindNamed(e.Kind); err != nil || kind != "" && e.Kind != kind {
			return nil
		}
		ev := watchEvent{Type: e.Type, Kind: e.Kind, Name: e.Name, Revision: e.Revision}
		if e.Object != nil {
			v := s.view(s.reviewer(s.state.Model()), e.Object)
			ev.Object = &v
		}
		return st.send(strconv.FormatUint(e.Sequence, 10), e.Type, ev)
	})
	if err != nil {
		s.log.Debug("watch ended", "error", err)
	}
}

func (s *Server) watched(x *mesh.Reviewer, o mesh.Object) watchEvent {
	k, v := o.Key(), s.view(x, o)
	return watchEvent{Type: store.EventPut, Kind: k.Kind, Name: k.Name, Revision: o.Head().Metadata.Revision, Object: &v}
}

func lastEventID(r *http.Request) (uint64, error) {
	v := r.Header.Get("Last-Event-ID")
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, errors.New("Last-Event-ID: not one of this API")
	}
	return n, nil
}
