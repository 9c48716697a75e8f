// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/event"
)

// memoryEvents keeps what is reported.
type memoryEvents struct {
	mu   sync.Mutex
	list []string
	lost uint64
}

func (m *memoryEvents) Report(node, service string, list []event.Event, lost uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range list {
		m.list = append(m.list, fmt.Sprintf("%s %s %d %s %s", node, service, e.ID, e.Kind, e.Message))
	}
	m.lost += lost
}

func (m *memoryEvents) reported() (string, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.list, ", "), m.lost
}

func TestEventsAreReportedAndWhatWasLostIsCounted(t *testing.T) {
	cp := startControlPlane(t)
	log := event.NewLog(2, nil)
	for i := range 5 { // three of them are gone before there is an agent
		log.Add(event.Event{Kind: event.KindCircuit, Type: event.Opened, Message: fmt.Sprint(i)})
	}
	c := uploading(cp)
	c.Service, c.Events = "web", log
	a := running(t, c)
	flush(t, a)
	log.Add(event.Event{Kind: event.KindNACK, Type: event.Refused, Message: "known by xDS"})
	log.Add(event.Event{Kind: event.KindDrain, Type: event.Began, Message: "x"})
	flush(t, a)
	got, lost := cp.events.reported()
	if want := fmt.Sprintf("%[1]s web 4 circuit 3, %[1]s web 5 circuit 4, %[1]s web 7 drain x", c.Node); got != want || lost != 3 {
		t.Errorf("got %s, lost %d; want %s, lost 3", got, lost, want)
	}
	for _, u := range a.Status().Uploads {
		if u.Name != "events" || u.AckedRecords != 3 || u.Lost != 3 {
			t.Errorf("%+v", u)
		}
	}
}

func TestEjectedEndpointsAreReportedWhileThereAreAny(t *testing.T) {
	cp := startControlPlane(t)
	c := uploading(cp)
	var mu sync.Mutex
	now := []agent.Ejected{{Cluster: "outbound|orders", Endpoint: "10.0.0.1:80", Detector: "SUCCESS_RATE", Ejections: 2, Since: time.Unix(5, 0), Until: time.Unix(6, 0)}}
	c.Ejected = func() []agent.Ejected {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	running(t, c)
	eventually(t, "the control plane knows", func() bool { return len(cp.service.Ejected()) == 1 })
	if x := cp.service.Ejected()[0]; x.Node != c.Node || x.Cluster != "outbound|orders" || x.Endpoint != "10.0.0.1:80" || x.Detector != "SUCCESS_RATE" || x.Ejections != 2 || !x.Since.Equal(time.Unix(5, 0)) || !x.Until.Equal(time.Unix(6, 0)) {
		t.Errorf("%+v", x)
	}
	mu.Lock()
	now = nil
	mu.Unlock()
	eventually(t, "the control plane knows of the return", func() bool { return len(cp.service.Ejected()) == 0 })
}
