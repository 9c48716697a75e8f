// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/freeport/freeporttest"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

var usualZones = resource.ZoneAware{Enabled: 100, MinClusterSize: 6}

// zoneCase are numbers of hosts by zone, of which "a" is ours; "2!" are unhealthy.
type zoneCase struct {
	name     string
	local    string
	upstream string
	zones    resource.ZoneAware
	panicOff bool
	fail     bool
	want     map[string]float64 // shares by zone; "" is no host at all
	outcomes string             // how requests come to their zone: letters of outcomeOf
}

const outcomeOf = "-dsca"

// zoneCases have what Envoy's documentation and the comments in its source tell; the
// shares are those of the rule as it is documented, and of Envoy itself.
var zoneCases = []zoneCase{
	{"same shares stay", "a=2 b=2", "a=3 b=3", usualZones, false, false, map[string]float64{"a": 1}, "d"},
	{"more capacity here", "a=1 b=3", "a=4 b=4", usualZones, false, false, map[string]float64{"a": 1}, "d"},
	{"half the capacity", "a=2 b=2", "a=2 b=6", usualZones, false, false, map[string]float64{"a": .5, "b": .5}, "sc"},
	// 40 %, 40 %, 20 % and 25 %, 50 %, 25 %: what leaves goes to both others as 10 to 5.
	{"residual capacity", "a=4 b=4 c=2", "a=2 b=4 c=2", usualZones, false, false, map[string]float64{"a": .625, "b": .25, "c": .125}, "sc"},
	{"nobody here", "a=2 b=2", "b=3 c=3", usualZones, false, false, map[string]float64{"c": 1}, "c"},
	{"none here and no capacity", "a=2 b=2", "a=0 b=6", usualZones, false, false, map[string]float64{"b": 1}, "-"},
	{"too small", "a=2 b=2", "a=2 b=3", usualZones, false, false, map[string]float64{"a": .4, "b": .6}, "-"},
	{"small enough by settings", "a=2 b=2", "a=2 b=2", resource.ZoneAware{Enabled: 100, MinClusterSize: 4}, false, false, map[string]float64{"a": 1}, "d"},
	{"one zone of members", "a=2", "a=3 b=3", usualZones, false, false, map[string]float64{"a": .5, "b": .5}, "-"},
	{"one zone upstream", "a=2 b=2", "b=6", usualZones, false, false, map[string]float64{"b": 1}, "-"},
	{"no member here", "b=2 c=2", "a=3 b=3", usualZones, false, false, map[string]float64{"a": .5, "b": .5}, "-"},
	{"for half of the requests", "a=2 b=2", "a=3 b=3", resource.ZoneAware{Enabled: 50, MinClusterSize: 6}, false, false, map[string]float64{"a": .75, "b": .25}, "-d"},
	{"forced", "a=2 b=2", "a=1 b=7", resource.ZoneAware{Enabled: 100, MinClusterSize: 6, ForceLocal: true, ForceMinSize: 1}, false, false, map[string]float64{"a": 1}, "d"},
	{"forced with too few", "a=2 b=2", "a=2 b=6", resource.ZoneAware{Enabled: 100, MinClusterSize: 6, ForceLocal: true, ForceMinSize: 3}, false, false, map[string]float64{"a": .5, "b": .5}, "sc"},
	{"forced and members in one zone", "a=2", "a=3 b=3", resource.ZoneAware{Enabled: 100, MinClusterSize: 6, ForceLocal: true, ForceMinSize: 1}, false, false, map[string]float64{"a": 1}, "d"},
	{"health here", "a=2 b=2", "a=4,2! b=6", usualZones, false, false, map[string]float64{"a": .5, "b": .5}, "sc"},
	{"health of members", "a=4 b=4,3!", "a=4 b=4", usualZones, false, false, map[string]float64{"a": .625, "b": .375}, "sc"},
	{"members in panic", "a=1 b=5,4!", "a=4 b=4", usualZones, false, false, map[string]float64{"a": .5, "b": .5}, "-"},
	{"members in panic, and that fails", "a=1 b=5,4!", "a=4 b=4", usualZones, false, true, map[string]float64{"": 1}, "-"},
	{"members unhealthy, panic off", "a=1 b=5,4!", "a=4 b=4", usualZones, true, false, map[string]float64{"a": 1}, "d"},
}

