// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typesv3 "github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// watcher is the cache that go-control-plane asks. The callback of a request
// (stream.go) runs just before the watch is made, on the same goroutine, and
// leaves the subscription under the request's pointer.
type watcher struct{ s *Server }

// CreateDeltaWatch implements cache.ConfigWatcher.
func (w watcher) CreateDeltaWatch(req *cachev3.DeltaRequest, view cachev3.Subscription, ch chan cachev3.DeltaResponse) (func(), error) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	u, fresh, err := s.claim(req, view)
	if u == nil {
		return nil, err
	}
	u.attached, u.open, u.deltaReq, u.deltaCh = true, true, req, ch
	wasWildcard := u.wildcard
	u.names, u.wildcard = view.SubscribedResources(), view.IsWildcard()
	if fresh {
		for name, version := range req.GetInitialResourceVersions() {
			u.known[name] = version
		}
		u.full, u.first = true, true
	} else {
		u.resubscribe(req, wasWildcard)
	}
	s.flush(u.stream, s.cfg.Clock())
	return s.cancelOf(u), nil
}

// resubscribe follows a change of a delta subscription. A name that is asked
// for again is answered again, changed or not: the client has dropped it.
func (u *subscription) resubscribe(req *discoveryv3.DeltaDiscoveryRequest, wasWildcard bool) {
	for _, name := range req.GetResourceNamesUnsubscribe() {
		switch {
		case name == "*":
		case u.wildcard:
			u.again(name) // the protocol wants to know: still there, or removed
		default:
			u.forget(name)
		}
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		if name != "*" {
			u.again(name)
		}
	}
	switch {
	case u.wildcard && !wasWildcard:
		u.full = true
		u.recall()
	case !u.wildcard && wasWildcard:
		for name := range u.known {
			if !u.wantsByName(name) {
				u.forget(name)
			}
		}
	}
}

// recall takes what is under way for known, though the client has left it
// since: it will arrive, and the client wants everything again.
func (u *subscription) recall() {
	for _, x := range u.outstanding {
		for name, version := range x.versions {
			if _, ok := u.known[name]; !ok && version != "" {
				u.known[name] = version
			}
		}
	}
}

// CreateWatch implements cache.ConfigWatcher.
func (w watcher) CreateWatch(req *cachev3.Request, view cachev3.Subscription, ch chan cachev3.Response) (func(), error) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	u, fresh, err := s.claim(req, view)
	if u == nil {
		return nil, err
	}
	u.attached, u.open, u.sotwReq, u.sotwCh = true, true, req, ch
	before, wasWildcard := u.names, u.wildcard
	u.names, u.wildcard = view.SubscribedResources(), view.IsWildcard()
	if fresh {
		u.full, u.first = true, true
	} else {
		u.lostUnsent()
		u.renamed(before, wasWildcard)
	}
	s.flush(u.stream, s.cfg.Clock())
	return s.cancelOf(u), nil
}

// renamed follows a change of a state-of-the-world subscription. A request
// that repeats itself asks again.
func (u *subscription) renamed(before map[string]struct{}, wasWildcard bool) {
	changed := u.wildcard != wasWildcard
	for name := range u.names {
		if _, had := before[name]; !had {
			u.again(name)
			changed = true
		}
	}
	for name := range before {
		if !u.wants(name) {
			u.forget(name)
			changed = true
		}
	}
	if u.wildcard != wasWildcard {
		u.full = true
	}
	if u.stream.repeated && !changed {
		for name := range u.known {
			u.again(name)
		}
		u.full, u.first = true, true
	}
}

// claim finds the subscription that the request's callback prepared. A nil
// subscription without an error is a type that is never answered.
func (s *Server) claim(req any, view cachev3.Subscription) (u *subscription, fresh bool, err error) {
	u = s.pending[req]
	delete(s.pending, req)
	if u == nil {
		return nil, false, nil
	}
	if n := len(view.SubscribedResources()); n > s.cfg.MaxNames {
		return nil, false, status.Errorf(codes.InvalidArgument, "%s: %d names subscribed, at most %d are allowed", u.typeURL, n, s.cfg.MaxNames)
	}
	fresh = u.known == nil
	if fresh {
		u.known = map[string]string{}
	}
	return u, fresh, nil
}

func (s *Server) cancelOf(u *subscription) func() {
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		u.detach()
	}
}

// Fetch implements cache.ConfigFetcher: one REST-JSON poll, or a unary call.
// It waits a little for a group that is being built.
func (w watcher) Fetch(ctx context.Context, req *cachev3.Request) (cachev3.Response, error) {
	s := w.s
	if rankOf(req.GetTypeUrl()) < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "type %q is not served", clip(req.GetTypeUrl()))
	}
	node := nodeOf(req.GetNode())
	s.mu.Lock()
	u := s.poller(node, req.GetTypeUrl())
	if u == nil {
		s.mu.Unlock()
		return nil, status.Error(codes.ResourceExhausted, "too many REST clients")
	}
	missing, ready := u.unpublished(), u.ready()
	s.mu.Unlock()
	for _, group := range missing {
		s.cfg.OnSubscribe(node, u.typeURL, group)
	}
	if err := s.await(ctx, ready); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	resources, version := u.selection(req.GetResourceNames())
	s.polled(u, req, version)
	if version == req.GetVersionInfo() {
		return nil, &typesv3.SkipFetchError{}
	}
	resp := &discoveryv3.DiscoveryResponse{VersionInfo: version, TypeUrl: u.typeURL, Resources: resources}
	return &cachev3.PassthroughResponse{Request: req, DiscoveryResponse: resp}, nil
}

// ready are the channels that close when the sets are published.
func (u *subscription) ready() []<-chan struct{} {
	out := make([]<-chan struct{}, len(u.sets))
	for i, t := range u.sets {
		out[i] = t.ready
	}
	return out
}

// await waits, a little, for groups that are being built.
func (s *Server) await(ctx context.Context, ready []<-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FetchWait)
	defer cancel()
	for _, ch := range ready {
		select {
		case <-ch:
		case <-s.ctx.Done():
			return errors.New("the control plane is stopping")
		case <-ctx.Done():
			return errors.New("no configuration is ready for this node yet")
		}
	}
	return nil
}

// selection is what a poll asks for, and its version: that of exactly these
// resources, because a poll does not say what it was given before.
func (u *subscription) selection(names []string) ([]*anypb.Any, string) {
	u.wildcard = len(names) == 0 || slices.Contains(names, "*")
	u.names = map[string]struct{}{}
	if !u.wildcard {
		for _, name := range names {
			u.names[name] = struct{}{}
		}
	}
	u.attached = true
	var sum uint64
	list := u.everything()
	out := make([]*anypb.Any, 0, len(list))
	clear(u.known)
	for _, r := range list {
		out = append(out, r.Any())
		sum += r.digest()
		u.known[r.Name()] = r.Version()
	}
	return out, versionOf(sum)
}

var _ cachev3.Cache = watcher{}
