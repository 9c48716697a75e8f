// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typesv3 "github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

// pollPaths are the REST-JSON paths of the types.
var pollPaths = map[string]string{
	resourcev3.FetchClusters:         resourcev3.ClusterType,
	resourcev3.FetchEndpoints:        resourcev3.EndpointType,
	resourcev3.FetchListeners:        resourcev3.ListenerType,
	resourcev3.FetchRoutes:           resourcev3.RouteType,
	resourcev3.FetchScopedRoutes:     resourcev3.ScopedRouteType,
	resourcev3.FetchSecrets:          resourcev3.SecretType,
	resourcev3.FetchRuntimes:         resourcev3.RuntimeType,
	resourcev3.FetchExtensionConfigs: resourcev3.ExtensionConfigType,
}

// RESTHandler answers POST /v3/discovery:{clusters,endpoints,listeners,routes,
// scoped-routes,secrets,runtime,extension_configs} with a DiscoveryResponse in
// JSON, or with 304 when the request names the version that is current.
func (s *Server) RESTHandler() http.Handler { return http.HandlerFunc(s.poll) }

func (s *Server) poll(w http.ResponseWriter, r *http.Request) {
	typeURL, ok := pollPaths[r.URL.Path]
	if !ok {
		http.Error(w, "no such discovery path", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "xDS polls are POST requests", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxRequestBytes))
	if err != nil {
		code := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			code = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "read discovery request: "+err.Error(), code)
		return
	}
	req := &discoveryv3.DiscoveryRequest{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, req); err != nil {
		http.Error(w, "parse discovery request: "+err.Error(), http.StatusBadRequest)
		return
	}
	resp, err := s.xds.fetch(r.Context(), req, typeURL)
	if err != nil {
		pollError(w, err)
		return
	}
	out, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(resp)
	if err != nil {
		http.Error(w, "marshal discovery response: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(out) // a client that hung up polls again
}

func pollError(w http.ResponseWriter, err error) {
	if current := (*typesv3.SkipFetchError)(nil); errors.As(err, &current) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	switch st, _ := status.FromError(err); st.Code() {
	case codes.InvalidArgument:
		http.Error(w, st.Message(), http.StatusBadRequest)
	case codes.PermissionDenied:
		http.Error(w, st.Message(), http.StatusForbidden)
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// poller is the subscription of a REST client to a type; nil when there are
// too many clients. A client that does not poll for a while is gone.
func (s *Server) poller(n Node, typeURL string) *subscription {
	now := s.cfg.Clock()
	var st *stream
	if rec := s.nodes[n.ID]; rec != nil {
		if i := slices.IndexFunc(rec.streams, func(x *stream) bool { return x.key.id == 0 }); i >= 0 {
			st = rec.streams[i]
		}
	}
	if st == nil {
		if len(s.pollers) >= s.cfg.MaxStreams {
			return nil
		}
		st = &stream{since: now, subs: make([]*subscription, len(typeOrder))}
		s.join(st, n)
		s.timers.at(now.Add(pollerGone), func(now time.Time) { s.expirePoller(st, now) })
	}
	s.pollers[st] = now
	u, isNew := s.subscriptionOf(st, typeURL)
	if isNew {
		u.known = map[string]string{}
	}
	return u
}

func (s *Server) expirePoller(st *stream, now time.Time) {
	if last := s.pollers[st]; now.Sub(last) < pollerGone {
		s.timers.at(last.Add(pollerGone), func(now time.Time) { s.expirePoller(st, now) })
		return
	}
	delete(s.pollers, st)
	s.end(st)
}

// polled notes what a poll says of the version before: a poll that names it
// has accepted it, unless it says what is wrong.
func (s *Server) polled(u *subscription, req *discoveryv3.DiscoveryRequest, version string) {
	now := s.cfg.Clock()
	clear(u.dirty)
	u.full, u.first = false, false
	switch d := req.GetErrorDetail(); {
	case d != nil:
		u.nack = &Nack{Type: u.typeURL, Version: version, Reason: clip(reasonOf(d.GetMessage())), At: now}
		s.counters.nacks.Add(1)
	case req.GetVersionInfo() != "":
		u.acked, u.ackedAt, u.nack = req.GetVersionInfo(), now, nil
	}
	if u.last == nil || u.last.version != version {
		u.last = &sent{version: version, at: now}
	}
}
