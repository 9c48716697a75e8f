// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	aListener = `
name: l
address: {socket_address: {address: 127.0.0.1, port_value: 80}}
`
	aTCPProxy = `filters: [{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}]`

	filterType = `"@type": type.googleapis.com/envoy.extensions.filters.listener.`
)

func TestListenerFiltersAreReadInOrder(t *testing.T) {
	l := must[resource.Listener](t, decode.Listener, aListener+`
listener_filters:
- {name: a, typed_config: {`+filterType+`proxy_protocol.v3.ProxyProtocol, allow_requests_without_proxy_protocol: true, disallowed_versions: [V2]}}
- {name: b, typed_config: {`+filterType+`original_dst.v3.OriginalDst}}
- {name: c, typed_config: {`+filterType+`tls_inspector.v3.TlsInspector, max_client_hello_size: 4096, close_connection_on_client_hello_parsing_errors: true}}
- {name: d, typed_config: {`+filterType+`http_inspector.v3.HttpInspector}}
listener_filters_timeout: 3s
continue_on_listener_filters_timeout: true
metadata: {filter_metadata: {io.outrigger: {protocolDetection: {waitMs: 50}}}}
filter_chains:
- {filter_chain_match: {server_names: [A.example, "*.B.example"], transport_protocol: tls, application_protocols: [h2]}, `+aTCPProxy+`}
- {`+aTCPProxy+`}`)
	want := []resource.ListenerFilter{
		{Kind: resource.ProxyProtocol, HeaderOptional: true, RefuseVersion: [3]bool{2: true}},
		{Kind: resource.RestoreOriginalDst},
		{Kind: resource.TLSInspector, MaxHello: 4096, CloseOnMalformedHello: true},
		{Kind: resource.HTTPInspector},
	}
	if !reflect.DeepEqual(l.Filters, want) || l.DetectionTimeout != 3*time.Second || !l.ContinueOnTimeout {
		t.Errorf("got %+v", l)
	}
	if d := l.Detection; d == nil || d.Wait != 50*time.Millisecond || d.Expiry != 10*time.Minute {
		t.Errorf("detection %+v", d)
	}
	m := l.FilterChains[0].Match
	if !reflect.DeepEqual(m.ServerNames, []string{"a.example", "*.b.example"}) || m.TransportProtocol != "tls" || !reflect.DeepEqual(m.ApplicationProtocols, []string{"h2"}) {
		t.Errorf("match %+v", m)
	}
}

func TestATLSInspectorIsAddedWhereMatchesNeedIt(t *testing.T) {
	for match, added := range map[string]bool{
		"server_names: [a]": true, "transport_protocol: tls": true, "application_protocols: [h2]": true,
		"application_protocols: [h2c], transport_protocol: raw_buffer": false, "destination_port: 80": false,
	} {
		l := must[resource.Listener](t, decode.Listener, aListener+`
filter_chains: [{filter_chain_match: {`+match+`}, `+aTCPProxy+`}]`)
		if got := len(l.Filters) == 1 && l.Filters[0].Kind == resource.TLSInspector; got != added {
			t.Errorf("%s: %+v", match, l.Filters)
		}
	}
}

func TestListenersThatCannotBeMeantAreRefused(t *testing.T) {
	inspectors := `
listener_filters: [{name: t, typed_config: {` + filterType + `tls_inspector.v3.TlsInspector}}]`
	detect := `
metadata: {filter_metadata: {io.outrigger: {protocolDetection: {}}}}`
	hcm := `filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, route_config: {name: r}, http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]`
	for _, c := range []struct{ name, text, want string }{
		{"another filter", `
