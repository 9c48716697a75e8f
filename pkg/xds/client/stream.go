// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sort"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// maxNackBytes bounds the text of a NACK.
const maxNackBytes = 4 << 10

// Stream is the client's side of one xDS stream: subscriptions, nonces, versions,
// and an ACK or NACK for every response at once. It outlives connections. It has
// no I/O, so that every situation can be tested as a script.
type Stream struct {
	cfg   StreamConfig
	open  bool
	named bool // the node has been sent on this connection
	types [decode.KindCount]typeState
	seed  maphash.Seed
	// failures are connections that could not be made or have gone.
	failures uint32
}

// StreamConfig is what a Stream is made of.
type StreamConfig struct {
	Delta bool
	// Polling says that each response answers one request (REST). A server then
	// cannot know that names are new, so they are asked for without a version.
	Polling       bool
	Node          *corev3.Node
	NodeFirstOnly bool
	// Decode decodes one resource.
	Decode func(kind decode.Kind, name string, a *anypb.Any) (*decode.Resource, error)
	// Name reads only the name of a resource that Decode refused. It may be nil.
	Name func(kind decode.Kind, a *anypb.Any) (string, bool)
	// Known returns the bytes of a resource that is held already, nil if there is
	// none: an equal one is not decoded again. It may be nil.
	Known func(kind decode.Kind, name string) []byte
}

// typeState is what a stream knows of one type.
type typeState struct {
	subscribed bool
	wildcard   bool
	// names are what is subscribed to, with what has become of it; nil: nothing yet.
	names map[string]*counts
	all   counts // with wildcard

	// asked says that a request has gone out on this connection; told are the
	// names that delta requests have subscribed to on it.
	asked bool
	told  map[string]bool
	// renamed says that names may differ from told.
	renamed bool

	version  string // accepted last
	nonce    string // received last on this connection
	answered bool   // a response has come, on any connection
	anew     bool   // names have been added since (polling)

	// versions are those of the resources held, by name (delta).
	versions map[string]string
	// byHash finds the names of resources seen before by their bytes (state of
	// the world), so that unchanged ones need not be decoded for their names.
	byHash map[uint64]string
	// refused is the hash of the last response that was refused for what is wanted
	// now, 0 for none.
	refused uint64
}

// Event is what can happen to a stream.
type Event interface{ event() }

// The events.
type (
	// Opened says that a connection has been made.
	Opened struct{}
	// Closed says that it is gone.
	Closed struct{}
	// Subscribe says what is wanted of a type from now on.
	Subscribe struct {
		Kind     decode.Kind
		Wildcard bool
		Names    []string // without Wildcard; empty: nothing any more
	}
	// Response is a response with the state of the world. Asked is the request that
	// it answers where responses are polled for: more may be wanted by now.
	Response struct {
		*discoveryv3.DiscoveryResponse
		Asked *discoveryv3.DiscoveryRequest
	}
	// DeltaResponse is an incremental response.
	DeltaResponse struct {
		*discoveryv3.DeltaDiscoveryResponse
	}
)

func (Opened) event()        {}
func (Closed) event()        {}
func (Subscribe) event()     {}
func (Response) event()      {}
func (DeltaResponse) event() {}

// Request is a request to send; exactly one of World and Delta is set.
type Request struct {
	Kind  decode.Kind
	World *discoveryv3.DiscoveryRequest
	Delta *discoveryv3.DeltaDiscoveryRequest
	// New says that it asks for something else than the one before.
	New bool
	// Again says that it refuses the same response as the one before: it must
	// wait, or a server that answers a NACK at once would spin.
	Again bool
}

// Update is what a response changed.
type Update struct {
	Kind     decode.Kind
	Version  string // of the type, accepted last
	Received string // of the response, be it refused
	Set      []Item
	Removed  []string
	// Full says that whatever is neither in Set nor in Kept is gone.
	Full bool
	Kept map[string]bool
	// First marks the first response of the type.
	First    bool
	Rejected []Rejection
	// Accepted is false for a response that got a NACK.
	Accepted bool
}

// Item is one resource received. Resource is nil where the bytes are those that
// are held already.
type Item struct {
	Name, Version string
	Bytes         []byte
	Resource      *decode.Resource
}

// Rejection is a resource that was refused.
type Rejection struct {
	Name   string // "" if it is not known
	Reason string
}

// Output is what a step leads to.
type Output struct {
	Requests []Request
	Updates  []Update
	// Unexpected is set for a response that cannot be used: a type that nobody
	// subscribed to on this connection.
	Unexpected string
}

// NewStream makes a stream that is not connected.
func NewStream(cfg StreamConfig) *Stream {
	return &Stream{cfg: cfg, seed: maphash.MakeSeed()}
}

