// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"pgregory.net/rapid"

	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// model is a delta client that does what the protocol says and no more, and
// what it should have in the end.
type model struct {
	f     *fixture
	rt    *rapid.T
	group string
	st    discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	in    chan *discoveryv3.DeltaDiscoveryResponse

	published map[string]string // name → version
	has       map[string]string // what the client holds
	wildcard  bool
	names     map[string]bool
	serial    int
}

var palette = []string{"a", "b", "c", "d", "e", "f"}

func (m *model) publish() {
	name := rapid.SampledFrom(palette).Draw(m.rt, "publish")
	m.serial++
	r := m.f.cluster(name, m.serial)
	m.f.xds.Publish(m.group, changed(server.TypeCluster, r))
	m.published[name] = r.Version()
}

func (m *model) remove() {
	name := rapid.SampledFrom(palette).Draw(m.rt, "remove")
	m.f.xds.Publish(m.group, server.Update{Type: server.TypeCluster, Removed: []string{name}})
	delete(m.published, name)
}

func (m *model) replaceAll() {
	names := rapid.SliceOfDistinct(rapid.SampledFrom(palette), rapid.ID[string]).Draw(m.rt, "all")
	u := server.Update{Type: server.TypeCluster, Full: true}
	clear(m.published)
	for _, name := range names {
		m.serial++
		r := m.f.cluster(name, m.serial)
		u.Changed = append(u.Changed, r)
		m.published[name] = r.Version()
	}
	m.f.xds.Publish(m.group, u)
}

func (m *model) subscribe() {
	name := rapid.SampledFrom(append([]string{"*"}, palette...)).Draw(m.rt, "subscribe")
	if name == "*" {
		m.wildcard = true
	} else {
		m.names[name] = true
	}
	m.send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{name}})
}

func (m *model) unsubscribe() {
	name := rapid.SampledFrom(append([]string{"*"}, palette...)).Draw(m.rt, "unsubscribe")
	if name == "*" {
		m.wildcard = false
	} else {
		delete(m.names, name)
	}
	for held := range m.has {
		if !m.wants(held) {
			delete(m.has, held)
		}
	}
	m.send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesUnsubscribe: []string{name}})
}

func (m *model) wants(name string) bool { return m.wildcard || m.names[name] }

func (m *model) send(r *discoveryv3.DeltaDiscoveryRequest) {
	r.TypeUrl = server.TypeCluster
	if err := m.st.Send(r); err != nil {
		m.rt.Fatal(err)
	}
}

// receive takes one response, if there is one, and answers it.
func (m *model) receive(refuse bool) {
	select {
	case r := <-m.in:
		answer := &discoveryv3.DeltaDiscoveryRequest{ResponseNonce: r.GetNonce()}
		if refuse && len(r.GetResources()) > 0 {
			answer.ErrorDetail = &statuspb.Status{Message: "not today"}
			r.Resources = nil // what is removed is gone all the same
		}
		m.take(r)
		m.send(answer)
	default:
	}
}

func (m *model) take(r *discoveryv3.DeltaDiscoveryResponse) {
	for _, x := range r.GetResources() {
		if m.wants(x.GetName()) { // else it crossed the client's goodbye on the way
			m.has[x.GetName()] = x.GetVersion()
		}
	}
	for _, name := range r.GetRemovedResources() {
		delete(m.has, name)
	}
}

// settled says whether the client has what it wants, and the server knows.
func (m *model) settled() bool {
	m.receive(false)
	want := map[string]string{}
	for name, version := range m.published {
		if m.wants(name) {
			want[name] = version
		}
	}
	n, ok := m.f.xds.NodeStatus(m.group)
	return ok && n.Synced() && maps.Equal(want, m.has) && len(m.in) == 0
}

func TestADeltaClientAlwaysEndsUpWithWhatItWants(t *testing.T) {
	f := start(t, server.Config{
		Groups:       func(n server.Node, _ string) []string { return []string{n.ID} },
		UnknownGrace: time.Millisecond, RemovalGrace: time.Millisecond, RejectHold: time.Millisecond,
		ConnectRate: 1e6, ResponseBytes: 60, // one or two resources a response
	})
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := &model{f: f, rt: rt, group: fmt.Sprint("n", run), published: map[string]string{}, has: map[string]string{}, names: map[string]bool{}, wildcard: true}
		ctx, cancel := context.WithCancel(context.Background())
		st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(f.cc).DeltaAggregatedResources(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		m.st, m.in = st, make(chan *discoveryv3.DeltaDiscoveryResponse, 1000)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				r, err := st.Recv()
				if err != nil {
					return
				}
				m.in <- r
			}
		}()
		defer func() { cancel(); <-done }()
		m.replaceAll()
		m.send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: m.group}, ResourceNamesSubscribe: []string{"*"}})
		steps := map[string]func(*rapid.T){
			"publish":   func(*rapid.T) { m.publish() },
			"remove":    func(*rapid.T) { m.remove() },
			"replace":   func(*rapid.T) { m.replaceAll() },
			"subscribe": func(*rapid.T) { m.subscribe() },
			"leave":     func(*rapid.T) { m.unsubscribe() },
			"take":      func(*rapid.T) { m.receive(false) },
			"refuse":    func(*rapid.T) { m.receive(true) },
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			names := []string{"publish", "remove", "replace", "subscribe", "leave", "take", "refuse"}
			steps[rapid.SampledFrom(names).Draw(rt, "step")](rt)
		}
		// What was refused is only sent again when it changes.
		for _, name := range palette {
			if _, ok := m.published[name]; ok {
				m.serial++
				r := f.cluster(name, m.serial)
				f.xds.Publish(m.group, changed(server.TypeCluster, r))
				m.published[name] = r.Version()
			}
		}
		deadline := time.Now().Add(patience)
		tick := time.NewTicker(200 * time.Microsecond)
		defer tick.Stop()
		for !m.settled() {
			if time.Now().After(deadline) {
				n, _ := f.xds.NodeStatus(m.group)
				rt.Fatalf("the client has %v of %v (wildcard %v, names %v): %+v", m.has, m.published, m.wildcard, m.names, n.Types)
			}
			<-tick.C
		}
	})
	if got := f.xds.Stats().ChannelFull; got != 0 {
		t.Errorf("got %d times a full channel, want never", got)
	}
}