listener_filters: [{name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
filter_chains: [{` + aTCPProxy + `}]`, `listener_filters[0]`},
		{"a filter that is off for no port", `
listener_filters: [{name: x, filter_disabled: {not_match: {destination_port_range: {start: 5, end: 5}}}, typed_config: {` + filterType + `tls_inspector.v3.TlsInspector}}]
filter_chains: [{` + aTCPProxy + `}]`, `listener_filters[0].filter_disabled.not_match.destination_port_range: is no range of ports`},
		{"TLVs that are to be kept", `
listener_filters: [{name: x, typed_config: {` + filterType + `proxy_protocol.v3.ProxyProtocol, pass_through_tlvs: {}}}]
filter_chains: [{` + aTCPProxy + `}]`, `pass_through_tlvs`},
		{"no version left", `
listener_filters: [{name: x, typed_config: {` + filterType + `proxy_protocol.v3.ProxyProtocol, disallowed_versions: [V1, V2]}}]
filter_chains: [{` + aTCPProxy + `}]`, `leaves no version`},
		{"a wildcard within a name", `
filter_chains: [{filter_chain_match: {server_names: ["a*.example"]}, ` + aTCPProxy + `}]`, `server_names[0]: "a*.example": a wildcard`},
		{"a wildcard of nothing", `
filter_chains: [{filter_chain_match: {server_names: ["*."]}, ` + aTCPProxy + `}]`, `server_names[0]: "*.": a wildcard`},
		{"chains for the same name of the mesh", `
filter_chains:
- {name: a, metadata: {filter_metadata: {io.outrigger: {destinationNames: [db, db.mesh]}}}, filter_chain_match: {destination_port: 1}, ` + aTCPProxy + `}
- {name: b, metadata: {filter_metadata: {io.outrigger: {destinationNames: [db.mesh]}}}, filter_chain_match: {destination_port: 1}, ` + aTCPProxy + `}`, `filter_chains[1].filter_chain_match: overlaps with that of filter_chains[0]`},
		{"a destination that is no name", `
filter_chains: [{metadata: {filter_metadata: {io.outrigger: {destinationNames: ["*.db"]}}}, ` + aTCPProxy + `}]`, `destinationNames[0]: "*.db" is no host name`},
		{"no destination at all", `
filter_chains: [{metadata: {filter_metadata: {io.outrigger: {destinationNames: []}}}, ` + aTCPProxy + `}]`, `destinationNames: is empty`},
		{"a listener's setting on a chain", `
filter_chains: [{metadata: {filter_metadata: {io.outrigger: {protocolDetection: {}}}}, ` + aTCPProxy + `}]`, `protocolDetection: is for listeners only`},
		{"chains that overlap", `
filter_chains:
- {filter_chain_match: {server_names: [a, b], source_ports: [1, 2]}, ` + aTCPProxy + `}
- {filter_chain_match: {server_names: [c, B], source_ports: [2]}, ` + aTCPProxy + `}`, `filter_chains[1].filter_chain_match: overlaps with that of filter_chains[0]`},
		{"detection without looking", detect + `
filter_chains: [{` + aTCPProxy + `}]`, `needs tls_inspector or http_inspector`},
		{"silence that would lead to an HTTP chain", inspectors + detect + `
filter_chains: [{name: web, ` + hcm + `}]`, `filter chain "web" would take silent clients`},
		{"a cluster's setting on a listener", inspectors + `
metadata: {filter_metadata: {io.outrigger: {fallback: {}}}}
filter_chains: [{` + aTCPProxy + `}]`, `fallback: is for clusters only`},
	} {
		if _, err := from(t, decode.Listener, aListener+c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestAClusterMayBeginItsConnectionsWithAPROXYHeader(t *testing.T) {
	cluster := func(socket string) string {
		return `
name: c
type: STATIC
transport_socket: {name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport` + socket + `}}`
	}
	raw := `, transport_socket: {name: raw, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}`
	for version, text := range map[int]string{1: raw, 2: ", config: {version: V2}" + raw} {
		if c := must[resource.Cluster](t, decode.Cluster, cluster(text)); int(c.ProxyProtocol) != version {
			t.Errorf("%s: version %d", text, c.ProxyProtocol)
		}
	}
	if _, err := from(t, decode.Cluster, cluster(", config: {added_tlvs: [{type: 5, value: YQ==}]}"+raw)); err == nil || !strings.Contains(err.Error(), "added_tlvs") {
		t.Errorf("TLVs that are to be added: %v", err)
	}
}

func TestAConnectionLimitStandsBeforeTheLastFilter(t *testing.T) {
	limit := func(fields string) string {
		return `{name: l, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: l, ` + fields + `}}`
	}
	chain := func(before ...string) string {
		return aListener + `
