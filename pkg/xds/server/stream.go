// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	deltav3 "github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	restv3 "github.com/envoyproxy/go-control-plane/pkg/server/rest/v3"
	sotwv3 "github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// streamKey: the two protocols count their streams apart.
type streamKey struct {
	delta bool
	id    int64
}

// stream is one open stream, or the polls of one REST client. Guarded by
// Server.mu.
type stream struct {
	key      streamKey
	ctx      context.Context // the stream's own, which knows its caller
	typeURL  string          // "" for an aggregated stream
	remote   string
	since    time.Time
	closed   bool
	node     *nodeRecord     // nil before the first request
	subs     []*subscription // by rank of the type; nil where there is none
	request  any             // the request whose watch has not been made yet
	repeated bool            // that request says nothing new: it asks again

	// Of who has a node id beside others, see shared.go.
	claim    claim
	claimant Claimant
	joined   uint64 // when it joined its node, by Server.joins
	shared   bool   // another client has its id, or has had it
}

func (st *stream) nodeID() string {
	if st.node == nil {
		return ""
	}
	return st.node.ID
}

// callbacks is what go-control-plane tells of its streams.
type callbacks struct{ s *Server }

// OnStreamOpen implements sotw.Callbacks.
func (c callbacks) OnStreamOpen(ctx context.Context, id int64, typeURL string) error {
	return c.s.opened(ctx, streamKey{false, id}, typeURL)
}

// OnDeltaStreamOpen implements delta.Callbacks.
func (c callbacks) OnDeltaStreamOpen(ctx context.Context, id int64, typeURL string) error {
	return c.s.opened(ctx, streamKey{true, id}, typeURL)
}

func (s *Server) opened(ctx context.Context, key streamKey, typeURL string) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	remote := ""
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		remote = p.Addr.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[key] = &stream{
		key: key, ctx: ctx, typeURL: typeURL, remote: remote, since: s.cfg.Clock(),
		subs: make([]*subscription, len(typeOrder)),
	}
	return nil
}

// OnStreamClosed implements sotw.Callbacks.
func (c callbacks) OnStreamClosed(id int64, _ *corev3.Node) { c.s.closed(streamKey{false, id}) }

// OnDeltaStreamClosed implements delta.Callbacks.
func (c callbacks) OnDeltaStreamClosed(id int64, _ *corev3.Node) { c.s.closed(streamKey{true, id}) }

func (s *Server) closed(key streamKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[key]
	if st == nil {
		return // it was not admitted
	}
	delete(s.streams, key)
	s.end(st)
}

// end takes a stream's subscriptions out of their sets.
func (s *Server) end(st *stream) {
	now := s.cfg.Clock()
	st.closed = true
	delete(s.pending, st.request)
	for _, u := range st.subs {
		if u == nil {
			continue
		}
		u.detach()
		for _, t := range u.sets {
			delete(t.subs, u)
			if len(t.subs) == 0 {
				t.idleSince = now
			}
		}
	}
	if st.node != nil {
		s.leave(st, now)
	}
	// A timer may hold on to the stream for a while, and it alone is to.
	clear(st.subs)
	st.request = nil
}

// OnStreamRequest implements sotw.Callbacks.
func (c callbacks) OnStreamRequest(id int64, req *discoveryv3.DiscoveryRequest) error {
	reason := ""
	if d := req.GetErrorDetail(); d != nil {
		reason = reasonOf(d.GetMessage())
	}
	return c.s.requested(streamKey{false, id}, req, req.GetNode(), req.GetTypeUrl(), req.GetResponseNonce(), reason)
}

// OnStreamDeltaRequest implements delta.Callbacks. The node comes only with
// the first request of a stream.
func (c callbacks) OnStreamDeltaRequest(id int64, req *discoveryv3.DeltaDiscoveryRequest) error {
	reason := ""
	if d := req.GetErrorDetail(); d != nil {
		reason = reasonOf(d.GetMessage())
	}
	return c.s.requested(streamKey{true, id}, req, req.GetNode(), req.GetTypeUrl(), req.GetResponseNonce(), reason)
}

// reasonOf makes sure that a refusal without words is one.
func reasonOf(message string) string {
	if message == "" {
		return "refused without a reason"
	}
	return message
}

// requested does what a request says, but for what it subscribes to: that is
// the watch's part, which is made next on the same goroutine.
func (s *Server) requested(key streamKey, req any, node *corev3.Node, typeURL, nonce, reason string) error {
	s.mu.Lock()
	st := s.streams[key]
	if st == nil {
		s.mu.Unlock()
		return status.Error(codes.Internal, "request on a stream that is not open")
	}
	if err := s.identify(st, node); err != nil {
		s.mu.Unlock()
		return err
	}
	s.heard(st)
	if typeURL == "" {
		typeURL = st.typeURL
	}
	delete(s.pending, st.request)
	st.request = nil
	u, isNew := s.subscriptionOf(st, typeURL)
	if u == nil {
		s.mu.Unlock()
		s.counters.unserved.Add(1)
		return nil
	}
	s.settleNonce(u, nonce, reason)
	s.pending[req], st.request = u, req
	var missing []string
	if isNew {
		missing = u.unpublished()
	}
	of := st.node.Node
	s.mu.Unlock()
	for _, group := range missing {
		s.cfg.OnSubscribe(of, typeURL, group)
	}
	return nil
}

