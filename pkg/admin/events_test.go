// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/event"
)

func eventPort(t *testing.T) (*port, *event.Log) {
	log := event.NewLog(4, nil)
	return open(t, func(c *Config) { c.Events = log }), log
}

// stream opens a stream of events.
func (p *port) stream(query, lastID string) *http.Response {
	p.t.Helper()
	q, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.s.Addr()+"/events"+query, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	q.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		q.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := p.client.Do(q)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

var errEnough = errors.New("enough")

// frames reads so many of a stream, as "id type".
func frames(t *testing.T, resp *http.Response, n int) string {
	t.Helper()
	var got []string
	err := event.ReadFrames(resp.Body, func(f event.Frame) error {
		got = append(got, fmt.Sprint(f.ID, " ", f.Type))
		if len(got) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("after %v: %v", got, err)
	}
	return strings.Join(got, ", ")
}

func TestEventsAreListed(t *testing.T) {
	p, log := eventPort(t)
	if code, body := p.get("/events"); code != 200 || strings.TrimSpace(body) != "[]" {
		t.Errorf("before there are any: %d %s", code, body)
	}
	log.Add(event.Event{Kind: event.KindEjection, Type: event.Ejected, Cluster: "c", Numbers: event.Numbers{{Name: "threshold", Value: 5}}})
	log.Add(event.Event{Kind: event.KindCircuit, Type: event.Opened, Cluster: "d"})
	for query, want := range map[string]string{
		"": "1 2", "?since=1": "2", "?kind=ejection": "1", "?kind=Circuit,panic": "2", "?kind=ejection&kind=circuit&since=0": "1 2", "?since=2": "",
	} {
		code, body := p.get("/events" + query)
		var list []event.Event
		if err := json.Unmarshal([]byte(body), &list); code != 200 || err != nil {
			t.Fatalf("%s: %d %v %s", query, code, err, body)
		}
		var got []string
		for _, e := range list {
			got = append(got, fmt.Sprint(e.ID))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", query, s, want)
		}
	}
	for query, want := range map[string]string{
		"?since=x": "since: want the id of an event", "?kind=ejektion": "kind: want some of ejection, circuit", "?kinds=circuit": "unknown parameter",
	} {
		if code, body := p.get("/events" + query); code != 400 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", query, code, body)
		}
	}
}

func TestEventsAreStreamed(t *testing.T) {
	p, log := eventPort(t)
	log.Add(event.Event{Kind: event.KindCircuit})
	resp := p.stream("", "")
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	log.Add(event.Event{Kind: event.KindDrain})
	if got, want := frames(t, resp, 2), "1 circuit, 2 drain"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	log.Add(event.Event{Kind: event.KindNACK})
	if got, want := frames(t, p.stream("?kind=drain,nack", "1"), 2), "2 drain, 3 nack"; got != want {
		t.Errorf("resumed: got %s, want %s", got, want)
	}
	for range 10 {
		log.Add(event.Event{Kind: event.KindDrain})
	}
	if got, want := frames(t, p.stream("?kind=drain", "2"), 3), "0 missed, 10 drain, 11 drain"; got != want {
		t.Errorf("who fell behind: got %s, want %s", got, want)
	}
}

func TestReadersOfEventsAreBounded(t *testing.T) {
	p, _ := eventPort(t)
	for range maxEventReaders {
		if resp := p.stream("", ""); resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
	}
	resp := p.stream("", "")
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 503 || !strings.Contains(string(body), "that is the limit") {
		t.Errorf("one more: %s %s", resp.Status, body)
	}
	if code, _ := p.get("/events"); code != 200 {
		t.Errorf("the list: %d", code)
	}
}

func TestStreamsOfEventsEndWithTheServer(t *testing.T) {
	p, _ := eventPort(t)
	resp := p.stream("", "")
	if err := p.s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the stream did not end: %v", err)
	}
}

func (p *port) get(path string) (int, string) {
	p.t.Helper()
	resp, body := p.do(http.MethodGet, path)
	return resp.StatusCode, body
}
