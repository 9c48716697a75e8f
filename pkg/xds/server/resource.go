// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The type URLs that the control plane of this project publishes.
const (
	TypeCluster  = resourcev3.ClusterType
	TypeEndpoint = resourcev3.EndpointType
	TypeListener = resourcev3.ListenerType
	TypeRoute    = resourcev3.RouteType
	TypeSecret   = resourcev3.SecretType
)

// typeOrder is the order in which one stream is answered. Go-control-plane's
// channels are dimensioned for these types; others are not answered.
var typeOrder = []string{
	resourcev3.ClusterType,         // first: endpoints and routes name clusters
	resourcev3.EndpointType,        // before listeners, so that traffic finds somebody
	resourcev3.SecretType,          // clusters and listeners warm on them
	resourcev3.ListenerType,        // names routes
	resourcev3.ScopedRouteType,     // names routes
	resourcev3.RouteType,           // last of what traffic needs
	resourcev3.VirtualHostType,     // part of routes, on demand
	resourcev3.ExtensionConfigType, // filters that listeners name
	resourcev3.RuntimeType,         // depends on nothing
}

func rankOf(typeURL string) int { return slices.Index(typeOrder, typeURL) }

// fullState tells the types whose state-of-the-world responses must carry
// everything the client wants, absence being deletion.
func fullState(typeURL string) bool {
	return typeURL == TypeCluster || typeURL == TypeListener
}

// lingers tells the types whose removal waits for Config.RemovalGrace.
func lingers(typeURL string) bool {
	return typeURL == TypeCluster || typeURL == TypeEndpoint
}

// Resource is one immutable xDS resource: a type, a name, a version that is
// the hash of its content, and its bytes. Resources may be shared by any
// number of groups and are never marshalled again.
type Resource struct {
	typeURL string
	wire    *discoveryv3.Resource // shared by all responses; never written after it is made
}

// NewResource marshals m, deterministically and once. Every call counts in
// [Stats.Marshals].
func (s *Server) NewResource(name string, m proto.Message) (*Resource, error) {
	if name == "" {
		return nil, fmt.Errorf("marshal %s: empty resource name", m.ProtoReflect().Descriptor().FullName())
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %s %q: %w", m.ProtoReflect().Descriptor().FullName(), name, err)
	}
	s.counters.marshals.Add(1)
	typeURL := resourcev3.APITypePrefix + string(m.ProtoReflect().Descriptor().FullName())
	sum := sha256.Sum256(body)
	return &Resource{typeURL: typeURL, wire: &discoveryv3.Resource{
		Name:     name,
		Version:  hex.EncodeToString(sum[:8]),
		Resource: &anypb.Any{TypeUrl: typeURL, Value: body},
	}}, nil
}

// Name is the resource's name, unique within its type and group.
func (r *Resource) Name() string { return r.wire.GetName() }

// TypeURL is the resource's type.
func (r *Resource) TypeURL() string { return r.typeURL }

// Version is the hash of the resource's content, in hexadecimal.
func (r *Resource) Version() string { return r.wire.GetVersion() }

// Any is the packed resource. It is shared and must not be changed.
func (r *Resource) Any() *anypb.Any { return r.wire.GetResource() }

// size is the length in bytes that the resource adds to a response, nearly.
func (r *Resource) size() int {
	return len(r.wire.GetResource().GetValue()) + len(r.wire.GetName()) + len(r.typeURL) + 32
}

// digest is the resource's share in the version of its set: shares are summed,
// so that a set's version follows a change without looking at the rest.
func (r *Resource) digest() uint64 {
	h := fnv.New64a()
	h.Write([]byte(r.Name()))
	h.Write([]byte{0})
	h.Write([]byte(r.Version()))
	return h.Sum64()
}

// versionOf renders a sum of digests.
func versionOf(sum uint64) string { return fmt.Sprintf("%016x", sum) }
