// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"slices"
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

// hint is what to do about a refusal; or where a request goes in the clear although the
// service is strict, that it does. Empty for nothing. policy may be nil.
func (h handshake) hint(policy *mesh.TrafficPolicy, in *mesh.Instance, refusal string) string {
	meanwhile := fmt.Sprintf("a TrafficPolicy of %s may take both meanwhile: tls: {mode: permissive, until: …}", in.Service)
	switch {
	case refusal != "" && in.MutualTLS && h.rules.group.Kind == KindSidecar:
		return fmt.Sprintf("start the sidecar of %s with --trust-bundle, so that it has an identity; %s", h.rules.group.Service, meanwhile)
	case refusal != "" && in.MutualTLS:
		return fmt.Sprintf("send it by a sidecar of the mesh that has an identity (--from SERVICE explains that); %s", meanwhile)
	case refusal != "" && in.Node == "":
		return fmt.Sprintf("%s/%s is registered without a sidecar, and nothing there can take mutual TLS: put one beside it; %s", in.Service, in.ID, meanwhile)
	case refusal != "":
		return fmt.Sprintf("start the sidecar of %s/%s with --trust-bundle, so that it has an identity; %s", in.Service, in.ID, meanwhile)
	case policy.RequiresTLS() && !in.MutualTLS:
		return fmt.Sprintf("the policy of %s is strict, but %s/%s is registered without a sidecar: nothing there asks for mutual TLS, and the request goes in the clear", in.Service, in.Service, in.ID)
	}
	return ""
}

// maxHints bounds the hints of an explanation: one of a kind tells enough.
const maxHints = 4

func (x *Explanation) hint(text string) {
	if text == "" || slices.Contains(x.Hints, text) || len(x.Hints) >= maxHints {
		return
	}
	x.Hints = append(x.Hints, text)
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
