// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const (
	subscribedClusters = `
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: c
  type: EDS
  connect_timeout: 1s
  eds_cluster_config: {eds_config: SOURCE(endpoints), service_name: "of:c"}
`
	subscribedEndpoints = `
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: "of:c"
  endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]
`
	subscribedRoutes = `
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: "r:1"
  virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /a}, route: {cluster: c}}]}]
`
	subscribedScopes = `
- "@type": type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration
  name: one
  route_configuration_name: r2
  key: {fragments: [{string_key: k}]}
`
	subscribedListener = `
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: NAME
  address: ADDRESS
  filter_chains:
  - filters:
    - name: hcm
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: NAME
        ROUTES
        http_filters:
        - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`
	subscribedOne    = `rds: {route_config_name: "r:1", config_source: SOURCE(routes)}`
	subscribedScoped = `scoped_routes: {name: s, scope_key_builder: {fragments: [{header_value_extractor: {name: x, index: 0}}]}, rds_config_source: SOURCE(scopedroutes), scoped_rds: {scoped_rds_config_source: SOURCE(scopes)}}`
)

// Names and types of resources, by the files that have them.
var (
	subscribedNames = map[string]string{"clusters": "c", "endpoints": "of:c", "routes": "r:1", "listeners": "in", "secrets": secretName, "filters": "of.calls", "runtime": "values"}
	subscribedTypes = map[string]string{
		"clusters": resourcev3.ClusterType, "endpoints": resourcev3.EndpointType, "routes": resourcev3.RouteType, "listeners": resourcev3.ListenerType,
		"secrets": resourcev3.SecretType, "filters": resourcev3.ExtensionConfigType, "runtime": resourcev3.RuntimeType,
	}
)

// subscriptions is a proxy that gets all it has from files, or by ADS.
type subscriptions struct {
	*ofFiles
	api string // "file", "GRPC", "DELTA_GRPC"
	// twice says that a refusal counts as two attempts where the response could be decoded:
	// of Envoy, on a delta stream.
	twice  bool
	server *xdstest.Raw
	// compared are the scopes that are compared, with what they have beside what all have.
	compared map[string][]string
	sent     int
	want     map[string]uint64
}

// send puts the resources of a file into service, as a version of its own, which it
// returns as stats show it.
func (s *subscriptions) send(name, resources string) uint64 {
	s.t.Helper()
	s.sent++
	version := fmt.Sprintf("v%d", s.sent)
	text := s.sourced("version_info: " + version + "\nresources:" + resources)
	if s.api == "file" {
		s.write(name+".yaml", text)
		return lb.HashBytes([]byte(version))
	}
	var r discoveryv3.DiscoveryResponse
	if err := decode.File([]byte(text), name, &r); err != nil {
		s.t.Fatal(err)
	}
	var list []xdstest.Named
	for _, a := range r.GetResources() {
		list = append(list, xdstest.Named{Name: subscribedNames[name], Any: a})
	}
	s.server.Set(subscribedTypes[name], version, list...)
	return lb.HashBytes([]byte(version))
}

// sourced says where things come from: SOURCE(name) is the file of that name, or ADS.
func (s *subscriptions) sourced(text string) string {
	for source := range strings.SplitSeq(text, "SOURCE(") {
		file, _, found := strings.Cut(source, ")")
		by := "{ads: {}, resource_api_version: V3}"
		if s.api == "file" {
			by = fmt.Sprintf("{path_config_source: {path: %s/%s.yaml}}", s.dir, file)
		}
		if found {
			text = strings.ReplaceAll(text, "SOURCE("+file+")", by)
		}
	}
	return text
}

func (s *subscriptions) listener(name, address, routes string) string {
	return strings.NewReplacer("NAME", name, "ADDRESS", mesh.SocketAddress(address), "ROUTES", routes).Replace(subscribedListener)
}

func (s *subscriptions) bootstrap() string {
	ads := "\n"
	by := func(name string) string { return fmt.Sprintf("{path_config_source: {path: %s/%s.yaml}}", s.dir, name) }
	if s.api != "file" {
		by = func(string) string { return "{ads: {}, resource_api_version: V3}" }
		ads = fmt.Sprintf(`
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
static_resources:
  clusters:
%s`, s.api, mesh.StaticCluster("xds", mesh.ToHTTP2, s.server.Addr))
	}
	return fmt.Sprintf("node: {id: stats, cluster: stats}\nadmin: {address: %s}\ndynamic_resources:\n  cds_config: %s\n  lds_config: %s", mesh.SocketAddress(s.admin), by("clusters"), by("listeners")) + ads
}

