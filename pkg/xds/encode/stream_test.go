// SPDX-License-Identifier: Apache-2.0

package encode_test

import (
	"fmt"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// accepted says whether a sidecar takes the listener.
func accepted(t *testing.T, l *listenerv3.Listener) {
	t.Helper()
	var known []filter.Spec
	for _, name := range []string{"router.v3.Router", "grpc_stats.v3.FilterConfig"} {
		known = append(known, filter.Spec{Name: name, TypeURL: "type.googleapis.com/envoy.extensions.filters.http." + name})
	}
	if _, err := decode.NewDecoder(filter.NewRegistry(known...)).Message(decode.Listener, l); err != nil {
		t.Error(err)
	}
}

// What an application that speaks no HTTP is handed went through TLS where that is asked for,
// and in the clear only where that is allowed.
func TestConnectionsArePassedOnAsSecurelyAsRequests(t *testing.T) {
	for mode, want := range map[encode.TLSMode]string{
		encode.Plaintext:  "[tcp_proxy]",
		encode.Strict:     "[tcp_proxy TLS]",
		encode.Permissive: "[tls: tcp_proxy TLS] [raw_buffer: tcp_proxy]",
	} {
		l, err := encode.Inbound(encode.ListenerInput{Service: "db", Address: "127.0.0.1:15006", Connections: true, TLS: mode})
		if err != nil {
			t.Fatal(err)
		}
		accepted(t, l)
		var got []string
		for _, c := range l.GetFilterChains() {
			text := ""
			if p := c.GetFilterChainMatch().GetTransportProtocol(); p != "" {
				text = p + ": "
			}
			text += strings.TrimPrefix(c.GetFilters()[0].GetName(), "envoy.filters.network.")
			if c.GetTransportSocket() != nil {
				text += " TLS"
			}
			got = append(got, "["+text+"]")
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", mode, s, want)
		}
		if detects := l.GetMetadata() != nil; detects != (mode == encode.Permissive) {
			t.Errorf("%s: detection: %t", mode, detects)
		}
	}
}

// Two services may not make a listener that a sidecar refuses as a whole.
func TestServicesThatShareAPortOrAServerNameMakeOneListener(t *testing.T) {
	var yaml strings.Builder
	for i, s := range []string{"a", "b", "c"} {
		fmt.Fprintf(&yaml, `---
apiVersion: outrigger.io/v1
kind: Service
metadata: {name: %s}
spec: {ports: [{port: 5432, protocol: tcp}, {port: 8443, protocol: tls}, {port: %d, protocol: tls}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: r%s}
spec:
  parentRefs: [{kind: Service, name: %s}]
  hostnames: [x.example, "*.x.example", %s.example, a, b.mesh]
  rules: [{backendRefs: [{kind: Service, name: %s}]}]
`, s, 9000+i, s, s, s, s)
	}
	index := encode.NewIndex(meshOf(t, yaml.String()))
	in := encode.ListenerInput{Service: "web", Address: "127.0.0.1:8443", Streams: index.Streams()}
	l, err := encode.Outbound(in)
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, l)
	for _, s := range index.Streams() {
		l, err := encode.TCPOutbound(encode.ListenerInput{Service: "web", Address: "127.0.0.1:1"}, s)
		if err != nil {
			t.Fatal(err)
		}
		accepted(t, l)
	}
	if n := len(index.StreamsOf("b")); n != 3 {
		t.Errorf("%d streams of b", n)
	}
	if _, ok := index.Stream("b", 9001); !ok {
		t.Error("no stream b:9001")
	}
	if index.StreamsDigest() == encode.NewIndex(mesh.Empty()).StreamsDigest() {
		t.Error("the digest says nothing")
	}
}
