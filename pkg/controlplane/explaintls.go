// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// handshake says which instances a sender can speak to, by what both have of mutual
// TLS and by the policy of the instance's service. The rules are those by which the
// clusters and the inbound listeners are built.
type handshake struct {
	rules input // of the sender's group, at the time of the request
}

// refusal is why a request to the instance ends there; empty where it does not.
// policy may be nil.
func (h handshake) refusal(policy *mesh.TrafficPolicy, in *mesh.Instance) string {
	target := Group{Kind: KindSidecar, Service: in.Service}
	demands := false
	if h.rules.group.Identity != "" {
		demands, _ = h.rules.demandsTLS(in.Service, policy)
	}
	switch {
	case in.MutualTLS && h.rules.group.Identity == "" && !h.rules.now.Before(policy.PermissiveUntil()):
		return fmt.Sprintf("%s takes mutual TLS only, and %s", in.Service, h.noIdentity())
	case in.MutualTLS:
		return ""
	case demands && policy.RequiresTLS(),
		in.Node != "" && target.closedInbound(policy): // without a sidecar nothing closes its port
		return fmt.Sprintf("the policy of %s is strict, and the instance has no identity", in.Service)
	case demands:
		return fmt.Sprintf("other instances of %s have an identity, and this one has none", in.Service)
	}
	return ""
}

func (h handshake) noIdentity() string {
	switch h.rules.group.Kind {
	case KindSidecar:
		return h.rules.group.Service + " has no identity (--trust-bundle)"
	case KindGRPC:
		return "a gRPC client without a sidecar has no identity"
	}
	return "a client that is not of the mesh has no identity"
}

// refused counts the instances that refuse, and keeps each reason once.
type refused struct {
	count   int
	reasons []string
}

func (r *refused) add(reason string) {
	r.count++
	for _, known := range r.reasons {
		if known == reason {
			return
		}
	}
	r.reasons = append(r.reasons, reason)
}

func (r *refused) String() string { return strings.Join(r.reasons, "; ") }

// withIdentity gives a sender that is not connected the identity that an instance of
// its service was registered with.
func (g Group) withIdentity(list []*mesh.Instance) Group {
	for _, in := range list {
		if in.MutualTLS {
			g.Identity = "true"
		}
	}
	return g
}