// zoned makes an assignment of as many endpoints by zone as the text says; address
// gives their addresses.
func zoned(text string, address func(n int) netip.AddrPort) *resource.Assignment {
	a, n := &resource.Assignment{}, 0
	for _, f := range strings.Fields(text) {
		zone, counts, _ := strings.Cut(f, "=")
		all, bad := 0, 0
		if _, err := fmt.Sscanf(counts+",0!", "%d,%d!", &all, &bad); err != nil {
			panic(err)
		}
		l := resource.Locality{Zone: zone}
		for i := range all {
			at := address(n)
			e := resource.Endpoint{Address: resource.Address{Host: at.Addr().String(), Port: at.Port()}, Weight: 1}
			if i < bad {
				e.Health = resource.Unhealthy
			}
			l.Endpoints = append(l.Endpoints, e)
			n++
		}
		if all > 0 {
			a.Localities = append(a.Localities, l)
		}
	}
	return a
}

func numberedAddress(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 80)
}

// cluster makes a cluster of the case under a policy.
func (c *zoneCase) cluster(policy resource.LBPolicy, upstream *resource.Assignment) (*lb.Cluster, resource.LoadBalancing) {
	cfg := resource.LoadBalancing{Policy: policy, ZoneAware: &c.zones, HasPanic: c.panicOff, FailOnPanic: c.fail, TableSize: 251, MinRingSize: 64}
	cluster := lb.NewCluster(&resource.Cluster{LB: cfg, Static: upstream})
	local := lb.NewCluster(&resource.Cluster{LB: cfg, Static: zoned(c.local, numberedAddress)})
	cluster.SetZones(lb.NewZones(lb.Place{Zone: "a"}, local.View()))
	return cluster, cfg
}

func (c *zoneCase) compare(t *testing.T, whose string, got map[string]int, n int) {
	t.Helper()
	for _, zone := range []string{"a", "b", "c", ""} {
		want := c.want[zone]
		share := float64(got[zone]) / float64(n)
		if slack := 5*math.Sqrt(want*(1-want)/float64(n)) + .001; math.Abs(share-want) > slack {
			t.Errorf("%s: zone %q got %.3f of the requests, want %.3f ± %.3f", whose, zone, share, want, slack)
		}
	}
}

func TestRequestsStayInTheirZoneAsFarAsThereIsCapacity(t *testing.T) {
	for i := range zoneCases {
		c := &zoneCases[i]
		t.Run(c.name, func(t *testing.T) {
			for _, policy := range []resource.LBPolicy{resource.RoundRobin, resource.LeastRequest, resource.Random} {
				cluster, cfg := c.cluster(policy, zoned(c.upstream, numberedAddress))
				p, r := lb.NewPicker(&cfg, 1), &lb.Request{}
				const n = 40_000
				got, outcomes := map[string]int{}, map[byte]bool{}
				for range n {
					r.Random += 0x9e3779b97f4a7c15
					zone := ""
					if h := p.Pick(cluster.View(), r); h != nil {
						zone = h.Locality().Zone
					}
					got[zone]++
					outcomes[outcomeOf[min(int(r.Zone)%5, 4)]] = true
				}
				c.compare(t, string(policy), got, n)
				text := ""
				for _, o := range []byte(outcomeOf) {
					if outcomes[o] {
						text += string(o)
					}
				}
				if text != c.outcomes {
					t.Errorf("%s: outcomes %q, want %q", policy, text, c.outcomes)
				}
			}
		})
	}
}