// Step takes an event in.
func (s *Stream) Step(ev Event) Output {
	switch e := ev.(type) {
	case Opened:
		return s.opened()
	case Closed:
		s.open, s.named = false, false
		s.failures++
		for i := range s.types {
			t := &s.types[i]
			t.asked, t.told, t.renamed, t.nonce = false, nil, true, ""
		}
	case Subscribe:
		return s.subscribe(e)
	case Response:
		return s.world(e.DiscoveryResponse, e.Asked)
	case DeltaResponse:
		return s.incremental(e.DeltaDiscoveryResponse)
	}
	return Output{}
}

// Answered reports whether a response of the kind has ever come.
func (s *Stream) Answered(kind decode.Kind) bool { return s.types[kind].answered }

// Version is the version accepted last.
func (s *Stream) Version(kind decode.Kind) string { return s.types[kind].version }

// Subscribed lists the kinds that are subscribed to.
func (s *Stream) Subscribed() []decode.Kind {
	var out []decode.Kind
	for k := range s.types {
		if s.types[k].subscribed {
			out = append(out, decode.Kind(k))
		}
	}
	return out
}

func (s *Stream) opened() Output {
	s.open, s.named = true, false
	var out Output
	for k := range s.types {
		if s.types[k].subscribed {
			r := s.ask(decode.Kind(k), nil)
			r.New = true
			out.Requests = append(out.Requests, r)
		}
	}
	return out
}

// subscribe changes what is wanted; a request goes out only if that is news.
func (s *Stream) subscribe(e Subscribe) Output {
	t := &s.types[e.Kind]
	names, same := s.renew(t.names, e.Names)
	wanted := e.Wildcard || len(names) > 0
	if t.subscribed == wanted && t.wildcard == e.Wildcard && same {
		return Output{}
	}
	was := t.subscribed
	if e.Wildcard && !t.wildcard {
		t.all = counts{since: s.failures}
	}
	t.subscribed, t.wildcard, t.names, t.renamed = wanted, e.Wildcard, names, true
	t.anew = s.cfg.Polling
	t.refused = 0 // the same response may have what was not wanted before
	s.forget(t)
	if !s.open || !wanted && !was {
		return Output{}
	}
	if !t.asked && !wanted {
		return Output{}
	}
	r := s.ask(e.Kind, nil)
	r.New = true
	return Output{Requests: []Request{r}}
}

// forget drops the versions of resources that are no longer subscribed to.
func (s *Stream) forget(t *typeState) {
	if t.wildcard {
		return
	}
	for name := range t.versions {
		if !t.asks(name) {
			delete(t.versions, name)
		}
	}
	if !t.subscribed {
		t.version, t.byHash = "", nil
	}
}

// ask makes a request that states the subscription, and refuses the response
// received last if nack is set.
func (s *Stream) ask(kind decode.Kind, nack *statuspb.Status) Request {
	if s.cfg.Delta {
		return s.askDelta(kind, nack)
	}
	t := &s.types[kind]
	t.asked = true
	version := t.version
	if t.anew {
		version = ""
	}
	return Request{Kind: kind, World: &discoveryv3.DiscoveryRequest{
		Node: s.node(), TypeUrl: decode.TypeOf(kind).URL, VersionInfo: version, ResponseNonce: t.nonce,
		ResourceNames: sorted(t.names), ErrorDetail: nack,
	}, New: t.anew}
}

func (s *Stream) askDelta(kind decode.Kind, nack *statuspb.Status) Request {
	t := &s.types[kind]
	r := &discoveryv3.DeltaDiscoveryRequest{
		Node: s.node(), TypeUrl: decode.TypeOf(kind).URL, ResponseNonce: t.nonce, ErrorDetail: nack,
	}
	if !t.asked {
		r.InitialResourceVersions = copyMap(t.versions)
	}
	t.asked = true
	if !t.renamed {
		return Request{Kind: kind, Delta: r}
	}
	for name := range t.names {
		if !t.told[name] {
			r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name)
		}
	}
	for name := range t.told {
		if !t.asks(name) {
			r.ResourceNamesUnsubscribe = append(r.ResourceNamesUnsubscribe, name)
		}
	}
	sort.Strings(r.ResourceNamesSubscribe)
	sort.Strings(r.ResourceNamesUnsubscribe)
	t.told, t.renamed = make(map[string]bool, len(t.names)), false
	for name := range t.names {
		t.told[name] = true
	}
	return Request{Kind: kind, Delta: r}
}

// node returns the node for the next request, nil where it need not be repeated.
func (s *Stream) node() *corev3.Node {
	if s.named && s.cfg.NodeFirstOnly {
		return nil
	}
	s.named = true
	return s.cfg.Node
}

