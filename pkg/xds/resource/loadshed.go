// SPDX-License-Identifier: Apache-2.0

package resource

// LoadShedPointKind is a place in the life of a connection or a request at which a
// process under pressure lets go of it.
type LoadShedPointKind uint8

// The kinds, in the order in which a request meets them.
const (
	ShedAccept         LoadShedPointKind = iota // a connection, before anything looks at it
	ShedCodec                                   // a connection, with its first bytes
	ShedHTTP1                                   // a connection of HTTP/1, as a request begins on it
	ShedGoAway                                  // a connection of HTTP/2, gracefully
	ShedGoAwayAndClose                          // a connection of HTTP/2, at once
	ShedHeaders                                 // a request, before its route is looked for
	ShedFilters                                 // a request, before the filters
	ShedUpstream                                // an attempt for which a connection would have to be made
	LoadShedPoints                              // how many there are
)

// loadShedNames are Envoy's.
var loadShedNames = [LoadShedPoints]string{
	"envoy.load_shed_points.tcp_listener_accept", "envoy.load_shed_points.hcm_ondata_creating_codec",
	"envoy.load_shed_points.http1_server_abort_dispatch", "envoy.load_shed_points.http2_server_go_away_on_dispatch",
	"envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch", "envoy.load_shed_points.http_connection_manager_decode_headers",
	"envoy.load_shed_points.http_downstream_filter_check", "envoy.load_shed_points.connection_pool_new_connection",
}

// String is Envoy's name.
func (k LoadShedPointKind) String() string { return loadShedNames[k] }

// LoadShedPointByName finds a point by Envoy's name.
func LoadShedPointByName(name string) (LoadShedPointKind, bool) {
	for i, n := range loadShedNames {
		if n == name {
			return LoadShedPointKind(i), true
		}
	}
	return 0, false
}

// LoadShedPoint sheds as much as the one of its triggers says that says most.
type LoadShedPoint struct {
	Kind     LoadShedPointKind
	Triggers []OverloadTrigger
}
