// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func dnsCluster(t *testing.T, fields string) (*Resource, error) {
	t.Helper()
	var m clusterv3.Cluster
	if err := protojson.Unmarshal([]byte(`{"name": "c", `+fields+`}`), &m); err != nil {
		t.Fatal(err)
	}
	return NewDecoder(nil).Message(Cluster, &m)
}

func named(list ...string) string {
	var b []string
	for _, n := range list {
		b = append(b, `{"endpoint": {"address": {"socket_address": {"address": "`+n+`", "port_value": 80}}}}`)
	}
	return `"load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [` + strings.Join(b, ",") + `]}]}`
}

const cares = `"typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": {
	"@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
	"resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": 5353}}, {"socket_address": {"address": "10.0.0.2", "port_value": 0}}],
	"dns_resolver_options": {"use_tcp_for_dns_lookups": true, "no_default_search_domain": true}, "query_timeout_seconds": 2, "query_tries": 1}}`

func TestDNSClustersHaveEnvoysFieldsAndDefaults(t *testing.T) {
	resolvers := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5353"), netip.MustParseAddrPort("10.0.0.2:53")}
	for _, tt := range []struct {
		name, fields string
		kind         resource.ClusterType
		want         resource.DNSLookup // but for key and names
	}{
		{"defaults", `"type": "STRICT_DNS", ` + named("x.test", "10.0.0.1"), resource.StrictDNS, resource.DNSLookup{
			Refresh: 5 * time.Second, MinRefresh: time.Second, QueryTimeout: 5 * time.Second, QueryTries: 4,
		}},
		{"all fields", `"type": "LOGICAL_DNS", "dns_refresh_rate": "1s", "dns_jitter": "0.5s", "respect_dns_ttl": true, "dns_lookup_family": "V4_PREFERRED",
			"dns_failure_refresh_rate": {"base_interval": "2s"}, "wait_for_warm_on_init": false, ` + cares + "," + named("x.test"), resource.LogicalDNS, resource.DNSLookup{
			Refresh: time.Second, Jitter: time.Second / 2, RespectTTL: true, MinRefresh: time.Second, Family: resource.DNSV4Preferred,
			FailureBase: 2 * time.Second, FailureMax: 20 * time.Second, StartsWithout: true,
			Resolvers: resolvers, TCP: true, NoSearch: true, QueryTimeout: 2 * time.Second, QueryTries: 1,
		}},
		{"old resolvers", `"type": "STRICT_DNS", "dns_resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": 5353}}], "use_tcp_for_dns_lookups": true, "dns_lookup_family": "ALL", ` + named("x.test"),
			resource.StrictDNS, resource.DNSLookup{
				Refresh: 5 * time.Second, MinRefresh: time.Second, QueryTimeout: 5 * time.Second, QueryTries: 4, Resolvers: resolvers[:1], TCP: true, Family: resource.DNSAll,
			}},
		{"DnsCluster", `"cluster_type": {"name": "envoy.cluster.dns", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
			"dns_refresh_rate": "1s", "dns_lookup_family": "V6_ONLY", "respect_dns_ttl": true, "dns_min_refresh_rate": "3s", "all_addresses_in_single_endpoint": true, ` + cares + `}}, ` + named("x.test"),
			resource.LogicalDNS, resource.DNSLookup{
				Refresh: time.Second, RespectTTL: true, MinRefresh: 3 * time.Second, Family: resource.DNSV6Only,
				Resolvers: resolvers, TCP: true, NoSearch: true, QueryTimeout: 2 * time.Second, QueryTries: 1,
			}},
	} {
		r, err := dnsCluster(t, tt.fields)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		c := r.Value.(*resource.Cluster)
		got := *c.DNS
		if got.Names.Localities[0].Endpoints[0].Address != (resource.Address{Host: "x.test", Port: 80}) {
			t.Errorf("%s: endpoints %+v", tt.name, got.Names)
		}
		if len(r.Refs) != 1 || r.Refs[0].Kind != Endpoints || r.Refs[0].Name != got.Key || c.Discovered() != got.Key || got.Key == "" {
			t.Errorf("%s: needs %+v, its key is %q", tt.name, r.Refs, got.Key)
		}
		got.Key, got.Names = "", nil
		if c.Type != tt.kind || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: type %d, got\n%+v, want\n%+v", tt.name, c.Type, got, tt.want)
		}
	}
}

