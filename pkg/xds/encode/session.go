// SPDX-License-Identifier: Apache-2.0

package encode

import (
	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statefulsessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const (
	// SessionKeysSecret is the secret with the keys that sessions are encrypted with.
	SessionKeysSecret = "session-keys"

	sessionFilter = "envoy.filters.http.stateful_session"
	sessionType   = "type.googleapis.com/io.outrigger.v1.EncryptedSession"
)

// SessionKeys is the secret: one key, or two, the one that encrypts first.
func SessionKeys(keys []byte) *tlsv3.Secret {
	return &tlsv3.Secret{Name: SessionKeysSecret, Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
		Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: keys}},
	}}}
}

// session makes a route keep sessions: as its rule says, or the policy of the backend, or
// of the parent. Where a rule has several backends there are none: the share of each is
// drawn anew for each request. Envoys do not know encrypted sessions, and gRPC clients keep
// none.
func (t *routeTable) session(route *routev3.Route, rule *mesh.HTTPRule, parent string) error {
	backend := rule.OnlyBackend()
	if route.GetRoute() == nil || backend == "" || t.flavor != Sidecar {
		return nil
	}
	s := rule.SessionPersistence
	for _, name := range []string{backend, parent} {
		if s == nil {
			s = t.spec(name).SessionPersistence
		}
	}
	if s == nil {
		return nil
	}
	name := s.Name(backend) // whoever says so: each backend has sessions of its own
	value := map[string]*structpb.Value{"keySecret": object(map[string]*structpb.Value{"name": structpb.NewStringValue(SessionKeysSecret)})}
	if s.ByHeader() {
		value["header"] = structpb.NewStringValue(name)
	} else {
		cookie := map[string]*structpb.Value{"name": structpb.NewStringValue(name), "path": structpb.NewStringValue("/")}
		if s.AbsoluteTimeout != nil {
			cookie["ttl"] = structpb.NewStringValue(s.AbsoluteTimeout.Std().String())
		}
		value["cookie"] = object(cookie)
	}
	scope := backend // or a strict session of another one by the same name would be a 503
	for _, b := range rule.BackendRefs {
		if b.Share() > 0 && len(b.Labels) > 0 { // or a session would lead out of its subset
			scope += " " + mesh.LabelText(b.Labels)
		}
	}
	value["scope"] = structpb.NewStringValue(scope)
	state, err := pack(&xdstypev3.TypedStruct{TypeUrl: sessionType, Value: &structpb.Struct{Fields: value}})
	if err != nil {
		return err
	}
	packed, err := pack(&statefulsessionv3.StatefulSessionPerRoute{Override: &statefulsessionv3.StatefulSessionPerRoute_StatefulSession{
		StatefulSession: &statefulsessionv3.StatefulSession{
			SessionState: &corev3.TypedExtensionConfig{Name: "encrypted", TypedConfig: state}, Strict: s.Strict,
		},
	}})
	route.TypedPerFilterConfig = map[string]*anypb.Any{sessionFilter: packed}
	return err
}

// sessionOf says what keeps clients at their instances, as this package has written it.
func sessionOf(route *routev3.Route) string {
	var per statefulsessionv3.StatefulSessionPerRoute
	var state xdstypev3.TypedStruct
	if p := route.GetTypedPerFilterConfig()[sessionFilter]; p == nil || p.UnmarshalTo(&per) != nil ||
		per.GetStatefulSession().GetSessionState().GetTypedConfig().UnmarshalTo(&state) != nil {
		return ""
	}
	fields := state.GetValue().GetFields()
	if h := fields["header"].GetStringValue(); h != "" {
		return "the header " + h
	}
	return "the cookie " + fields["cookie"].GetStructValue().GetFields()["name"].GetStringValue()
}
