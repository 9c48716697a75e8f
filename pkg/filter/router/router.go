// SPDX-License-Identifier: Apache-2.0

// Package router is the marker that ends every HTTP filter chain. Routing itself
// is the data path's (pkg/proxy): the marker has no hooks and is never made.
package router

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// TypeURL is the type of the router's configuration.
const TypeURL = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"

// Spec describes the marker.
func Spec() filter.Spec {
	return filter.Spec{Name: "envoy.filters.http.router", TypeURL: TypeURL, Parse: parse}
}

// Config are the settings of the router that the data path honours.
type Config struct {
	// SuppressEnvoyHeaders keeps x-envoy-… headers of the proxy's own from
	// requests and responses.
	SuppressEnvoyHeaders bool
	// StrictHeaders are names of x-envoy-… request headers whose values must be
	// valid, else the request is refused.
	StrictHeaders []string
}

// Fields of the message Router.
const (
	fieldDynamicStats    = 1
	fieldStartChildSpan  = 2
	fieldSuppressHeaders = 4
	fieldStrictHeaders   = 5
	fieldSuppressGRPC    = 7
)

// unsupported are the fields that are refused by name.
var unsupported = map[protowire.Number]string{
	3: "upstream_log", 6: "respect_expected_rq_timeout", 8: "upstream_http_filters",
	9: "upstream_log_options", 10: "reject_connect_request_early_data",
}

// parse reads the message by hand: this package is linked into the data path,
// where protobuf types do not belong. Statistics are always dynamic here, and
// child spans are a setting of tracing, so both are read and change nothing.
func parse(config []byte) (any, error) {
	c := &Config{}
	for b := config; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, fmt.Errorf("not a message: %w", protowire.ParseError(n))
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return nil, fmt.Errorf("field %d: %w", num, protowire.ParseError(n))
		}
		v := b[:n]
		b = b[n:]
		switch num {
		case fieldSuppressHeaders:
			c.SuppressEnvoyHeaders = len(v) == 1 && v[0] == 1
		case fieldStrictHeaders:
			s, _ := protowire.ConsumeString(v)
			c.StrictHeaders = append(c.StrictHeaders, s)
		case fieldDynamicStats, fieldStartChildSpan, fieldSuppressGRPC:
		default:
			if name := unsupported[num]; name != "" {
				return nil, fmt.Errorf("%s: not supported", name)
			}
			return nil, fmt.Errorf("field %d: not supported", num)
		}
	}
	return c, nil
}