// world takes in a state-of-the-world response.
func (s *Stream) world(r *discoveryv3.DiscoveryResponse, asked *discoveryv3.DiscoveryRequest) Output {
	kind, ok := decode.KindOf(r.GetTypeUrl())
	if !ok || !s.types[kind].subscribed {
		return s.late(kind, r.GetTypeUrl(), r.GetVersionInfo(), r.GetNonce())
	}
	t := &s.types[kind]
	t.nonce = r.GetNonce()
	t.anew = t.anew && !slices.Equal(asked.GetResourceNames(), sorted(t.names))
	h := s.hash(r.GetVersionInfo(), r.GetResources())
	if h == t.refused {
		req := s.ask(kind, refusal([]Rejection{{Reason: "the same response as before, refused again"}}))
		req.Again = true
		return Output{Requests: []Request{req}}
	}
	u := Update{Kind: kind, Version: r.GetVersionInfo(), Received: r.GetVersionInfo(), First: !t.answered, Full: decode.TypeOf(kind).Full, Kept: map[string]bool{}}
	t.answered = true
	b := batch{s: s, t: t, u: &u, at: map[string]int{}, hashes: make(map[uint64]string, len(r.GetResources()))}
	for i, a := range r.GetResources() {
		b.worldResource(i, a)
	}
	b.finish()
	return s.conclude(u, h)
}

// incremental takes in a delta response.
func (s *Stream) incremental(r *discoveryv3.DeltaDiscoveryResponse) Output {
	kind, ok := decode.KindOf(r.GetTypeUrl())
	if !ok || !s.types[kind].subscribed {
		return s.late(kind, r.GetTypeUrl(), r.GetSystemVersionInfo(), r.GetNonce())
	}
	t := &s.types[kind]
	t.nonce = r.GetNonce()
	u := Update{Kind: kind, Version: r.GetSystemVersionInfo(), Received: r.GetSystemVersionInfo(), First: !t.answered, Kept: map[string]bool{}}
	t.answered = true
	b := batch{s: s, t: t, u: &u, at: map[string]int{}}
	for i, res := range r.GetResources() {
		b.deltaResource(i, res)
	}
	b.finish()
	for _, it := range u.Set {
		if t.versions == nil {
			t.versions = map[string]string{}
		}
		t.versions[it.Name] = it.Version
	}
	for _, name := range r.GetRemovedResources() {
		delete(t.versions, name)
		u.Removed = append(u.Removed, name)
	}
	return s.conclude(u, 0)
}

// late answers a response of a type that nothing is wanted of. Where it was asked for
// on this connection, the response crossed the request that ended that: it is taken
// for read, and has its ACK all the same, or the server would wait for one for ever.
func (s *Stream) late(kind decode.Kind, typeURL, version, nonce string) Output {
	t := &s.types[kind] // of an unknown type the first kind, which has another URL
	switch {
	case decode.TypeOf(kind).URL != typeURL || !t.asked:
		return Output{Unexpected: typeURL}
	case s.cfg.Polling:
		return Output{} // a poll has no ACK, and another request would be another poll
	}
	t.nonce = nonce
	r := s.ask(kind, nil)
	if r.World != nil {
		r.World.VersionInfo = version
	}
	return Output{Requests: []Request{r}}
}

// conclude answers a response with an ACK or a NACK.
func (s *Stream) conclude(u Update, h uint64) Output {
	t := &s.types[u.Kind]
	if len(u.Rejected) == 0 {
		u.Accepted = true
		t.version, t.refused = u.Version, 0
		return Output{Requests: []Request{s.ask(u.Kind, nil)}, Updates: []Update{u}}
	}
	t.refused = h
	u.Version = t.version
	return Output{Requests: []Request{s.ask(u.Kind, refusal(u.Rejected))}, Updates: []Update{u}}
}

// refusal is the error detail of a NACK: every refused resource with its reason.
func refusal(list []Rejection) *statuspb.Status {
	var b strings.Builder
	for i, r := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		if b.Len()+len(r.Reason) > maxNackBytes {
			b.WriteString("… and more")
			break
		}
		b.WriteString(r.Reason)
	}
	return &statuspb.Status{Code: int32(codes.InvalidArgument), Message: strings.ToValidUTF8(b.String(), "\ufffd")}
}

func (s *Stream) hash(version string, list []*anypb.Any) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	h.WriteString(version)
	for _, a := range list {
		h.WriteString(a.GetTypeUrl())
		h.Write(a.GetValue())
		h.WriteByte(0)
	}
	return h.Sum64() | 1 // never 0, which means none
}

func (s *Stream) known(kind decode.Kind, name string, value []byte) bool {
	if s.cfg.Known == nil {
		return false
	}
	held := s.cfg.Known(kind, name)
	return held != nil && bytes.Equal(held, value)
}

func sorted[T any](set map[string]T) []string {
	if len(set) == 0 {
		return nil
	}
	out := make([]string, 0, len(set))
	for name := range set {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

func copyMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}