// got are the stats of subscriptions, without those that are times.
func (s *subscriptions) got() (map[string]uint64, error) {
	body, err := mesh.Get("http://" + s.admin + "/stats?type=Counters")
	if err != nil {
		return nil, err
	}
	gauges, err := mesh.Get("http://" + s.admin + "/stats?type=Gauges")
	if err != nil {
		return nil, err
	}
	got := map[string]uint64{}
	for line := range strings.Lines(body + gauges) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		var scope string
		for prefix := range s.scopes() {
			if strings.HasPrefix(name, prefix) {
				scope = prefix
			}
		}
		last := strings.TrimPrefix(name, scope)
		switch {
		case scope == "" || strings.Contains(last, "."), last == "update_time", last == "config_reload_time_ms", last == "on_demand_scopes":
			continue
		case strings.HasPrefix(last, "update_"), strings.HasPrefix(last, "config_"), last == "version", last == "init_fetch_timeout", last == "warming_state", strings.HasSuffix(last, "_scopes"):
		default:
			continue
		}
		var n uint64
		if _, err := fmt.Sscan(value, &n); err != nil {
			return nil, fmt.Errorf("%s: %q is no number", name, value)
		}
		got[name] = n
	}
	return got, nil
}

// scopes are what stats are compared, with the stats of some only.
func (s *subscriptions) scopes() map[string][]string {
	if s.compared != nil {
		return s.compared
	}
	reloads := []string{"config_reload"}
	all := map[string][]string{
		"cluster_manager.cds.": reloads, "listener_manager.lds.": nil,
		"cluster.c.": {"update_empty", "update_no_rebuild", "warming_state"}, "http.in.rds.r_1.": {"config_reload", "update_empty"},
	}
	if s.api == "file" {
		all["http.scoped.rds.r2."], all["http.scoped.scoped_rds.s."] = []string{"config_reload", "update_empty"}, []string{"config_reload", "update_empty", "all_scopes", "active_scopes"}
	}
	return all
}

// awaits waits until the stats have changed by these, with all others as they were.
func (s *subscriptions) awaits(when, scope string, version uint64, counted ...string) {
	s.t.Helper()
	if version != 0 {
		s.want[scope+"version"] = version
	}
	for _, name := range counted {
		s.want[scope+name]++
	}
	s.proxy.Await(routeLimit, "the stats "+when, func() error {
		got, err := s.got()
		if err == nil && !maps.Equal(got, s.want) {
			err = fmt.Errorf("got %v, want %v", differences(got, s.want), differences(s.want, got))
		}
		return err
	})
}

// differences are what a has and b has not.
func differences(a, b map[string]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for name, n := range a {
		if m, ok := b[name]; !ok || m != n {
			out[name] = n
		}
	}
	return out
}

// TestStatsOfSubscriptionsAreEnvoys: the same resources, from files and by ADS, changed,
// refused and lost with their source, are counted alike, of the sidecar and of Envoy.
func TestStatsOfSubscriptionsAreEnvoys(t *testing.T) {
	mesh.Both(t, func(t *testing.T, program string) {
		for _, api := range []string{"file", "GRPC", "DELTA_GRPC"} {
			t.Run(api, func(t *testing.T) {
				s := &subscriptions{api: api, want: map[string]uint64{}, ofFiles: newOfFiles(t)}
				if api != "file" {
					s.server = xdstest.StartRaw(t)
				}
				s.twice = program == "envoy" && api == "DELTA_GRPC"
				s.run(program)
			})
		}
	})
}

