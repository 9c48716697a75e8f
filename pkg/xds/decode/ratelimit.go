// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	netratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/outrigger-mesh/outrigger/pkg/ratelimit"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	// minFill is the shortest fill_interval, as with Envoy.
	minFill           = 50 * time.Millisecond
	defaultDynamic    = 20
	maxDynamic        = 100_000
	maxRateEntries    = 32 // of a descriptor
	maxRateDescriptor = 1000
)

// tokenBucket reads a bucket that has to be one.
func (j *job) tokenBucket(m *typev3.TokenBucket, p *place) resource.TokenBucket {
	b := resource.TokenBucket{
		Max: m.GetMaxTokens(), PerFill: uint32Or(m.GetTokensPerFill(), 1),
		Interval: j.duration(m.GetFillInterval(), 0, p.field("fill_interval")),
	}
	if m.GetFillInterval() == nil {
		j.fail(p.field("fill_interval"), "is missing")
		return b
	}
	j.only(b.Interval < minFill, p.field("fill_interval"), "must be at least 50ms")
	if err := ratelimit.Config(b).Check(); err != nil {
		j.fail(p, "%v", err)
	}
	return b
}

func (j *job) localRateLimit(m *localratelimitv3.LocalRateLimit, route bool, p *place) *resource.LocalRateLimit {
	l := &resource.LocalRateLimit{
		StatPrefix:        j.intern(m.GetStatPrefix()),
		Status:            429,
		Enabled:           j.optionalFraction(m.GetFilterEnabled(), p.field("filter_enabled")),
		Enforced:          j.optionalFraction(m.GetFilterEnforced(), p.field("filter_enforced")),
		NotEnforcedAdd:    j.headerOptions(m.GetRequestHeadersToAddWhenNotEnforced(), p, "request_headers_to_add_when_not_enforced"),
		ResponseAdd:       j.headerOptions(m.GetResponseHeadersToAdd(), p, "response_headers_to_add"),
		Stage:             m.GetStage(),
		PerConnection:     m.GetLocalRateLimitPerDownstreamConnection(),
		XRateLimit:        m.GetEnableXRatelimitHeaders() == ratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03,
		AlwaysDefault:     boolOr(m.GetAlwaysConsumeDefaultTokenBucket(), true),
		ResourceExhausted: m.GetRateLimitedAsResourceExhausted(),
		RateLimits:        j.rateLimits(m.GetRateLimits(), true, p),
		HasRateLimits:     len(m.GetRateLimits()) > 0,
		MaxDynamic:        j.within(uint32Or(m.GetMaxDynamicDescriptors(), defaultDynamic), 1, maxDynamic, p.field("max_dynamic_descriptors")),
		RetryAfter:        m.GetEnableRetryAfterHeader(),
	}
	if s := int(m.GetStatus().GetCode()); s >= 400 {
		l.Status = s
	}
	switch m.GetVhRateLimits() {
	case ratelimitv3.VhRateLimitsOptions_INCLUDE:
		l.VHRateLimits = resource.VHInclude
	case ratelimitv3.VhRateLimitsOptions_IGNORE:
		l.VHRateLimits = resource.VHIgnore
	}
	if m.GetTokenBucket() != nil {
		b := j.tokenBucket(m.GetTokenBucket(), p.field("token_bucket"))
		l.Bucket = &b
	} else if route {
		j.fail(p.field("token_bucket"), "is missing: the settings of a route need it")
	}
	j.only(len(m.GetDescriptors()) > maxRateDescriptor, p.field("descriptors"), "has more than 1000")
	seen := map[string]bool{}
	for i, d := range m.GetDescriptors() {
		at := p.item("descriptors", i)
		out := j.rateDescriptor(d, at)
		key := strings.Builder{}
		for _, e := range out.Entries {
			key.WriteString(e.Key + "\x00" + e.Value + "\x00")
		}
		j.only(seen[key.String()], at.field("entries"), "are those of another descriptor of the list")
		seen[key.String()] = true
		l.Descriptors = append(l.Descriptors, out)
	}
	return l
}

func (j *job) rateDescriptor(d *ratelimitv3.LocalRateLimitDescriptor, p *place) resource.RateDescriptor {
	out := resource.RateDescriptor{Bucket: j.tokenBucket(d.GetTokenBucket(), p.field("token_bucket")), Shadow: d.GetShadowMode()}
	j.only(len(d.GetEntries()) > maxRateEntries, p.field("entries"), "has more than 32")
	for _, e := range d.GetEntries() {
		out.Entries = append(out.Entries, resource.RateEntry{Key: j.intern(e.GetKey()), Value: j.intern(e.GetValue())})
	}
	return out
}

// optionalFraction reads a fraction that is 0 unless it is given.
func (j *job) optionalFraction(f *corev3.RuntimeFractionalPercent, p *place) resource.Percent {
	if f == nil {
		return resource.Percent{Denominator: 100}
	}
	return j.runtimeFraction(f, p)
}

// rateLimits reads what descriptors are made of; ours: they are the filter's own, which
// have no stage.
func (j *job) rateLimits(list []*routev3.RateLimit, ours bool, p *place) []resource.RateLimit {
	var out []resource.RateLimit
	for i, m := range list {
		at := p.item("rate_limits", i)
		r := resource.RateLimit{Stage: m.GetStage().GetValue(), Hits: 1}
		j.only(ours && m.GetStage() != nil, at.field("stage"), "is for the rate_limits of routes and virtual hosts")
		j.only(len(m.GetActions()) > maxRateEntries, at.field("actions"), "has more than 32")
		for n, a := range m.GetActions() {
			r.Actions = append(r.Actions, j.rateAction(a, at.item("actions", n)))
		}
		if h := m.GetHitsAddend(); h != nil {
			j.only(h.GetFormat() != "", at.field("hits_addend").field("format"), notSupported)
			if h.GetNumber() != nil {
				r.Hits = uint32(min(h.GetNumber().GetValue(), math.MaxUint32))
			}
		}
		out = append(out, r)
	}
	return out
}

