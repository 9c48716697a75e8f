// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	defaultRouteTimeout = 15 * time.Second
	maxWeightTotal      = 1<<32 - 1
)

var notFoundCodes = map[routev3.RouteAction_ClusterNotFoundResponseCode]int{
	routev3.RouteAction_SERVICE_UNAVAILABLE:   503,
	routev3.RouteAction_NOT_FOUND:             404,
	routev3.RouteAction_INTERNAL_SERVER_ERROR: 500,
}

func (j *job) routeAction(m *routev3.RouteAction, p *place) *resource.RouteAction {
	a := &resource.RouteAction{
		NotFound:     notFoundCodes[m.GetClusterNotFoundResponseCode()],
		Timeout:      j.duration(m.GetTimeout(), defaultRouteTimeout, p.field("timeout")),
		HighPriority: m.GetPriority() == corev3.RoutingPriority_HIGH,
		Retry:        j.retry(m.GetRetryPolicy(), p.field("retry_policy")),
		Hedge:        hedge(m.GetHedgePolicy()),
		Mirrors:      j.mirrors(m.GetRequestMirrorPolicies(), p),
		AppendXFH:    m.GetAppendXForwardedHost(),

		MetadataMatch: j.metadataMatch(m.GetMetadataMatch(), nil, p.field("metadata_match")),
	}
	if m.GetIdleTimeout() != nil {
		a.IdleTimeout, a.HasIdleTimeout = j.duration(m.GetIdleTimeout(), 0, p.field("idle_timeout")), true
	}
	j.streamDuration(m, a, p)
	switch v := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		a.Clusters, a.TotalWeight = []resource.WeightedCluster{{Name: j.intern(v.Cluster), Weight: 1, MetadataMatch: a.MetadataMatch}}, 1
		j.needCluster(v.Cluster, p.field("cluster"))
	case *routev3.RouteAction_ClusterHeader:
		a.ClusterHeader = j.matchedName(v.ClusterHeader, p.field("cluster_header"))
	case *routev3.RouteAction_WeightedClusters:
		j.weighted(v.WeightedClusters, a, p.field("weighted_clusters"))
	default:
		j.fail(p, "names no cluster")
	}
	j.rewrites(m, a, p)
	for i, u := range m.GetUpgradeConfigs() {
		a.Upgrades = j.upgrade(a.Upgrades, u, p.item("upgrade_configs", i))
		a.Upgrades[i].Terminate = u.GetConnectConfig() != nil
		j.only(u.GetConnectConfig() != nil && a.Upgrades[i].Type != resource.UpgradeConnect, p.item("upgrade_configs", i).field("connect_config"), "is for the upgrade_type CONNECT only")
	}
	for i, h := range m.GetHashPolicy() {
		a.Hash = append(a.Hash, j.hashPolicy(h, p.item("hash_policy", i)))
	}
	return a
}

// streamDuration reads what limits a request as a whole, and what grpc-timeout of
// calls is to that. As in Envoy, a route that limits the duration has no timeout
// unless it says one.
func (j *job) streamDuration(m *routev3.RouteAction, a *resource.RouteAction, p *place) {
	d, at := m.GetMaxStreamDuration(), p.field("max_stream_duration")
	a.MaxDuration = j.duration(d.GetMaxStreamDuration(), 0, at.field("max_stream_duration"))
	if d != nil && m.GetTimeout() == nil {
		a.Timeout = 0
	}
	g := &a.GRPCTimeout
	switch {
	case d.GetGrpcTimeoutHeaderMax() != nil:
		g.Kind = resource.GRPCTimeoutDuration
		g.Max = j.duration(d.GetGrpcTimeoutHeaderMax(), 0, at.field("grpc_timeout_header_max"))
		g.Offset = j.duration(d.GetGrpcTimeoutHeaderOffset(), 0, at.field("grpc_timeout_header_offset"))
		j.only(m.GetMaxGrpcTimeout() != nil, p.field("max_grpc_timeout"), "must not be given together with grpc_timeout_header_max")
	case m.GetMaxGrpcTimeout() != nil:
		g.Kind = resource.GRPCTimeoutRoute
		g.Max = j.duration(m.GetMaxGrpcTimeout(), 0, p.field("max_grpc_timeout"))
		g.Offset = j.duration(m.GetGrpcTimeoutOffset(), 0, p.field("grpc_timeout_offset"))
	}
	j.only(d.GetGrpcTimeoutHeaderOffset() != nil && g.Kind != resource.GRPCTimeoutDuration, at.field("grpc_timeout_header_offset"), "needs grpc_timeout_header_max")
	j.only(m.GetGrpcTimeoutOffset() != nil && g.Kind != resource.GRPCTimeoutRoute, p.field("grpc_timeout_offset"), "needs max_grpc_timeout")
}

// needCluster records that routes need a cluster by that name.
func (j *job) needCluster(name string, p *place) {
	if name == "" {
		j.fail(p, "is empty")
		return
	}
	j.need(Cluster, name, Source{})
}

