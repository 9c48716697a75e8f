// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

func TestFiltersThatComeByThemselvesAreCheckedBeforeTheyDo(t *testing.T) {
	const router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
	for _, c := range []struct{ name, filter, want string }{
		{"no source", `type_urls: [x]`, `config_discovery.config_source`},
		{"no type", `config_source: {ads: {}}`, `config_discovery.type_urls`},
		{"a type that is not known", `config_source: {ads: {}}, type_urls: [envoy.extensions.filters.http.lua.v3.Lua]`, `type_urls[0]: unknown HTTP filter type "envoy.extensions.filters.http.lua.v3.Lua"`},
		{"the router", `config_source: {ads: {}}, type_urls: [` + router + `]`, `type_urls[0]: the router is not discovered`},
		{"an early default that is none", `config_source: {ads: {}}, type_urls: [x], apply_default_config_without_warming: true`, `apply_default_config_without_warming: needs default_config`},
		{"a router as the default", `config_source: {ads: {}}, type_urls: [x], default_config: {"@type": ` + router + `}`, `default_config: the router is not discovered`},
	} {
		text := aListener + `
filter_chains:
- filters:
  - name: http
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      route_config: {name: r}
      http_filters:
      - {name: dyn, config_discovery: {` + c.filter + `}}
      - {name: router, typed_config: {"@type": ` + router + `}}
`
		if _, err := from(t, decode.Listener, text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzDecodeExtension(f *testing.F) {
	fuzzKind(f, decode.Extension,
		yaml(f, decode.Extension, `{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`),
		yaml(f, decode.Extension, `{name: a, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: x, value: {a: b}}}`),
	)
}
