// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/identity"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

var errNoIdentities = errors.New("the sidecar wants mutual TLS, and this control plane has no identities")

// secureClusters are the services' clusters for sidecars with an identity. What a
// policy says of TLS holds also where the rest of it cannot be expressed.
func secureClusters(in input) []recipe {
	if in.group.Kind != KindSecure {
		return nil
	}
	out := make([]recipe, 0, len(in.index.Services))
	for _, service := range in.index.Services {
		policy := in.index.Policy(service)
		subsets := in.index.SubsetKeys(service)
		always, left := in.demandsTLS(service, policy)
		peer := encode.Peer{Identity: identity.ServiceID(in.trustDomain, service).String(), Always: always}
		lost := in.index.LosesFallback(policy)
		out = append(out, recipe{encode.OutboundCluster(service), []any{policy, subsets, always, left, lost}, func() (proto.Message, []encode.Problem, error) {
			if in.trustDomain == "" {
				return nil, nil, errNoIdentities
			}
			policy := policy
			if lost {
				policy = encode.WithoutFallbackService(policy)
			}
			var problems []encode.Problem
			if left {
				problems = append(problems, leftProblem(service))
			}
			c, err := encode.SecureCluster(service, policy, subsets, peer)
			if err == nil || policy == nil {
				return c, problems, err
			}
			problems = append(problems, encode.Problem{Object: policy.Key(), Reason: err.Error()})
			c, err = encode.SecureCluster(service, nil, subsets, peer)
			return c, problems, err
		}})
	}
	return out
}

// demandsTLS says whether callers with an identity speak to no instance of a service
// in the clear: one instance with an identity is enough, or whoever registers another
// one without would be sent requests in the clear. A service without instances demands
// it too, so that its cluster stays as it is while the last one restarts. left says
// that instances get nothing because of it, which nobody has asked for.
func (in input) demandsTLS(service string, policy *mesh.TrafficPolicy) (always, left bool) {
	instances := in.index.Model.Instances[service]
	secure := 0
	for _, i := range instances {
		if i.MutualTLS {
			secure++
		}
	}
	switch {
	case policy.RequiresTLS():
		return true, false
	case in.now.Before(policy.PermissiveUntil()), secure == 0 && len(instances) > 0:
		return false, false
	}
	return true, secure < len(instances)
}

func leftProblem(service string) encode.Problem {
	return encode.Problem{
		Object: mesh.Key{Kind: mesh.KindService, Name: service},
		Reason: "some instances have no identity and others have: callers with an identity send nothing to those without, unless a TrafficPolicy says tls.mode permissive",
	}
}

// inboundMode is what a sidecar's inbound listener takes now. policy may be nil.
func (g Group) inboundMode(policy *mesh.TrafficPolicy, now time.Time) encode.TLSMode {
	switch {
	case g.Identity == "":
		return encode.Plaintext
	case now.Before(policy.PermissiveUntil()):
		return encode.Permissive
	}
	return encode.Strict
}

// closedInbound reports whether a sidecar may have no inbound listener: its service
// takes mutual TLS only, and it has no identity.
func (g Group) closedInbound(policy *mesh.TrafficPolicy) bool {
	return g.Identity == "" && policy.RequiresTLS()
}

// policy is that of the sidecar's own service, or nil.
func (in input) policy() *mesh.TrafficPolicy { return in.index.Policy(in.group.Service) }

// closedProblem says so.
func (in input) closedProblem() encode.Problem {
	return encode.Problem{
		Object: in.policy().Key(),
		Reason: fmt.Sprintf("spec.tls.mode: a sidecar of %s has no identity: it gets no inbound listener", in.group.Service),
	}
}

// policyEnd is when the first permissive policy ends after now; zero for never.
func policyEnd(m *mesh.Model, now time.Time) (next time.Time) {
	for _, o := range m.Objects[mesh.KindTrafficPolicy] {
		p, _ := o.(*mesh.TrafficPolicy)
		if end := p.PermissiveUntil(); end.After(now) && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return next
}

// TLSMode is what the inbound listener of a client takes, in a word; empty where it
// has none that is built here.
func (cp *ControlPlane) TLSMode(n server.Node) string {
	g := groupOf(n)
	if g.Kind != KindSidecar || g.Inbound == "" {
		return ""
	}
	policy := cp.cfg.Source.Model().PolicyOf(g.Service)
	if g.closedInbound(policy) {
		return "closed"
	}
	return g.inboundMode(policy, cp.cfg.Clock()).String()
}
