// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dnsfamilyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	dnsClusterURL     = typeURLPrefix + "envoy.extensions.clusters.dns.v3.DnsCluster"
	caresURL          = typeURLPrefix + "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
	defaultDNSRefresh = 5 * time.Second
	// dnsFloor is the least that a TTL is taken for: one of some milliseconds, or of
	// nothing, must not make queries without end.
	dnsFloor          = time.Second
	defaultQueryTime  = 5 * time.Second
	defaultQueryTries = 4
	maxDNSResolvers   = 16
	// dnsWarm is how long a cluster waits for the first answer.
	dnsWarm = 15 * time.Second
)

// legacyDNS reads a cluster of type STRICT_DNS or LOGICAL_DNS.
//
//nolint:staticcheck // the deprecated fields are those that are in use
func (j *job) legacyDNS(m *clusterv3.Cluster, c *resource.Cluster, p *place) {
	d := &resource.DNSLookup{
		RespectTTL: m.GetRespectDnsTtl(), MinRefresh: dnsFloor, TCP: m.GetUseTcpForDnsLookups(),
		QueryTimeout: defaultQueryTime, QueryTries: defaultQueryTries,
		Family: map[clusterv3.Cluster_DnsLookupFamily]resource.DNSFamily{
			clusterv3.Cluster_V4_ONLY: resource.DNSV4Only, clusterv3.Cluster_V6_ONLY: resource.DNSV6Only,
			clusterv3.Cluster_V4_PREFERRED: resource.DNSV4Preferred, clusterv3.Cluster_ALL: resource.DNSAll,
		}[m.GetDnsLookupFamily()], // AUTO is zero
	}
	j.dnsTimes(d, m.GetDnsRefreshRate(), m.GetDnsJitter(), m.GetDnsFailureRefreshRate(), p)
	switch {
	case m.GetTypedDnsResolverConfig() != nil:
		j.typedResolver(m.GetTypedDnsResolverConfig(), d, p)
	case m.GetDnsResolutionConfig() != nil:
		at := p.field("dns_resolution_config")
		d.Resolvers = j.resolvers(m.GetDnsResolutionConfig().GetResolvers(), at, "resolvers")
		j.resolverOptions(m.GetDnsResolutionConfig().GetDnsResolverOptions(), d)
	default:
		d.Resolvers = j.resolvers(m.GetDnsResolvers(), p, "dns_resolvers")
	}
	j.dnsEndpoints(m, d, c, m.GetType() == clusterv3.Cluster_LOGICAL_DNS, p)
}

// typedDNS reads a cluster of cluster_type envoy.clusters.dns.
func (j *job) typedDNS(m *clusterv3.Cluster, a *anypb.Any, c *resource.Cluster, p *place) {
	at := p.field("cluster_type").field("typed_config")
	var t dnsclusterv3.DnsCluster
	if !j.unpack(a, &t, at) {
		return
	}
	d := &resource.DNSLookup{
		RespectTTL: t.GetRespectDnsTtl(), MinRefresh: dnsFloor, QueryTimeout: defaultQueryTime, QueryTries: defaultQueryTries,
		Family: map[dnsfamilyv3.DnsLookupFamily]resource.DNSFamily{
			dnsfamilyv3.DnsLookupFamily_V4_ONLY: resource.DNSV4Only, dnsfamilyv3.DnsLookupFamily_V6_ONLY: resource.DNSV6Only,
			dnsfamilyv3.DnsLookupFamily_V4_PREFERRED: resource.DNSV4Preferred, dnsfamilyv3.DnsLookupFamily_ALL: resource.DNSAll,
		}[t.GetDnsLookupFamily()],
	}
	if v := t.GetDnsMinRefreshRate(); v != nil {
		d.MinRefresh = j.duration(v, dnsFloor, at.field("dns_min_refresh_rate"))
		j.only(d.MinRefresh < dnsFloor, at.field("dns_min_refresh_rate"), "must be at least 1s")
	}
	j.dnsTimes(d, t.GetDnsRefreshRate(), t.GetDnsJitter(), t.GetDnsFailureRefreshRate(), at)
	j.typedResolver(t.GetTypedDnsResolverConfig(), d, at)
	j.dnsEndpoints(m, d, c, t.GetAllAddressesInSingleEndpoint(), p)
}

