// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// listeners makes a sidecar's two, and an Envoy's one.
func listeners(in input) []recipe {
	switch in.group.Kind {
	case KindSidecar:
		return sidecarListeners(in)
	case KindEnvoy:
		return []recipe{outbound(in, encode.Envoy)}
	}
	return nil
}

func sidecarListeners(in input) []recipe {
	var out []recipe
	if in.group.Inbound != "" && !in.group.closedInbound(in.policy()) {
		out = append(out, inbound(in))
	}
	if in.group.Outbound != "" {
		out = append(out, outbound(in, encode.Sidecar))
	}
	return append(out, tcpOutbounds(in)...)
}

func inbound(in input) recipe {
	connections := len(in.index.StreamsOf(in.group.Service)) > 0
	all := in.index.Model.TapsOf(in.group.Service, in.now)
	inputs := append(telemetryInputs(in), connections, len(all))
	for _, t := range all {
		inputs = append(inputs, t)
	}
	taps, misfits := fitting(all, connections)
	mode := in.group.inboundMode(in.policy(), in.now)
	inputs = append(inputs, mode)
	web := speaksGRPC(in.index.Model.Services[in.group.Service])
	var limit *mesh.RateLimit
	if p := in.policy(); p != nil {
		limit = p.Spec.RateLimit
	}
	inputs = append(inputs, web, limit)
	return recipe{encode.InboundListener, inputs, func() (proto.Message, []encode.Problem, error) {
		if in.group.App == "" {
			return nil, nil, fmt.Errorf("listener %q: node.metadata.app: required beside inbound", encode.InboundListener)
		}
		if mode != encode.Plaintext && in.trustDomain == "" {
			return nil, nil, fmt.Errorf("listener %q: %w", encode.InboundListener, errNoIdentities)
		}
		l := encode.ListenerInput{
			Flavor: encode.Sidecar, Service: in.group.Service, Address: in.group.Inbound,
			Telemetry: in.index.Model.TelemetryOf(in.group.Service), Taps: taps, TLS: mode, Connections: connections,
		}
		l.GRPCWeb, l.RateLimit = web, limit
		msg, problems, err := listener(in, l, func(l encode.ListenerInput) (proto.Message, error) { return encode.Inbound(l) })
		if p := in.policy(); connections && p != nil && p.Spec.RateLimit != nil {
			misfits = append(misfits, encode.Problem{Object: p.Key(), Reason: "spec.rateLimit: the service's ports carry connections, and only requests are limited"})
		}
		return msg, append(problems, misfits...), err
	}}
}

// fitting are the taps that can be in force. What cannot hold of connections, or cannot
// be hidden in their bytes, leaves its tap out: nothing is copied beyond what was asked.
func fitting(all []*mesh.Tap, connections bool) (taps []*mesh.Tap, misfits []encode.Problem) {
	if !connections {
		return all, nil
	}
	for _, t := range all {
		why := t.Misfits()
		if len(why) == 0 {
			taps = append(taps, t)
		}
		for _, reason := range why {
			misfits = append(misfits, encode.Problem{Object: t.Key(), Reason: reason})
		}
	}
	return taps, misfits
}

// speaksGRPC says that a service is declared to speak gRPC on one of its ports:
// calls of gRPC-Web are made calls of gRPC for it.
func speaksGRPC(s *mesh.Service) bool {
	return s != nil && slices.ContainsFunc(s.Spec.Ports, func(p mesh.Port) bool { return p.Protocol == "grpc" })
}

func outbound(in input, f encode.Flavor) recipe {
	var streams []encode.Stream
	closed := in.group.Inbound != "" && in.group.closedInbound(in.policy())
	faults := in.index.Model.HasFaults()
	sessions := f == encode.Sidecar && in.index.Model.HasSessions()
	inputs := append(telemetryInputs(in), closed, faults, sessions)
	if f == encode.Sidecar { // others give names of the mesh no addresses
		streams, inputs = in.index.Streams(), append(inputs, in.index.StreamsDigest())
	}
	return recipe{encode.OutboundListener, inputs, func() (proto.Message, []encode.Problem, error) {
		if p := in.group.Policy; p != "" && p != "registry-only" {
			return nil, nil, fmt.Errorf("listener %q: outbound policy %q: not supported yet, only registry-only is", encode.OutboundListener, p)
		}
		l := encode.ListenerInput{
			Flavor: f, Service: in.group.Service, Address: in.group.Outbound,
			Telemetry: in.index.Model.TelemetryOf(in.group.Service), Streams: streams, Faults: faults, Sessions: sessions,
		}
		msg, problems, err := listener(in, l, func(l encode.ListenerInput) (proto.Message, error) { return encode.Outbound(l) })
		if closed {
			problems = append(problems, in.closedProblem())
		}
		return msg, problems, err
	}}
}

// listener makes one, leaving out the object that spoils it, if it is one.
func listener(in input, l encode.ListenerInput, make func(encode.ListenerInput) (proto.Message, error)) (proto.Message, []encode.Problem, error) {
	msg, err := make(l)
	if err == nil {
		return msg, nil, nil
	}
	var problems []encode.Problem
	bare := l
	bare.Telemetry, bare.Taps = mesh.TelemetrySpec{}, nil
	if _, bareErr := make(bare); bareErr != nil {
		return nil, nil, bareErr // no object's fault
	}
	with := bare
	with.Telemetry = l.Telemetry
	if _, err := make(with); err != nil {
		for _, t := range telemetries(in) {
			problems = append(problems, encode.Problem{Object: t.Key(), Reason: err.Error()})
		}
		with.Telemetry = mesh.TelemetrySpec{}
	}
	for _, t := range l.Taps {
		one := with
		one.Taps = append(slices.Clone(with.Taps), t)
		if _, err := make(one); err != nil {
			problems = append(problems, encode.Problem{Object: t.Key(), Reason: err.Error()})
			continue
		}
		with = one
	}
	msg, err = make(with)
	return msg, problems, err
}

// telemetries are the objects that a group's telemetry may come from.
func telemetries(in input) []*mesh.Telemetry {
	var out []*mesh.Telemetry
	for _, t := range mesh.Ordered[*mesh.Telemetry](in.index.Model, mesh.KindTelemetry) {
		if ref := t.Spec.TargetRef; ref == nil || ref.Name == in.group.Service {
			out = append(out, t)
		}
	}
	return out
}

func telemetryInputs(in input) []any {
	list := telemetries(in)
	out := []any{len(list)}
	for _, t := range list {
		out = append(out, t)
	}
	return out
}

// apiListeners are what gRPC clients ask for, named like targets: the service, and the service with each
// of its ports; where no port is declared, with those of its instances.
func apiListeners(in input) []recipe {
	if in.group.Kind != KindGRPC {
		return nil
	}
	var out []recipe
	for _, service := range in.index.Services {
		ports := map[uint16]struct{}{}
		if s := in.index.Model.Services[service]; s != nil {
			for _, p := range s.Spec.Ports {
				ports[p.Port] = struct{}{}
			}
		}
		if len(ports) == 0 {
			for _, i := range in.index.Model.Instances[service] {
				ports[i.Port] = struct{}{}
			}
		}
		names := []string{service}
		for _, p := range slices.Sorted(maps.Keys(ports)) {
			names = append(names, service+":"+strconv.Itoa(int(p)))
		}
		for _, name := range names {
			out = append(out, recipe{name, nil, func() (proto.Message, []encode.Problem, error) {
				l, err := encode.APIListener(name)
				return l, nil, err
			}})
		}
	}
	return out
}
