// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"slices"

	// Messages that only filters parse. A typed_config of theirs in a file must be
	// known by type to be turned from YAML into bytes.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/adaptive_concurrency/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	// Retry host predicates, which have no settings.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	// What stands below another transport socket.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
)

// MessagesRead names the messages whose fields are read. A program must link them all:
// the files that it reads name their types.
func MessagesRead() []string {
	names := make([]string, 0, len(read))
	for name := range read {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}