func TestOnlyAnotherLookupHasAnotherKey(t *testing.T) {
	key := func(fields string) string {
		r, err := dnsCluster(t, fields)
		if err != nil {
			t.Fatal(err)
		}
		return r.Value.(*resource.Cluster).DNS.Key
	}
	first := key(`"type": "STRICT_DNS", ` + named("x.test"))
	if again := key(`"type": "STRICT_DNS", "connect_timeout": "1s", ` + named("x.test")); again != first {
		t.Errorf("with another connect_timeout: %q, before %q", again, first)
	}
	for _, other := range []string{
		`"type": "STRICT_DNS", ` + named("y.test"), `"type": "LOGICAL_DNS", ` + named("x.test"),
		`"type": "STRICT_DNS", "dns_refresh_rate": "1s", ` + named("x.test"),
	} {
		if key(other) == first {
			t.Errorf("%s has the same key", other)
		}
	}
}

func TestBadDNSClustersAreRefusedByField(t *testing.T) {
	for _, tt := range []struct{ fields, want string }{
		{`"type": "STRICT_DNS", "dns_refresh_rate": "0s", ` + named("x"), "dns_refresh_rate"},
		{`"type": "STRICT_DNS", "dns_failure_refresh_rate": {"base_interval": "2s", "max_interval": "1s"}, ` + named("x"), "dns_failure_refresh_rate.max_interval: must not be less"},
		{`"type": "STRICT_DNS", "dns_resolvers": [{"socket_address": {"address": "ns.test", "port_value": 53}}], ` + named("x"), `dns_resolvers[0].socket_address.address: "ns.test" is no IP address`},
		{`"type": "STRICT_DNS", ` + named("x y"), `load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "x y" is neither`},
		{`"type": "LOGICAL_DNS", ` + named("x", "y"), "load_assignment: must have one locality with one endpoint"},
		{`"type": "STATIC", ` + named("x"), `"x" is no IP address`},
		{`"type": "STRICT_DNS", "typed_dns_resolver_config": {"name": "g", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "rotate_nameservers": true}}, ` + named("x"), "typed_dns_resolver_config.typed_config.rotate_nameservers: not supported"},
		{`"type": "STRICT_DNS", "typed_dns_resolver_config": {"name": "g", "typed_config": {"@type": "type.googleapis.com/envoy.config.core.v3.Address"}}, ` + named("x"), "typed_dns_resolver_config.typed_config: unsupported type"},
	} {
		if _, err := dnsCluster(t, tt.fields); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.fields, err, tt.want)
		}
	}
}

func TestNamesOfOnlyAddressesNeedNoLookup(t *testing.T) {
	r, err := dnsCluster(t, `"type": "STRICT_DNS", `+named("10.0.0.1", "::1"))
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Value.(*resource.Cluster); c.Type != resource.Static || len(c.Static.Localities[0].Endpoints) != 2 || len(r.Refs) != 0 {
		t.Errorf("%+v needs %+v", c, r.Refs)
	}
}

func aggregateOf(lbPolicy string, members ...string) string {
	return `"lb_policy": "` + lbPolicy + `", "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": ["` + strings.Join(members, `", "`) + `"]}}`
}

func TestAggregatesNeedTheirMembers(t *testing.T) {
	r, err := dnsCluster(t, aggregateOf("CLUSTER_PROVIDED", "b", "a"))
	if err != nil {
		t.Fatal(err)
	}
	c := r.Value.(*resource.Cluster)
	if c.Type != resource.Aggregate || !reflect.DeepEqual(c.Members, []string{"b", "a"}) || len(r.Refs) != 2 || r.Refs[0].Kind != Cluster || r.Refs[0].Name != "b" {
		t.Errorf("%+v needs %+v", c, r.Refs)
	}
	for fields, want := range map[string]string{
		aggregateOf("CLUSTER_PROVIDED", "a", "c"):                          `cluster_type.typed_config.clusters[1]: "c" is the cluster itself`,
		aggregateOf("CLUSTER_PROVIDED", "a", "a"):                          `cluster_type.typed_config.clusters[1]: "a" is empty or listed twice`,
		aggregateOf("ROUND_ROBIN", "a"):                                    "lb_policy: must be CLUSTER_PROVIDED where the cluster is an aggregate",
		aggregateOf("CLUSTER_PROVIDED", "a") + `, "outlier_detection": {}`: "outlier_detection: must not be set where the cluster is an aggregate",
		aggregateOf("CLUSTER_PROVIDED", "a") + `, "metadata": {"filter_metadata": {"io.outrigger": {"fallback": {"status": 200}}}}`: "fallback: must not be set where the cluster is an aggregate",
	} {
		if _, err := dnsCluster(t, fields); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
}