func TestZonesFollowTheLocalCluster(t *testing.T) {
	c := zoneCases[2]
	cluster, cfg := c.cluster(resource.RoundRobin, zoned(c.upstream, numberedAddress))
	members := lb.NewCluster(&resource.Cluster{LB: cfg, Static: zoned("a=2 b=2", numberedAddress)})
	before := cluster.View()
	cluster.SetZones(lb.NewZones(lb.Place{Zone: "a"}, members.View()))
	if cluster.View() != before {
		t.Error("the same zones made a new view")
	}
	members.View().Hosts()[0].SetEjected(true)
	members.HealthChanged()
	cluster.SetZones(lb.NewZones(lb.Place{Zone: "a"}, members.View())) // a third is here, a quarter of the capacity
	c.want = map[string]float64{"a": .75, "b": .25}
	p, r, got := lb.NewPicker(&cfg, 1), &lb.Request{}, map[string]int{}
	for range 20_000 {
		r.Random += 0x9e3779b97f4a7c15
		got[p.Pick(cluster.View(), r).Locality().Zone]++
	}
	c.compare(t, "after an ejection", got, 20_000)
	if st := cluster.View().ZoneStats(); !st.On || st.Recalculated != 2 {
		t.Errorf("%+v, want 2 calculations", st)
	}
	cluster.HealthChanged() // other reasons for a view keep the zones
	if st := cluster.View().ZoneStats(); st.Recalculated != 3 {
		t.Errorf("%+v, want 3 calculations", st)
	}
}

func TestZonesByWeightCountWeights(t *testing.T) {
	up := zoned("a=3 b=3", numberedAddress)
	for i := range up.Localities[0].Endpoints {
		up.Localities[0].Endpoints[i].Weight = 1
		up.Localities[1].Endpoints[i].Weight = 3
	}
	c := zoneCase{local: "a=2 b=2", zones: usualZones, want: map[string]float64{"a": .5, "b": .5}}
	c.zones.ByWeight = true
	cluster, cfg := c.cluster(resource.Random, up)
	p, r, got := lb.NewPicker(&cfg, 1), &lb.Request{}, map[string]int{}
	for range 20_000 {
		r.Random += 0x9e3779b97f4a7c15
		got[p.Pick(cluster.View(), r).Locality().Zone]++
	}
	c.compare(t, "by weight", got, 20_000)
}

// Keys stay at their host whatever the zone, and priorities after the first have no
// zones.
func TestZonesAreNotForHashesAndOtherPriorities(t *testing.T) {
	for _, policy := range []resource.LBPolicy{resource.RingHash, resource.Maglev} {
		c := zoneCases[0]
		cluster, cfg := c.cluster(policy, zoned(c.upstream, numberedAddress))
		p, r, got := lb.NewPicker(&cfg, 1), &lb.Request{HasHash: true}, map[string]int{}
		for i := range 2000 {
			r.Hash = lb.Hash(fmt.Sprint(i))
			got[p.Pick(cluster.View(), r).Locality().Zone]++
		}
		if got["b"] < 500 {
			t.Errorf("%s: %v of 2000 keys", policy, got)
		}
	}
	up := zoned("a=3 b=3", numberedAddress)
	for i := range up.Localities {
		up.Localities[i].Priority = 1
	}
	c := zoneCases[0]
	cluster, cfg := c.cluster(resource.RoundRobin, up)
	p, r, got := lb.NewPicker(&cfg, 1), &lb.Request{}, map[string]int{}
	for range 600 {
		r.Random += 0x9e3779b97f4a7c15
		got[p.Pick(cluster.View(), r).Locality().Zone]++
	}
	if got["b"] != 300 {
		t.Errorf("priority 1: %v of 600 requests", got)
	}
}

