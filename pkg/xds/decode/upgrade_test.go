// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func routeWith(upgrades string) string {
	return "name: r\nvirtual_hosts:\n- name: v\n  domains: [a]\n  routes:\n  - {match: {connect_matcher: {}}, route: {cluster: c, upgrade_configs: " + upgrades + "}}\n"
}

func TestUpgradesAreRead(t *testing.T) {
	rc := must[resource.RouteConfig](t, decode.Route, routeWith(`[{upgrade_type: CONNECT, connect_config: {}}, {upgrade_type: websocket, enabled: false}]`))
	r := rc.VirtualHosts[0].Routes[0]
	want := []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true, Terminate: true}, {Type: "websocket"}}
	if r.Match.Kind != resource.PathConnect || !reflect.DeepEqual(r.Action.Upgrades, want) {
		t.Errorf("the route has %+v and %+v", r.Match, r.Action.Upgrades)
	}
	l := must[resource.Listener](t, decode.Listener, hcmHead+rds+routerTail+`      upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: SPDY/3.1, enabled: false}]`)
	want = []resource.Upgrade{{Type: "websocket", Enabled: true}, {Type: "spdy/3.1"}}
	if got := l.FilterChains[0].HTTP.Upgrades; !reflect.DeepEqual(got, want) {
		t.Errorf("the manager has %+v", got)
	}
}

func TestUpgradesThatCannotBeAreRefusedByFieldPath(t *testing.T) {
	manager := func(s string) string { return hcmHead + rds + routerTail + "      upgrade_configs: " + s }
	for _, c := range []struct {
		kind     decode.Kind
		in, want string
	}{
		{decode.Route, routeWith(`[{upgrade_type: h2c}]`), `upgrade_configs[0].upgrade_type: "h2c" is never switched to`},
		{decode.Route, routeWith(`[{upgrade_type: "a b"}]`), `upgrade_configs[0].upgrade_type: is no protocol name`},
		{decode.Route, routeWith(`[{}]`), `upgrade_configs[0].upgrade_type: value length must be at least 1 runes`},
		{decode.Route, routeWith(`[{upgrade_type: websocket}, {upgrade_type: WebSocket}]`), `upgrade_configs[1].upgrade_type: is given twice`},
		{decode.Route, routeWith(`[{upgrade_type: CONNECT-UDP}]`), `upgrade_configs[0].upgrade_type: not supported by this version`},
		{decode.Route, routeWith(`[{upgrade_type: websocket, connect_config: {}}]`), `upgrade_configs[0].connect_config: is for the upgrade_type CONNECT only`},
		{decode.Route, routeWith(`[{upgrade_type: CONNECT, connect_config: {allow_post: true}}]`), `connect_config.allow_post: not supported by this version`},
		{decode.Route, routeWith(`[{upgrade_type: CONNECT, connect_config: {proxy_protocol_config: {}}}]`), `connect_config.proxy_protocol_config: not supported by this version`},
		{decode.Listener, manager(`[{upgrade_type: H2C}]`), `upgrade_configs[0].upgrade_type: "H2C" is never switched to`},
		{decode.Listener, manager(`[{upgrade_type: websocket, filters: [{name: x}]}]`), `upgrade_configs[0].filters: not supported by this version`},
	} {
		if _, err := from(t, c.kind, c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngot  %v\nwant %s", c.in, err, c.want)
		}
	}
}