func (s *subscriptions) run(program string) {
	s.t.Helper()
	for scope, more := range s.scopes() {
		for _, name := range append(more, "update_attempt", "update_success", "update_rejected", "update_failure", "init_fetch_timeout", "version") {
			s.want[scope+name] = 0
		}
		s.want[scope+"update_attempt"]++
		s.want[scope+"update_success"]++
		if s.api != "file" {
			s.want[scope+"update_attempt"]++ // it is asked for once, and each response counts
		}
		if len(more) > 0 && more[0] == "config_reload" {
			s.want[scope+"config_reload"]++
		}
	}
	listeners := s.listener("in", s.listen, subscribedOne)
	if s.api == "file" {
		listeners += s.listener("scoped", mesh.FreeAddress(s.t), subscribedScoped)
		s.want["http.scoped.scoped_rds.s.version"] = s.send("scopes", subscribedScopes)
		s.want["http.scoped.rds.r2.version"] = s.send("scopedroutes", strings.Replace(subscribedRoutes, "r:1", "r2", 1))
		s.want["http.scoped.scoped_rds.s.all_scopes"], s.want["http.scoped.scoped_rds.s.active_scopes"] = 1, 1
	}
	s.want["cluster.c.version"] = s.send("endpoints", subscribedEndpoints)
	s.want["http.in.rds.r_1.version"] = s.send("routes", subscribedRoutes)
	s.want["cluster_manager.cds.version"] = s.send("clusters", subscribedClusters)
	s.want["listener_manager.lds.version"] = s.send("listeners", listeners)
	s.proxy = mesh.StartProxy(s.t, program, s.dir, s.bootstrap(), s.admin)
	s.awaits("at first", "", 0)

	const taken, refused = "update_success", "update_rejected"
	others := strings.Replace(subscribedEndpoints, "port_value: 9", "port_value: 10", 1)
	s.awaits("after other endpoints", "cluster.c.", s.send("endpoints", others), "update_attempt", taken)
	s.awaits("after the same endpoints", "cluster.c.", s.send("endpoints", others), "update_attempt", taken, "update_no_rebuild")
	s.send("endpoints", strings.Replace(others, "127.0.0.1", "nowhere", 1))
	s.refuses("endpoints", "cluster.c.")
	s.awaits("after good endpoints", "cluster.c.", s.send("endpoints", others), "update_attempt", taken, "update_no_rebuild")
	switch version := s.send("endpoints", " []\n"); s.api {
	case "GRPC": // what a response does not have stays
	default:
		s.awaits("without endpoints", "cluster.c.", version, "update_attempt", taken, "update_empty")
	}

	another := strings.Replace(subscribedRoutes, "/a", "/b", 1)
	s.awaits("after other routes", "http.in.rds.r_1.", s.send("routes", another), "update_attempt", taken, "config_reload")
	s.awaits("after the same routes", "http.in.rds.r_1.", s.send("routes", another), "update_attempt", taken)
	s.send("routes", another+"  request_headers_to_add: [{header: {key: '', value: b}}]\n")
	s.awaits("after routes that are refused", "http.in.rds.r_1.", 0, "update_attempt", refused)
	switch version := s.send("routes", " []\n"); s.api {
	case "file":
		s.awaits("without routes", "http.in.rds.r_1.", version, "update_attempt", taken, "update_empty")
		s.awaits("after another scope", "http.scoped.scoped_rds.s.", s.send("scopes", strings.Replace(subscribedScopes, "string_key: k", "string_key: l", 1)), "update_attempt", taken, "config_reload")
	case "DELTA_GRPC":
		s.awaits("without routes", "http.in.rds.r_1.", version, "update_attempt", taken)
	}

	s.send("clusters", strings.Replace(subscribedClusters, "1s", "-1s", 1))
	s.awaits("after a cluster that is refused", "cluster_manager.cds.", 0, "update_attempt", refused)
	s.send("listeners", strings.Replace(listeners, "stat_prefix: in", "stat_prefix: ''", 1))
	s.refuses("listeners", "listener_manager.lds.")
	s.lose()
}

// refuses waits until what was decoded, but is no good, has been counted.
func (s *subscriptions) refuses(what, scope string) {
	s.t.Helper()
	if s.twice {
		s.want[scope+"update_attempt"]++
	}
	s.awaits("after "+what+" that are refused", scope, 0, "update_attempt", "update_rejected")
}

// lose takes the source away: each loss counts, and each attempt to get it back.
func (s *subscriptions) lose() {
	s.t.Helper()
	if s.api == "file" {
		for _, name := range []string{"clusters", "endpoints", "routes", "listeners"} {
			scope := map[string]string{"clusters": "cluster_manager.cds.", "endpoints": "cluster.c.", "routes": "http.in.rds.r_1.", "listeners": "listener_manager.lds."}[name]
			for _, nonsense := range []string{"{ nonsense", "{ more"} {
				s.write(name+".yaml", nonsense)
				s.awaits("after a file that cannot be read", scope, 0, "update_attempt", "update_failure")
			}
		}
		return
	}
	s.server.Stop()
	s.proxy.Await(routeLimit, "the stats without a server", func() error {
		got, err := s.got()
		if err != nil {
			return err
		}
		want := maps.Clone(s.want)
		for scope := range s.scopes() {
			n := got[scope+"update_failure"]
			if n < 2 {
				return fmt.Errorf("%supdate_failure is %d, want 2 at least", scope, n)
			}
			want[scope+"update_failure"] += n
			want[scope+"update_attempt"] += n
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("got %v, want %v", differences(got, want), differences(want, got))
		}
		return nil
	})
}