func TestPicksByZoneAllocateNothing(t *testing.T) {
	c := zoneCases[3]
	cluster, cfg := c.cluster(resource.LeastRequest, zoned(c.upstream, numberedAddress))
	p, r, v := lb.NewPicker(&cfg, 1), &lb.Request{}, cluster.View()
	if n := testing.AllocsPerRun(1000, func() {
		r.Random += 0x9e3779b97f4a7c15
		p.Pick(v, r)
	}); n != 0 {
		t.Errorf("%v allocations per pick", n)
	}
}

func BenchmarkPickByZone(b *testing.B) {
	c := zoneCases[3]
	cluster, cfg := c.cluster(resource.LeastRequest, zoned("a=200 b=400 c=200", numberedAddress))
	p, r, v := lb.NewPicker(&cfg, 1), &lb.Request{}, cluster.View()
	b.ReportAllocs()
	for b.Loop() {
		r.Random += 0x9e3779b97f4a7c15
		p.Pick(v, r)
	}
}

func TestZonesAreThoseOfEnvoy(t *testing.T) {
	binary, hosts := envoyBinary(t), sayingHosts(t, 10)
	client := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	for i := range zoneCases {
		c := &zoneCases[i]
		t.Run(c.name, func(t *testing.T) {
			address := freeporttest.Address(t)
			upstream := zoned(c.upstream, func(n int) netip.AddrPort { return hosts[n] })
			runEnvoy(t, binary, address, c.bootstrap(netip.MustParseAddrPort(address), upstream))
			zones := map[string]string{"": ""}
			for _, l := range upstream.Localities {
				for _, e := range l.Endpoints {
					zones[fmt.Sprintf("%s:%d", e.Address.Host, e.Address.Port)] = l.Zone
				}
			}
			const n = 1500
			got := map[string]int{}
			for range n {
				got[zones[reachedByEnvoy(t, client, "http://"+address+"/")]]++
			}
			c.compare(t, "Envoy", got, n)
		})
	}
}

// bootstrap is the case for Envoy.
func (c *zoneCase) bootstrap(listen netip.AddrPort, upstream *resource.Assignment) any {
	threshold := 50
	if c.panicOff {
		threshold = 0
	}
	aware := object{"routing_enabled": object{"value": c.zones.Enabled}, "min_cluster_size": c.zones.MinClusterSize, "fail_traffic_on_panic": c.fail}
	if c.zones.ForceLocal {
		aware["force_local_zone"] = object{"min_size": c.zones.ForceMinSize}
	}
	const robin = "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"
	cluster := func(name string, a *resource.Assignment) object {
		var localities list
		for _, l := range a.Localities {
			var endpoints list
			for _, e := range l.Endpoints {
				o := object{"endpoint": object{"address": socketOf(netip.AddrPortFrom(netip.MustParseAddr(e.Address.Host), e.Address.Port))}}
				if e.Health == resource.Unhealthy {
					o["health_status"] = "UNHEALTHY"
				}
				endpoints = append(endpoints, o)
			}
			localities = append(localities, object{"locality": object{"zone": l.Zone}, "lb_endpoints": endpoints})
		}
		return object{
			"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": object{"cluster_name": name, "endpoints": localities},
			"common_lb_config": object{"healthy_panic_threshold": object{"value": threshold}},
			"load_balancing_policy": object{"policies": list{object{"typed_extension_config": object{"name": "p", "typed_config": object{
				"@type": robin, "locality_lb_config": object{"zone_aware_lb_config": aware},
			}}}}},
		}
	}
	route := object{"match": object{"prefix": "/"}, "route": object{"cluster": "up"}}
	b := proxyBootstrap(listen, list{route}, list{cluster("up", upstream), cluster("members", zoned(c.local, numberedAddress))}).(object)
	b["cluster_manager"] = object{"local_cluster_name": "members"}
	b["node"] = object{"id": "n", "cluster": "members", "locality": object{"zone": "a"}}
	return b
}
