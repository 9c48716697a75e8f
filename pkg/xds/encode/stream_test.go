// SPDX-License-Identifier: Apache-2.0

package encode_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
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

// Of a listener that takes connections in two ways both are tapped, and nobody else's
// listener is.
func TestEveryChainOfConnectionsIsTapped(t *testing.T) {
	m := meshOf(t, `{apiVersion: outrigger.io/v1, kind: Tap, metadata: {name: t}, spec: {targetRef: {kind: Service, name: db}, match: {peers: ["spiffe://m/*"]}}}`)
	in := encode.ListenerInput{Service: "db", Address: "127.0.0.1:15006", Connections: true, TLS: encode.Permissive, Taps: m.TapsOf("db", time.Now())}
	l, err := encode.Inbound(in)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(l.GetFilterChains()); n != 2 {
		t.Errorf("%d chains", n)
	}
	for _, c := range l.GetFilterChains() {
		text, err := c.GetMetadata().GetFilterMetadata()[encode.MetadataNamespace].GetFields()["tap"].MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		got, err := tap.ParseConnections(text)
		if err != nil {
			t.Errorf("%s: the sidecar refuses it: %v", c.GetName(), err)
			continue
		}
		if got.Direction != "inbound" || len(got.Rules) != 1 || got.Rules[0].Match.Peers[0] != "spiffe://m/*" || got.Rules[0].Match.MaxPerSecond != 100 {
			t.Errorf("%s: got %+v", c.GetName(), got)
		}
	}
	in.Flavor = encode.Envoy
	if l, err = encode.Inbound(in); err != nil || l.GetFilterChains()[0].GetMetadata() != nil {
		t.Errorf("of Envoy: %v %v", l.GetFilterChains()[0].GetMetadata(), err)
	}
}
