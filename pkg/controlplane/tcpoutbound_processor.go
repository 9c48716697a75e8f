// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// tcpOutbounds makes the listeners that a sidecar asks for by --tcp-outbound.
func tcpOutbounds(in input) []recipe {
	var out []recipe
	seen := map[string]bool{}
	for entry := range strings.SplitSeq(in.group.TCPOutbound, ",") {
		address, target, ok := strings.Cut(entry, "=")
		if !ok || seen[target] {
			continue // the sidecar checks its flags
		}
		seen[target] = true
		stream, found := streamOf(in.index, target)
		inputs := append(telemetryInputs(in), found, in.index.StreamsDigest())
		out = append(out, recipe{target, inputs, func() (proto.Message, []encode.Problem, error) {
			if !found {
				return nil, nil, fmt.Errorf("listener %q: tcpOutbound: no service of that name lists that port with protocol tcp or tls", target)
			}
			l := encode.ListenerInput{
				Flavor: encode.Sidecar, Service: in.group.Service, Address: address,
				Telemetry: in.index.Model.TelemetryOf(in.group.Service),
			}
			return listener(in, l, func(l encode.ListenerInput) (proto.Message, error) { return encode.TCPOutbound(l, stream) })
		}})
	}
	return out
}

// streamOf finds SERVICE:PORT.
func streamOf(x *encode.Index, target string) (encode.Stream, bool) {
	service, text, err := net.SplitHostPort(target)
	port, portErr := strconv.ParseUint(text, 10, 16)
	if err != nil || portErr != nil {
		return encode.Stream{}, false
	}
	return x.Stream(strings.TrimSuffix(service, "."+encode.MeshDomain), uint16(port))
}
