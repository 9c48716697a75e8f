// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func clusterMatches(matches string) string {
	return `{name: c, type: STATIC, connect_timeout: 1s, transport_socket_matches: [` + matches + `]}`
}

const plainMatch = `{name: plain, match: {}, transport_socket: {name: raw, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}`

func TestTransportSocketMatchesAreRead(t *testing.T) {
	r, err := from(t, decode.Cluster, clusterMatches(`
    {name: tls, match: {mutualTLS: "true", zone: a}, transport_socket: {name: tls, typed_config: {`+tlsType+`UpstreamTlsContext, common_tls_context: {
      tls_certificate_sds_secret_configs: [{name: "outrigger:identity"}], validation_context_sds_secret_config: {name: "outrigger:roots"}}}}},`+plainMatch))
	if err != nil {
		t.Fatal(err)
	}
	got := r.Value.(*resource.Cluster).SocketMatches
	if len(got) != 2 || !reflect.DeepEqual(got[0].Match, map[string]string{"mutualTLS": "true", "zone": "a"}) || got[0].TLS.ValidationSecret != resource.RootsSecret ||
		len(got[1].Match) != 0 || got[1].TLS != nil {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{resource.IdentitySecret, resource.RootsSecret} {
		found := false
		for _, ref := range r.Refs {
			found = found || ref.Kind == decode.Secret && ref.Name == name && ref.Source.Kind == decode.NoSource
		}
		if !found {
			t.Errorf("the secret %q is not needed, or has a source: %+v", name, r.Refs)
		}
	}
}

func TestTransportSocketMatchesThatCannotBeMeantAreRefused(t *testing.T) {
	for matches, path := range map[string]string{
		`{name: a, match: {x: 1}}`: `transport_socket_matches[0].match["x"]`,
		`{name: a, match: {}, transport_socket: {name: q, typed_config: {"@type": type.googleapis.com/google.protobuf.Empty}}}`: "transport_socket_matches[0].transport_socket",
		strings.Repeat(plainMatch+",", 65): "transport_socket_matches: has more than 64",
		// A server that knows the secrets of a sidecar would know its key.
		`{name: a, transport_socket: {name: tls, typed_config: {` + tlsType + `UpstreamTlsContext, common_tls_context: {
      tls_certificate_sds_secret_configs: [{name: "outrigger:identity", sds_config: {ads: {}}}]}}}}`: "tls_certificate_sds_secret_configs[0].sds_config",
	} {
		if _, err := from(t, decode.Cluster, clusterMatches(matches)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%.80s: %v, want %q", matches, err, path)
		}
	}
}