filter_chains: [{` + strings.Replace(aTCPProxy, "[", "["+strings.Join(before, ", ")+", ", 1) + `}]`
	}
	if l := must[resource.Listener](t, decode.Listener, chain(limit("max_connections: 7"))); l.FilterChains[0].ConnectionLimit != 7 || l.FilterChains[0].TCP == nil {
		t.Errorf("got %+v", l.FilterChains[0])
	}
	for text, want := range map[string]string{
		chain(limit("max_connections: 7, delay: 1s")):                                     "filters[0].typed_config.delay",
		chain(limit("max_connections: 7, runtime_enabled: {}")):                           "runtime_enabled",
		chain(limit("max_connections: 0")):                                                "filters[0].typed_config.max_connections",
		chain(limit("max_connections: 99999999999")):                                      "max_connections",
		chain(limit("max_connections: 7"), limit("max_connections: 8")):                   "filters[1]: is a second connection_limit",
		aListener + "\nfilter_chains: [{filters: [" + limit("max_connections: 7") + "]}]": "unsupported network filter",
	} {
		if _, err := from(t, decode.Listener, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestAChainsTapIsReadByItsFilter(t *testing.T) {
	const tapped = `metadata: {filter_metadata: {io.outrigger: {tap: {taps: [{name: %q}]}}}}`
	spec := filter.Spec{Name: "tap", TypeURL: "type.googleapis.com/io.outrigger.v1.Tap", Connection: &filter.ConnectionSpec{Parse: func(config []byte) (any, error) {
		if strings.Contains(string(config), "bad") {
			return nil, errors.New("is bad")
		}
		return string(config), nil
	}}}
	listener := func(text string, known ...filter.Spec) (*resource.Listener, error) {
		t.Helper()
		var m listenerv3.Listener
		if err := decode.File([]byte(aListener+text), "test", &m); err != nil {
			t.Fatal(err)
		}
		r, err := decode.NewDecoder(filter.NewRegistry(append(known, filter.Spec{Name: "router", TypeURL: routerURL})...)).Message(decode.Listener, &m)
		if err != nil {
			return nil, err
		}
		return r.Value.(*resource.Listener), nil
	}
	l, err := listener("filter_chains: [{"+aTCPProxy+", "+fmt.Sprintf(tapped, "a")+"}]", spec)
	if err != nil {
		t.Fatal(err)
	}
	if f := l.FilterChains[0].TCP.Tap; f == nil || f.TypeURL != spec.TypeURL || f.Config != `{"taps":[{"name":"a"}]}` {
		t.Errorf("got %+v", f)
	}
	http := `filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h,
		route_config: {name: r}, http_filters: [{name: r, typed_config: {"@type": ` + routerURL + `}}]}}]`
	tap, bad := fmt.Sprintf(tapped, "a"), fmt.Sprintf(tapped, "bad")
	for _, c := range []struct {
		text string
		want string
		spec []filter.Spec
	}{
		{"filter_chains: [{" + aTCPProxy + ", " + bad + "}]", "tap: is bad", []filter.Spec{spec}},
		{"filter_chains: [{" + http + ", " + tap + "}]", "tap: is for chains with tcp_proxy only", []filter.Spec{spec}},
		{"filter_chains: [{" + aTCPProxy + ", " + tap + "}]", "tap: not supported", nil},
		{tap + "\nfilter_chains: [{" + aTCPProxy + "}]", "tap: is for filter chains only", []filter.Spec{spec}},
	} {
		if _, err := listener(c.text, c.spec...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}