func (j *job) weighted(m *routev3.WeightedCluster, a *resource.RouteAction, p *place) {
	total := uint64(0)
	for i, w := range m.GetClusters() {
		at := p.item("clusters", i)
		wc := resource.WeightedCluster{
			Name: j.intern(w.GetName()), Weight: w.GetWeight().GetValue(), HeaderEdits: j.headerEdits(w, at),
			FilterConfig: j.perFilter(w.GetTypedPerFilterConfig(), nil, at), HostRewrite: j.host(w.GetHostRewriteLiteral(), at.field("host_rewrite_literal")),
			MetadataMatch: j.metadataMatch(w.GetMetadataMatch(), a.MetadataMatch, at.field("metadata_match")),
		}
		switch {
		case w.GetClusterHeader() != "" && wc.Name != "":
			j.fail(at.field("cluster_header"), "must not be given together with name")
		case w.GetClusterHeader() != "":
			wc.Header = j.matchedName(w.GetClusterHeader(), at.field("cluster_header"))
		default:
			j.needCluster(wc.Name, at.field("name"))
		}
		total += uint64(wc.Weight)
		a.Clusters = append(a.Clusters, wc)
	}
	switch {
	case total == 0:
		j.fail(p, "the weights add up to 0")
	case total > maxWeightTotal:
		j.fail(p, "the weights add up to more than 4294967295")
	}
	//nolint:staticcheck // deprecated and still in use
	if t := m.GetTotalWeight(); t != nil && uint64(t.GetValue()) != total {
		j.fail(p.field("total_weight"), "is %d, the weights add up to %d", t.GetValue(), total)
	}
	a.TotalWeight = uint32(total)
}

// host checks a literal that replaces the Host header.
func (j *job) host(s string, p *place) string {
	if strings.ContainsAny(s, "/?#@ ") || !validHeaderValue(s) {
		j.fail(p, "%q is no host", clip(s, 200))
	}
	return s
}

//nolint:staticcheck // host_rewrite... of older versions
func (j *job) rewrites(m *routev3.RouteAction, a *resource.RouteAction, p *place) {
	if m.GetPrefixRewrite() != "" {
		a.PrefixRewrite, a.HasPrefixRewrite = m.GetPrefixRewrite(), true
		j.only(!validTarget(a.PrefixRewrite), p.field("prefix_rewrite"), "is no path")
		j.only(m.GetRegexRewrite() != nil, p.field("regex_rewrite"), "must not be given together with prefix_rewrite")
	}
	a.RegexRewrite = j.rewrite(m.GetRegexRewrite(), p.field("regex_rewrite"))
	switch v := m.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		a.HostRewrite = j.host(v.HostRewriteLiteral, p.field("host_rewrite_literal"))
	case *routev3.RouteAction_HostRewriteHeader:
		a.HostRewriteHeader = j.matchedName(v.HostRewriteHeader, p.field("host_rewrite_header"))
	case *routev3.RouteAction_HostRewritePathRegex:
		a.HostRewritePath = j.rewrite(v.HostRewritePathRegex, p.field("host_rewrite_path_regex"))
	case *routev3.RouteAction_AutoHostRewrite:
		a.AutoHostRewrite = v.AutoHostRewrite.GetValue()
	}
}

func (j *job) mirrors(list []*routev3.RouteAction_RequestMirrorPolicy, p *place) []resource.Mirror {
	var out []resource.Mirror
	for i, m := range list {
		at := p.item("request_mirror_policies", i)
		mi := resource.Mirror{
			Cluster: j.intern(m.GetCluster()), TraceSampled: boolOr(m.GetTraceSampled(), true),
			KeepHost: m.GetDisableShadowHostSuffixAppend(),
			Fraction: resource.Percent{PerMillion: 1_000_000, Denominator: 100},
		}
		if m.GetRuntimeFraction() != nil {
			mi.Fraction = j.runtimeFraction(m.GetRuntimeFraction(), at.field("runtime_fraction"))
		}
		switch {
		case m.GetClusterHeader() != "" && mi.Cluster != "":
			j.fail(at.field("cluster_header"), "must not be given together with cluster")
		case m.GetClusterHeader() != "":
			mi.ClusterHeader = j.matchedName(m.GetClusterHeader(), at.field("cluster_header"))
		default:
			j.needCluster(mi.Cluster, at.field("cluster"))
		}
		out = append(out, mi)
	}
	return out
}

func (j *job) hashPolicy(m *routev3.RouteAction_HashPolicy, p *place) resource.HashPolicy {
	h := resource.HashPolicy{Terminal: m.GetTerminal()}
	switch v := m.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		h.Kind, h.Name = resource.HashHeader, j.matchedName(v.Header.GetHeaderName(), p.field("header").field("header_name"))
		h.Rewrite = j.rewrite(v.Header.GetRegexRewrite(), p.field("header").field("regex_rewrite"))
	case *routev3.RouteAction_HashPolicy_Cookie_:
		h.Kind, h.Name, h.CookiePath = resource.HashCookie, v.Cookie.GetName(), v.Cookie.GetPath()
		j.only(!validHeaderName(h.Name), p.field("cookie").field("name"), "is no cookie name")
		j.only(!validHeaderValue(h.CookiePath) || strings.Contains(h.CookiePath, ";"), p.field("cookie").field("path"), "is no cookie path")
		if v.Cookie.GetTtl() != nil {
			h.TTL, h.HasTTL = j.duration(v.Cookie.GetTtl(), 0, p.field("cookie").field("ttl")), true
		}
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		h.Kind = resource.HashSourceIP
		j.only(!v.ConnectionProperties.GetSourceIp(), p.field("connection_properties").field("source_ip"), "must be true")
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		h.Kind, h.Name = resource.HashQuery, v.QueryParameter.GetName()
	default:
		j.fail(p, notSupported)
	}
	return h
}
