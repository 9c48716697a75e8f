// SPDX-License-Identifier: Apache-2.0

package xdstest

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Named is a resource as it goes over the wire: nothing checks that the name is
// the resource's own, or that there is a resource at all in the bytes.
type Named struct {
	Name string // delta only
	Any  *anypb.Any
}

// Raw is a management server that sends what it is told, however wrong: the same
// name twice, bytes that are no message, a type that is another's. It serves the
// aggregated stream, both ways, to any node. A refusal changes nothing: the same
// is not sent again on the same stream.
type Raw struct {
	Addr string

	grpc *grpc.Server
	wg   sync.WaitGroup
	stop sync.Once
	journal

	// Guarded by the journal's mu.
	sets    map[string]*set // by type URL
	nonce   int
	streams int
}

// set is what is sent for a type.
type set struct {
	version string
	list    []Named
	// removed are names of the set before that this one lacks.
	removed []string
}

// StartRaw runs a server until the test ends.
func StartRaw(t testing.TB) *Raw {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	r := &Raw{Addr: l.Addr().String(), journal: journal{change: make(chan struct{})}, sets: map[string]*set{}}
	r.grpc = grpc.NewServer(grpc.MaxSendMsgSize(1 << 30))
	r.grpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.discovery.v3.AggregatedDiscoveryService", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "StreamAggregatedResources", ServerStreams: true, ClientStreams: true, Handler: r.world},
			{StreamName: "DeltaAggregatedResources", ServerStreams: true, ClientStreams: true, Handler: r.delta},
		},
	}, struct{}{})
	r.wg.Go(func() { _ = r.grpc.Serve(l) }) // ends with Stop
	t.Cleanup(r.Stop)
	return r
}

// Stop ends the server as if it had been killed.
func (r *Raw) Stop() {
	r.stop.Do(func() {
		r.grpc.Stop()
		r.wg.Wait()
	})
}

// Set replaces what is sent for a type. Each set needs a version of its own. With
// delta the whole set is sent as well, and the names that it lacks as removed.
func (r *Raw) Set(typeURL, version string, list ...Named) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := &set{version: version, list: list}
	there := map[string]bool{}
	for _, n := range list {
		there[n.Name] = true
	}
	if before := r.sets[typeURL]; before != nil {
		for _, n := range before.list {
			if !there[n.Name] {
				next.removed = append(next.removed, n.Name)
			}
		}
	}
	r.sets[typeURL] = next
	close(r.change)
	r.change = make(chan struct{})
}

// Add sends more of a type with delta, in a message of its own, and takes nothing away. What
// was set or added before must have been sent: Wait for its version.
func (r *Raw) Add(typeURL, version string, list ...Named) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sets[typeURL] = &set{version: version, list: list}
	close(r.change)
	r.change = make(chan struct{})
}

// Streams is how many streams have been opened so far.
func (r *Raw) Streams() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.streams
}

func (r *Raw) world(_ any, s grpc.ServerStream) error {
	return r.serve(s, func() (Exchange, error) {
		q := new(discoveryv3.DiscoveryRequest)
		err := s.RecvMsg(q)
		return Exchange{
			Type: q.GetTypeUrl(), Version: q.GetVersionInfo(), Nonce: q.GetResponseNonce(), Names: q.GetResourceNames(),
			Node: q.GetNode(), Nack: q.GetErrorDetail().GetMessage(), Request: true,
		}, err
	}, func(typeURL, nonce string, what *set) proto.Message {
		a := &discoveryv3.DiscoveryResponse{TypeUrl: typeURL, VersionInfo: what.version, Nonce: nonce}
		for _, n := range what.list {
			a.Resources = append(a.Resources, n.Any)
		}
		return a
	})
}

func (r *Raw) delta(_ any, s grpc.ServerStream) error {
	return r.serve(s, func() (Exchange, error) {
		q := new(discoveryv3.DeltaDiscoveryRequest)
		err := s.RecvMsg(q)
		return Exchange{
			Type: q.GetTypeUrl(), Nonce: q.GetResponseNonce(), Names: q.GetResourceNamesSubscribe(), Gone: q.GetResourceNamesUnsubscribe(),
			Initial: q.GetInitialResourceVersions(), Node: q.GetNode(), Nack: q.GetErrorDetail().GetMessage(), Request: true, Delta: true,
		}, err
	}, func(typeURL, nonce string, what *set) proto.Message {
		a := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL, SystemVersionInfo: what.version, Nonce: nonce, RemovedResources: what.removed}
		for _, n := range what.list {
			a.Resources = append(a.Resources, &discoveryv3.Resource{Name: n.Name, Version: what.version, Resource: n.Any})
		}
		return a
	})
}

// serve reads requests and sends every set of the types that were asked for once.
func (r *Raw) serve(s grpc.ServerStream, receive func() (Exchange, error), response func(typeURL, nonce string, what *set) proto.Message) error {
	r.mu.Lock()
	r.streams++
	id := int64(r.streams)
	r.mu.Unlock()
	asked := make(chan string)
	// Ends with the stream's context, which ends when serve returns.
	go func() {
		for {
			e, err := receive()
			if err != nil {
				return
			}
			e.Stream = id
			r.note(e)
			select {
			case asked <- e.Type:
			case <-s.Context().Done():
				return
			}
		}
	}()
	wanted, sent := []string{}, map[string]*set{}
	for {
		r.mu.Lock()
		change := r.change
		r.mu.Unlock()
		for _, typeURL := range wanted {
			r.mu.Lock()
			what := r.sets[typeURL]
			r.nonce++
			nonce := strconv.Itoa(r.nonce)
			r.mu.Unlock()
			if what == nil || sent[typeURL] == what {
				continue
			}
			sent[typeURL] = what
			r.note(Exchange{Stream: id, Type: typeURL, Version: what.version, Nonce: nonce})
			if err := s.SendMsg(response(typeURL, nonce, what)); err != nil {
				return fmt.Errorf("send %s: %w", typeURL, err)
			}
		}
		select {
		case <-s.Context().Done():
			return nil
		case <-change:
		case typeURL := <-asked:
			if _, there := sent[typeURL]; !there {
				sent[typeURL] = nil
				wanted = append(wanted, typeURL)
			}
		}
	}
}
