// SPDX-License-Identifier: Apache-2.0

package server

import (
	"maps"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// flush answers what can be answered on a stream, in the order of types. A
// type that is behind, and has to wait for the client's acknowledgement, holds
// back those after it: routes never name clusters that were not sent.
func (s *Server) flush(st *stream, now time.Time) {
	if st.closed {
		return
	}
	for _, u := range st.subs {
		if u == nil || !u.published() || !u.behind() {
			continue
		}
		if !u.open {
			return
		}
		if u.deltaCh != nil {
			s.answerDelta(u, now)
		} else {
			s.answerState(u, now)
		}
		if u.blocked() {
			return
		}
	}
}

// blocked says whether more is to be sent that only waits for the client. What
// is held back because the client refused it does not block others.
func (u *subscription) blocked() bool {
	if u.open {
		return false
	}
	return u.behind()
}

// sendable settles the dirty names: it answers those to send and those to
// remove, sorted, and leaves dirty only what is held or unknown for now.
func (s *Server) sendable(u *subscription, now time.Time) (add []*Resource, remove []string) {
	u.expand()
	held := map[string]struct{}{}
	for _, name := range slices.Sorted(maps.Keys(u.dirty)) {
		r := u.resource(name)
		version := u.known[name]
		_, forced := u.forced[name]
		byName := u.wantsByName(name)
		switch {
		case !u.wants(name):
			u.forget(name)
		case r != nil && version == r.Version() && !forced:
		case r != nil && now.Before(u.held[name]):
			held[name] = struct{}{}
		case r != nil:
			add = append(add, r)
			continue // stays dirty until it is in a response
		case version != "" && version != absent, forced && !byName:
			remove = append(remove, name)
			continue
		case byName && (version == "" || forced):
			if s.unknown(u, name, now) {
				remove = append(remove, name)
				continue
			}
		}
		delete(u.dirty, name)
	}
	maps.Copy(u.dirty, held)
	return add, remove
}

// unknown says whether it is time to tell that a wanted name does not exist;
// it may be on its way, so that takes a grace.
func (s *Server) unknown(u *subscription, name string, now time.Time) bool {
	since, waiting := u.unknownSince[name]
	if !waiting {
		u.unknownSince[name] = now
		s.revisit(u, name, now.Add(s.cfg.UnknownGrace))
		return false
	}
	return !now.Before(since.Add(s.cfg.UnknownGrace))
}

// revisit makes a name dirty again at a time.
func (s *Server) revisit(u *subscription, name string, at time.Time) {
	s.timers.at(at, func(now time.Time) {
		if u.stream.closed || u.attached && !u.wants(name) {
			return
		}
		u.dirty[name] = struct{}{}
		s.flush(u.stream, now)
	})
}

// wakeHeld comes back when the first of the held resources may be sent.
func (s *Server) wakeHeld(u *subscription, at time.Time) {
	if u.wakeAt.Equal(at) {
		return
	}
	u.wakeAt = at
	s.counters.held.Add(1)
	s.timers.at(at, func(now time.Time) { s.flush(u.stream, now) })
}

func (s *Server) answerDelta(u *subscription, now time.Time) {
	add, remove := s.sendable(u, now)
	s.wakeAllHeld(u)
	if len(add) == 0 && len(remove) == 0 && !(u.first && u.wildcard) {
		u.first = false
		return
	}
	resp := &discoveryv3.DeltaDiscoveryResponse{
		SystemVersionInfo: u.version(), TypeUrl: u.typeURL,
		Resources: make([]*discoveryv3.Resource, 0, len(add)), RemovedResources: remove,
	}
	x := &sent{version: resp.SystemVersionInfo, at: now, versions: make(map[string]string, len(add)+len(remove)), resp: resp}
	for _, r := range add {
		if x.bytes > 0 && x.bytes+r.size() > s.cfg.ResponseBytes {
			break // the rest follows the acknowledgement
		}
		resp.Resources = append(resp.Resources, r.wire)
		x.bytes += r.size()
		x.versions[r.Name()] = r.Version()
	}
	for _, name := range remove {
		x.versions[name] = ""
	}
	// The map that go-control-plane keeps as the client's state is not used
	// here (known is), but it writes to it: each response gives it a new one.
	out := &cachev3.DeltaPassthroughResponse{DeltaRequest: u.deltaReq, DeltaDiscoveryResponse: resp, NextVersionMap: map[string]string{}}
	select {
	case u.deltaCh <- out:
		s.delivered(u, x)
	default:
		s.congested(u, now)
	}
}

func (s *Server) answerState(u *subscription, now time.Time) {
	if fullState(u.typeURL) && now.Before(u.heldAll) {
		s.wakeHeld(u, u.heldAll)
		return
	}
	add, remove := s.sendable(u, now)
	if fullState(u.typeURL) {
		if len(add) == 0 && len(remove) == 0 && !u.first {
			return
		}
		add = u.everything()
	} else {
		s.wakeAllHeld(u)
		if len(add) == 0 && !u.first {
			u.settle(remove) // these types cannot say that something is gone
			return
		}
	}
	resp := &discoveryv3.DiscoveryResponse{VersionInfo: u.version(), TypeUrl: u.typeURL, Resources: make([]*anypb.Any, 0, len(add))}
	x := &sent{version: resp.VersionInfo, at: now, versions: make(map[string]string, len(add)+len(remove)), resp: resp}
	for _, r := range add {
		if !fullState(u.typeURL) && x.bytes > 0 && x.bytes+r.size() > s.cfg.ResponseBytes {
			break
		}
		resp.Resources = append(resp.Resources, r.Any())
		x.bytes += r.size()
		x.versions[r.Name()] = r.Version()
	}
	for _, name := range remove {
		x.versions[name] = ""
	}
	out := &cachev3.PassthroughResponse{Request: u.sotwReq, DiscoveryResponse: resp, ReturnedResources: map[string]string{}}
	select {
	case u.sotwCh <- out:
		s.delivered(u, x)
	default:
		s.congested(u, now)
	}
}

// everything the subscription wants and that exists, sorted.
func (u *subscription) everything() []*Resource {
	var names []string
	if u.wildcard {
		all := map[string]struct{}{}
		for _, t := range u.sets {
			for name := range t.resources {
				all[name] = struct{}{}
			}
		}
		names = slices.Sorted(maps.Keys(all))
	} else {
		names = slices.Sorted(maps.Keys(u.names))
	}
	out := make([]*Resource, 0, len(names))
	for _, name := range names {
		if r := u.resource(name); r != nil {
			out = append(out, r)
		}
	}
	return out
}

// settle notes removals as told.
func (u *subscription) settle(removed []string) {
	for _, name := range removed {
		delete(u.dirty, name)
		delete(u.forced, name)
		delete(u.unknownSince, name)
		delete(u.known, name)
		delete(u.rejections, name)
		delete(u.held, name)
		if u.wantsByName(name) {
			u.known[name] = absent
		}
	}
}

// delivered notes what a response carries as known to the client.
func (s *Server) delivered(u *subscription, x *sent) {
	u.open, u.first = false, false
	for name, version := range x.versions {
		if version == "" {
			u.settle([]string{name})
			continue
		}
		u.known[name] = version
		delete(u.dirty, name)
		delete(u.forced, name)
		delete(u.unknownSince, name)
	}
	if u.typeURL == TypeCluster && u.deltaCh != nil {
		u.stream.warm(x)
	}
	u.outstanding = append(u.outstanding, x)
	if n := len(u.outstanding) - maxOutstanding; n > 0 {
		u.outstanding = append(u.outstanding[:0], u.outstanding[n:]...)
	}
	s.counters.responses.Add(1)
	s.counters.resources.Add(uint64(len(x.versions)))
	if x.bytes > oversize {
		s.counters.oversize.Add(1)
		s.notify(Event{Kind: EventOversize, Node: u.stream.nodeID(), Type: u.typeURL, Bytes: x.bytes, At: x.at})
	}
}

// warm sends the endpoints of clusters again that have just been sent. A
// client warms a cluster that changed with endpoints that come after it, and
// over delta it does not ask, because it already subscribes to them. (Over
// state of the world it does, and is answered.)
func (st *stream) warm(clusters *sent) {
	u := st.subs[rankOf(TypeEndpoint)]
	if u == nil {
		return
	}
	for name, version := range clusters.versions {
		if _, had := u.known[name]; had && version != "" {
			u.again(name)
		}
	}
}

// congested: the stream's channel takes nothing now. The channels have room
// for every type that is answered, so this is not expected to happen; what
// was to be sent stays dirty and is tried again.
func (s *Server) congested(u *subscription, now time.Time) {
	s.counters.channelFull.Add(1)
	u.full = true
	s.timers.at(now.Add(channelRetry), func(now time.Time) { s.flush(u.stream, now) })
}

func (s *Server) wakeAllHeld(u *subscription) {
	var next time.Time
	for name := range u.dirty {
		if at, ok := u.held[name]; ok && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if !next.IsZero() {
		s.wakeHeld(u, next)
	}
}