func (s *Server) identify(st *stream, node *corev3.Node) error {
	if st.node != nil {
		return nil
	}
	n := nodeOf(node)
	if n.ID == "" {
		return status.Error(codes.InvalidArgument, "node.id: required in the first request of a stream")
	}
	if len(n.ID) > maxNodeID {
		return status.Errorf(codes.InvalidArgument, "node.id: longer than %d bytes", maxNodeID)
	}
	if st.ctx != nil {
		if err := s.cfg.Authorize(st.ctx, n); err != nil {
			return err
		}
	}
	s.join(st, n)
	return nil
}

// subscriptionOf finds or makes the stream's subscription to a type; nil for
// a type that is not served, which is left unanswered as the protocol asks.
func (s *Server) subscriptionOf(st *stream, typeURL string) (u *subscription, isNew bool) {
	rank := rankOf(typeURL)
	if rank < 0 {
		return nil, false
	}
	if u := st.subs[rank]; u != nil {
		return u, false
	}
	u = &subscription{
		stream: st, typeURL: typeURL,
		dirty: map[string]struct{}{}, forced: map[string]struct{}{},
		unknownSince: map[string]time.Time{}, held: map[string]time.Time{},
		rejections: map[string]Rejection{},
	}
	groups := s.cfg.Groups(st.node.Node, typeURL)
	if typeURL == TypeSecret && (st.ctx == nil || !s.cfg.Secrets(st.ctx)) {
		groups = nil
	}
	for _, group := range groups {
		t := s.setOf(setKey{typeURL, group})
		t.subs[u] = struct{}{}
		t.idleSince = time.Time{}
		u.sets = append(u.sets, t)
	}
	st.subs[rank] = u
	return u, true
}

// unpublished are the groups that nobody has built yet.
func (u *subscription) unpublished() []string {
	var out []string
	for _, t := range u.sets {
		if !t.published {
			out = append(out, t.group)
		}
	}
	return out
}

// settleNonce notes an acknowledgement or a refusal. Neither is ever answered
// with what was refused: what to send is decided by content, not by the
// version that the request claims.
func (s *Server) settleNonce(u *subscription, nonce, reason string) {
	now := s.cfg.Clock()
	u.stream.repeated = false
	if nonce == "" {
		return
	}
	before := len(u.outstanding)
	if reason == "" {
		u.acknowledge(nonce, now)
	} else if n := u.reject(nonce, reason, s.cfg.RejectHold, now); n != nil {
		s.counters.nacks.Add(1)
		s.notify(Event{Kind: EventNack, Node: u.stream.nodeID(), Type: u.typeURL, Names: n.Resources, Reason: n.Reason, At: now})
	}
	settled := len(u.outstanding) < before
	u.stream.repeated = !settled && u.last != nil && u.last.nonce == nonce && reason == ""
}

// OnStreamResponse implements sotw.Callbacks.
func (c callbacks) OnStreamResponse(_ context.Context, id int64, req *discoveryv3.DiscoveryRequest, resp *discoveryv3.DiscoveryResponse) {
	c.s.responded(streamKey{false, id}, req.GetTypeUrl(), resp.GetNonce(), resp)
}

// OnStreamDeltaResponse implements delta.Callbacks.
func (c callbacks) OnStreamDeltaResponse(id int64, req *discoveryv3.DeltaDiscoveryRequest, resp *discoveryv3.DeltaDiscoveryResponse) {
	c.s.responded(streamKey{true, id}, req.GetTypeUrl(), resp.GetNonce(), resp)
}

// responded notes the nonce under which a response goes out.
func (s *Server) responded(key streamKey, typeURL, nonce string, resp any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[key]
	if st == nil || rankOf(typeURL) < 0 || st.subs[rankOf(typeURL)] == nil {
		return
	}
	u := st.subs[rankOf(typeURL)]
	for _, x := range u.outstanding {
		if x.resp == resp {
			x.nonce, x.at, x.resp = nonce, s.cfg.Clock(), nil
			u.last = x
			return
		}
	}
}

// OnFetchRequest implements rest.Callbacks. A poll has no stream that was authorized
// once: each says anew which node it is.
func (c callbacks) OnFetchRequest(ctx context.Context, req *discoveryv3.DiscoveryRequest) error {
	switch id := req.GetNode().GetId(); {
	case id == "":
		return status.Error(codes.InvalidArgument, "node.id: required")
	case len(id) > maxNodeID:
		return status.Errorf(codes.InvalidArgument, "node.id: longer than %d bytes", maxNodeID)
	}
	return c.s.cfg.Authorize(ctx, nodeOf(req.GetNode()))
}

// OnFetchResponse implements rest.Callbacks.
func (c callbacks) OnFetchResponse(*discoveryv3.DiscoveryRequest, *discoveryv3.DiscoveryResponse) {}

var (
	_ sotwv3.Callbacks  = callbacks{}
	_ deltav3.Callbacks = callbacks{}
	_ restv3.Callbacks  = callbacks{}
)