func (j *job) rateAction(m *routev3.RateLimit_Action, p *place) resource.RateAction {
	a := resource.RateAction{Expect: true}
	key := func(given, def string) string {
		if given == "" {
			return def
		}
		return j.intern(given)
	}
	switch v := m.GetActionSpecifier().(type) {
	case *routev3.RateLimit_Action_SourceCluster_:
		a.Kind, a.Key = resource.RateSourceCluster, "source_cluster"
	case *routev3.RateLimit_Action_DestinationCluster_:
		a.Kind, a.Key = resource.RateDestinationCluster, "destination_cluster"
	case *routev3.RateLimit_Action_RequestHeaders_:
		a.Kind, a.Key = resource.RateRequestHeader, j.intern(v.RequestHeaders.GetDescriptorKey())
		a.Name = j.matchedName(v.RequestHeaders.GetHeaderName(), p.field("request_headers").field("header_name"))
		a.SkipIfAbsent = v.RequestHeaders.GetSkipIfAbsent()
	case *routev3.RateLimit_Action_QueryParameters_:
		a.Kind, a.Key = resource.RateQueryParameter, j.intern(v.QueryParameters.GetDescriptorKey())
		a.Name, a.SkipIfAbsent = v.QueryParameters.GetQueryParameterName(), v.QueryParameters.GetSkipIfAbsent()
	case *routev3.RateLimit_Action_RemoteAddress_:
		a.Kind, a.Key = resource.RateRemoteAddress, "remote_address"
	case *routev3.RateLimit_Action_MaskedRemoteAddress_:
		a.Kind, a.Key = resource.RateMaskedRemoteAddress, "masked_remote_address"
		a.V4 = int(min(uint32Or(v.MaskedRemoteAddress.GetV4PrefixMaskLen(), 32), 32))
		a.V6 = int(min(uint32Or(v.MaskedRemoteAddress.GetV6PrefixMaskLen(), 128), 128))
	case *routev3.RateLimit_Action_GenericKey_:
		g, at := v.GenericKey, p.field("generic_key")
		a.Kind, a.Key, a.Default = resource.RateGenericKey, key(g.GetDescriptorKey(), "generic_key"), g.GetDefaultValue()
		a.Value = j.rateValue(g.GetDescriptorValue(), at)
	case *routev3.RateLimit_Action_HeaderValueMatch_:
		h, at := v.HeaderValueMatch, p.field("header_value_match")
		a.Kind, a.Key, a.Default = resource.RateHeaderMatch, key(h.GetDescriptorKey(), "header_match"), h.GetDefaultValue()
		a.Value, a.Expect = j.rateValue(h.GetDescriptorValue(), at), boolOr(h.GetExpectMatch(), true)
		a.Headers = j.headerMatches(h.GetHeaders(), at, "headers")
	case *routev3.RateLimit_Action_QueryParameterValueMatch_:
		q, at := v.QueryParameterValueMatch, p.field("query_parameter_value_match")
		a.Kind, a.Key, a.Default = resource.RateQueryMatch, key(q.GetDescriptorKey(), "query_match"), q.GetDefaultValue()
		a.Value, a.Expect = j.rateValue(q.GetDescriptorValue(), at), boolOr(q.GetExpectMatch(), true)
		for i, m := range q.GetQueryParameters() {
			a.Query = append(a.Query, j.queryMatch(m, at.item("query_parameters", i)))
		}
	case *routev3.RateLimit_Action_RemoteAddressMatch_:
		r, at := v.RemoteAddressMatch, p.field("remote_address_match")
		a.Kind, a.Key, a.Default = resource.RateRemoteAddressMatch, key(r.GetDescriptorKey(), "remote_address_match"), r.GetDefaultValue()
		a.Value = j.rateValue(r.GetDescriptorValue(), at)
		var ranges []*corev3.CidrRange
		for _, c := range r.GetAddressMatcher().GetRanges() { // the same message of another package
			ranges = append(ranges, &corev3.CidrRange{AddressPrefix: c.GetAddressPrefix(), PrefixLen: c.GetPrefixLen()})
		}
		a.Prefixes = j.prefixes(ranges, at.field("address_matcher"), "ranges")
		a.Invert = r.GetAddressMatcher().GetInvertMatch()
	default:
		j.fail(p, notSupported)
	}
	return a
}

// rateValue reads a descriptor's value, which may have command operators.
func (j *job) rateValue(s string, p *place) resource.Format {
	f := j.format(s, p.field("descriptor_value"))
	if err := f.ForHeaders(); err != nil {
		j.fail(p.field("descriptor_value"), "%v", err)
	}
	return f
}

// connectionRateLimit reads the network filter of the same name.
func (j *job) connectionRateLimit(m *netratelimitv3.LocalRateLimit, p *place) *resource.ConnectionRateLimit {
	c := &resource.ConnectionRateLimit{
		StatPrefix: j.intern(m.GetStatPrefix()), ShareKey: m.GetShareKey(),
		Bucket:  j.tokenBucket(m.GetTokenBucket(), p.field("token_bucket")),
		Enabled: resource.Percent{PerMillion: 1_000_000, Denominator: 1},
	}
	if f := m.GetRuntimeEnabled(); f != nil {
		c.Enabled.RuntimeKey = f.GetRuntimeKey()
		if !boolOr(f.GetDefaultValue(), true) {
			c.Enabled.PerMillion = 0
		}
	}
	return c
}
