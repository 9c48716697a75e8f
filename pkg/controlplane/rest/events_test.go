// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/event"
)

func TestReportedEventsAreListedAndFiltered(t *testing.T) {
	a := newAPI(t, nil)
	a.want(a.do("PUT", "/v1/objects/Service/orders", svc("orders", 80)), 201)
	a.state.Report("web~1", "web", []event.Event{{ID: 7, Kind: "ejection", Type: "ejected", Cluster: "outbound|orders", Endpoint: "10.0.0.1:80", Numbers: event.Numbers{{Name: "threshold", Value: 5}}}}, 0)
	a.state.Report("orders~1", "orders", []event.Event{{ID: 1, Kind: "drain", Type: "began"}}, 2)
	a.state.Note(store.Event{Type: store.EventRefused, Kind: store.KindSidecar, Name: "web~1", Message: "Cluster x: bad"})
	for query, want := range map[string]string{
		"":                            "1 put, 2 ejected, 3 lost, 4 began, 5 refused",
		"?service=orders":             "1 put, 2 ejected, 3 lost, 4 began",
		"?service=web":                "2 ejected, 5 refused",
		"?sidecar=web~1":              "2 ejected, 5 refused",
		"?kind=Ejection,drain":        "2 ejected, 4 began",
		"?kind=nack":                  "5 refused",
		"?kind=service&after=0":       "1 put",
		"?after=3&limit=1":            "4 began",
		"?service=orders&kind=health": "",
	} {
		r := a.do("GET", "/v1/events"+query, "")
		a.want(r, 200)
		var x struct{ Items []store.Event }
		if err := json.Unmarshal([]byte(r.body), &x); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range x.Items {
			got = append(got, fmt.Sprint(e.Sequence, " ", e.Type))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s: got %s, want %s", query, s, want)
		}
	}
	if r := a.do("GET", "/v1/events?kind=ejection", ""); !strings.Contains(r.body, `"sidecar":"web~1","service":"web","id":7,"cluster":"outbound|orders","endpoint":"10.0.0.1:80","numbers":{"threshold":5}`) {
		t.Error(r.body)
	}
	a.want(a.do("GET", "/v1/events?kind=,", ""), 400)
	a.want(a.do("GET", "/v1/events?kind=health,foo", ""), 400, `no events are of the kind \"foo\", want some of ejection, circuit`)
	a.want(a.do("GET", "/v1/events?kind=svc", ""), 200, `"type":"put"`)

	// A stream resumes, and is of some kinds.
	w := a.watch("/v1/events?watch=true&kind=drain,overload", "Last-Event-ID: 2")
	w.want("began drain/")
	a.state.Report("web~1", "web", []event.Event{{Kind: "health", Type: "failed"}, {Kind: "overload", Type: "began", Name: "x"}}, 0)
	w.want("began overload/x")
	// Those of sidecars push out nothing that a watcher of objects waits for.
	for range 3 {
		a.state.Report("web~1", "web", make([]event.Event, 1000), 0)
	}
	a.watch("/v1/objects?watch=true", "Last-Event-ID: 1")
	if _, missed, _ := a.state.Events().After(1, 10); missed {
		t.Error("events of sidecars have pushed out the control plane's own")
	}
}

// A reader of some kinds keeps pace with all: it is not told that it has missed others.
func TestAStreamOfSomeKindsMissesNoOthers(t *testing.T) {
	a := newAPI(t, nil)
	a.state.Report("web~1", "web", []event.Event{{Kind: "overload", Type: "began"}}, 0)
	looked, sent, done := make(chan struct{}), make(chan string, 8), make(chan error)
	w := httptest.NewRecorder()
	st, err := a.server.openStream(w)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		read := func(after uint64, limit int) ([]store.Event, bool, <-chan struct{}) {
			list, missed, more := a.state.Events().AllAfter(after, limit, func(e *store.Event) bool { return e.Kind == "overload" })
			looked <- struct{}{}
			return list, missed, more
		}
		done <- st.follow(httptest.NewRequestWithContext(ctx, "GET", "/v1/events", nil), 0, read, func(e store.Event) error {
			sent <- e.Type
			return nil
		})
	}()
	look := func() {
		t.Helper()
		select {
		case <-looked:
		case <-done:
			t.Fatalf("the stream ended: %s", w.Body)
		}
	}
	look() // finds the first
	look() // finds no more, and waits
	for range 5 {
		a.state.Report("web~1", "web", make([]event.Event, 1000), 0)
		look()
	}
	a.state.Report("web~1", "web", []event.Event{{Kind: "overload", Type: "ended"}}, 0)
	look() // finds it
	look()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := <-sent + ", " + <-sent; got != "began, ended" {
		t.Errorf("got %s", got)
	}
}

// Whatever comes to be a type stays one line of the stream: what is behind it would be an
// event of whoever wrote it.
func TestATypeCannotAddEventsToAStream(t *testing.T) {
	a := newAPI(t, nil)
	a.state.Report("web~1", "web", []event.Event{
		{Kind: "drain", Type: "x\ndata: {\"kind\":\"ejection\",\"sidecar\":\"payments~1\"}\n\nevent: reset\rdata: {}\r\n\r\nid: 99999\nevent: y\x1b[2J\u009b"},
		{Kind: "drain", Type: "began"},
	}, 0)
	w := a.watch("/v1/events?watch=true")
	for _, want := range []string{
		"id: 1", `event: x?data: {"kind":"ejection","sidecar":"payments~1"}??event: reset?data: {}????id: 99999?event: y?[2J?`, "data: {", "",
		"id: 2", "event: began", "data: {", "",
	} {
		if !w.scan.Scan() {
			t.Fatalf("the stream ended: %v", w.scan.Err())
		}
		if line := w.scan.Text(); line != want && (want != "data: {" || !strings.HasPrefix(line, want)) {
			t.Fatalf("got %q, want %q", line, want)
		}
	}
}