// dnsTimes reads how often names are looked up.
func (j *job) dnsTimes(d *resource.DNSLookup, refresh, jitter *durationpb.Duration, failure interface {
	GetBaseInterval() *durationpb.Duration
	GetMaxInterval() *durationpb.Duration
}, p *place) {
	d.Refresh = j.duration(refresh, defaultDNSRefresh, p.field("dns_refresh_rate"))
	j.only(d.Refresh < time.Millisecond, p.field("dns_refresh_rate"), "must be at least 1ms")
	d.Jitter = j.duration(jitter, 0, p.field("dns_jitter"))
	if failure.GetBaseInterval() == nil && failure.GetMaxInterval() == nil {
		return // the rules of the API see to a message that has no base
	}
	at := p.field("dns_failure_refresh_rate")
	d.FailureBase = j.duration(failure.GetBaseInterval(), 0, at.field("base_interval"))
	j.only(d.FailureBase < time.Millisecond, at.field("base_interval"), "must be at least 1ms")
	d.FailureMax = j.duration(failure.GetMaxInterval(), 10*d.FailureBase, at.field("max_interval"))
	j.only(d.FailureMax < d.FailureBase, at.field("max_interval"), "must not be less than base_interval")
}

// typedResolver reads typed_dns_resolver_config: only c-ares' has what we do.
func (j *job) typedResolver(m *corev3.TypedExtensionConfig, d *resource.DNSLookup, p *place) {
	if m == nil {
		return
	}
	at := p.field("typed_dns_resolver_config").field("typed_config")
	if url := m.GetTypedConfig().GetTypeUrl(); url != caresURL {
		j.fail(at, "unsupported type %q: only %s is known", clip(url, 200), caresURL)
		return
	}
	var t caresv3.CaresDnsResolverConfig
	if !j.unpack(m.GetTypedConfig(), &t, at) {
		return
	}
	d.Resolvers = j.resolvers(t.GetResolvers(), at, "resolvers")
	j.resolverOptions(t.GetDnsResolverOptions(), d)
	if v := t.GetQueryTimeoutSeconds(); v != nil {
		d.QueryTimeout = time.Duration(j.within(uint32(min(v.GetValue(), 1<<20)), 1, 60, at.field("query_timeout_seconds"))) * time.Second
	}
	if v := t.GetQueryTries(); v != nil {
		d.QueryTries = j.within(v.GetValue(), 1, 16, at.field("query_tries"))
	}
}

func (j *job) resolverOptions(o *corev3.DnsResolverOptions, d *resource.DNSLookup) {
	d.TCP, d.NoSearch = o.GetUseTcpForDnsLookups(), o.GetNoDefaultSearchDomain()
}

func (j *job) resolvers(list []*corev3.Address, p *place, field string) []netip.AddrPort {
	j.only(len(list) > maxDNSResolvers, p.field(field), "has more than 16 entries")
	var out []netip.AddrPort
	for i, a := range list {
		at := p.item(field, i).field("socket_address")
		s := a.GetSocketAddress()
		ip, err := netip.ParseAddr(s.GetAddress())
		if err != nil {
			j.fail(at.field("address"), "%q is no IP address", clip(s.GetAddress(), 100))
			continue
		}
		port := s.GetPortValue()
		if port == 0 {
			port = 53 // as c-ares
		}
		out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(j.within(port, 1, 65_535, at.field("port_value")))))
	}
	return out
}

// dnsEndpoints reads the names.
func (j *job) dnsEndpoints(m *clusterv3.Cluster, d *resource.DNSLookup, c *resource.Cluster, logical bool, p *place) {
	j.only(m.GetEdsClusterConfig() != nil, p.field("eds_cluster_config"), "needs type EDS")
	at := p.field("load_assignment")
	c.Type, c.DNS = resource.StrictDNS, d
	d.Names = &resource.Assignment{Overprovisioning: defaultOverprovisioning}
	if m.GetLoadAssignment() != nil {
		j.hostNames = true
		d.Names = j.assignment(m.GetLoadAssignment(), at)
		j.hostNames = false
	}
	if logical {
		c.Type = resource.LogicalDNS
		one := len(d.Names.Localities) == 1 && len(d.Names.Localities[0].Endpoints) == 1
		j.only(!one, at, "must have one locality with one endpoint where the type is LOGICAL_DNS")
		j.only(one && d.Names.Localities[0].Priority != 0, at.item("endpoints", 0).field("priority"), "must be 0 where the type is LOGICAL_DNS")
	}
	d.Names.Cluster = c.Name
	d.StartsWithout = m.GetWaitForWarmOnInit() != nil && !m.GetWaitForWarmOnInit().GetValue()
	named := *d
	named.Names = nil
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %+v %+v", c.Type, named, *d.Names))
	d.Key = fmt.Sprintf("dns %x %s", sum[:8], c.Name)
	j.need(Endpoints, d.Key, Source{InitialFetchTimeout: dnsWarm})
}

// hostName reports whether s is a name that can be asked for: labels of letters,
// digits, hyphens and underscores.
func hostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return false
			}
		}
	}
	return true
}
