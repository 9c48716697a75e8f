// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// eventStream reports whether the caller wants events as they come.
func eventStream(r *http.Request) bool {
	return watching(r) || strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// eventFilter says which events are wanted.
type eventFilter struct {
	service, sidecar string
	kinds            []string
}

func (f *eventFilter) wants(e *store.Event) bool {
	return (len(f.kinds) == 0 || slices.ContainsFunc(f.kinds, func(k string) bool { return ofKind(e, k) })) &&
		(f.sidecar == "" || e.Sidecar == f.sidecar || e.Kind == store.KindSidecar && e.Name == f.sidecar) &&
		(f.service == "" || aboutService(e, f.service))
}

// ofKind reports whether an event is of a kind, however that is spelt. The control plane
// hears of a refusal by xDS, and its event is of the sidecar.
func ofKind(e *store.Event, kind string) bool {
	return strings.EqualFold(e.Kind, kind) || strings.EqualFold(kind, "nack") && e.Kind == store.KindSidecar && e.Type == store.EventRefused
}

// aboutService reports whether an event was reported by a sidecar of the service, or is
// about the service, its instances, sidecars or clusters, or an object that names it.
func aboutService(e *store.Event, service string) bool {
	if e.Service == service || slices.Contains(e.Services, service) {
		return true
	}
	if _, of, ok := strings.Cut(e.Cluster, "|"); ok && of == service {
		return true
	}
	switch e.Kind {
	case store.KindResource: // such as outbound|SERVICE, and those of its sidecars
		return slices.Contains(strings.Split(e.Name, "|"), service)
	case store.KindInstance:
		of, _, _ := strings.Cut(e.Name, "/")
		return of == service
	case store.KindSidecar:
		of, _, _ := strings.Cut(e.Name, "~")
		return of == service
	}
	return false
}

// eventQuery reads the parameters of /v1/events.
func eventQuery(r *http.Request) (f eventFilter, after uint64, err error) {
	q := r.URL.Query()
	f.service, f.sidecar = q.Get("service"), q.Get("sidecar")
	for _, list := range q["kind"] {
		for k := range strings.SplitSeq(list, ",") {
			if k = strings.TrimSpace(k); k == "" || len(k) > maxSenderBytes || len(f.kinds) >= maxEventKinds {
				return f, 0, errors.New("kind: want kinds, comma separated, such as ejection,circuit")
			}
			if k, err = EventKind(k); err != nil {
				return f, 0, fmt.Errorf("kind: %w", err)
			}
			f.kinds = append(f.kinds, k)
		}
	}
	if v := q.Get("after"); v != "" {
		if after, err = strconv.ParseUint(v, 10, 64); err != nil {
			return f, 0, errors.New("after: want the sequence of an event")
		}
	}
	return f, after, nil
}

const maxEventKinds = 32

// EventKinds are the kinds of events: those that sidecars report, the control plane's own,
// and the kinds of objects.
func EventKinds() []string {
	out := append([]string(nil), event.Kinds[:]...)
	for _, k := range []string{store.KindInstance, store.KindSidecar, store.KindFile, store.KindResource} {
		out = append(out, strings.ToLower(k))
	}
	for _, k := range mesh.Kinds() {
		out = append(out, strings.ToLower(k.Name))
	}
	return out
}

// EventKind is a kind of events as events have it, in any case; the plurals and short names
// of objects are known too. The error names all kinds.
func EventKind(name string) (string, error) {
	all := EventKinds()
	if slices.ContainsFunc(all, func(k string) bool { return strings.EqualFold(k, name) }) {
		return name, nil
	}
	if k, err := mesh.KindNamed(name); err == nil {
		return k.Name, nil
	}
	hint := ""
	if near := mesh.Nearest(strings.ToLower(name), all); near != "" {
		hint = "; did you mean " + near + "?"
	}
	return "", fmt.Errorf("no events are of the kind %q, want some of %s%s", clip(name), strings.Join(all, ", "), hint)
}

// listEvents answers recent events, or streams them with watch=true or to those who
// accept text/event-stream.
func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) {
	_, limit, err := paging(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	f, after, err := eventQuery(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	events := s.state.Events()
	if !eventStream(r) {
		list, missed, _ := events.AllAfter(after, limit, f.wants)
		if list == nil {
			list = []store.Event{}
		}
		s.answer(w, http.StatusOK, map[string]any{"items": list, "missed": missed, "last": events.Last()})
		return
	}
	if id, err := lastEventID(r); err != nil {
		s.badRequest(w, r, err.Error())
		return
	} else if id != 0 {
		after = id
	}
	if after > events.Last() {
		after = 0 // of a control plane before
	}
	st, err := s.openStream(w)
	if err != nil {
		return // the caller is gone
	}
	read := func(after uint64, limit int) ([]store.Event, bool, <-chan struct{}) {
		return events.AllAfter(after, limit, f.wants)
	}
	err = st.follow(r, after, read, func(e store.Event) error {
		return st.send(strconv.FormatUint(e.Sequence, 10), e.Type, e)
	})
	if err != nil {
		s.log.Debug("watch ended", "error", err)
	}
}
