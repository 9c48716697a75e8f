// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// outliers says what ejects an instance. What Envoy does by default and a policy
// does not ask for is set to 0.
func outliers(o *mesh.OutlierDetection) *clusterv3.OutlierDetection {
	if o == nil {
		o = &mesh.OutlierDetection{}
	}
	base := or(o.BaseEjectionTime, mesh.Duration(30*time.Second)).Std()
	out := &clusterv3.OutlierDetection{
		EnforcingSuccessRate:  u32(0),
		Interval:              seconds(or(o.Interval, mesh.Duration(10*time.Second)).Std()),
		BaseEjectionTime:      seconds(base),
		MaxEjectionTime:       seconds(or(o.MaxEjectionTime, mesh.Duration(max(base, 300*time.Second))).Std()),
		MaxEjectionTimeJitter: jitter(o.EjectionJitter),
		MaxEjectionPercent:    u32(or(o.MaxEjectionPercent, 10)),
		AlwaysEjectOneHost:    wrapperspb.Bool(true),
	}
	out.Consecutive_5Xx, out.EnforcingConsecutive_5Xx = consecutive(o.Consecutive5xx, 5)
	if o.ConsecutiveGatewayFailures != nil {
		out.ConsecutiveGatewayFailure, out.EnforcingConsecutiveGatewayFailure = consecutive(o.ConsecutiveGatewayFailures, 0)
	}
	if o.SplitLocalOriginErrors {
		out.SplitExternalLocalOriginErrors = true
		out.ConsecutiveLocalOriginFailure, out.EnforcingConsecutiveLocalOriginFailure = consecutive(o.ConsecutiveLocalOriginFailures, 5)
		out.EnforcingLocalOriginSuccessRate = u32(0)
	}
	rates(out, o)
	if o.HealthCheckReturns != nil {
		out.SuccessfulActiveHealthCheckUnejectHost = wrapperspb.Bool(*o.HealthCheckReturns)
	}
	return out
}

// consecutive is a number of failures in a row, and how much it is enforced: Envoy
// has no 0 that means never.
func consecutive(n *uint32, def uint32) (count, enforcing *wrapperspb.UInt32Value) {
	if v := or(n, def); v > 0 {
		return u32(v), u32(100)
	}
	return u32(5), u32(0)
}

func jitter(d *mesh.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return seconds(d.Std())
}

// rates are judged of answers, and where they are split of local origin as well.
func rates(out *clusterv3.OutlierDetection, o *mesh.OutlierDetection) {
	if s := o.SuccessRate; s != nil {
		out.EnforcingSuccessRate = u32(100)
		if o.SplitLocalOriginErrors {
			out.EnforcingLocalOriginSuccessRate = u32(100)
		}
		out.SuccessRateMinimumHosts = u32(or(s.MinHosts, 5))
		out.SuccessRateRequestVolume = u32(or(s.RequestVolume, 100))
		out.SuccessRateStdevFactor = u32(or(s.StdevFactor, 1900))
	}
	if p := o.FailurePercentage; p != nil {
		out.EnforcingFailurePercentage = u32(100)
		if o.SplitLocalOriginErrors {
			out.EnforcingFailurePercentageLocalOrigin = u32(100)
		}
		out.FailurePercentageThreshold = u32(or(p.Threshold, 85))
		out.FailurePercentageMinimumHosts = u32(or(p.MinHosts, 5))
		out.FailurePercentageRequestVolume = u32(or(p.RequestVolume, 50))
	}
}

// errorMatcher says which answers count as failures; nil for 5xx.
func errorMatcher(o *mesh.OutlierDetection) *httpv3.HttpProtocolOptions_OutlierDetection {
	if o == nil || len(o.CountAsError) == 0 {
		return nil
	}
	var rules []*matcherv3.MatchPredicate
	for _, s := range o.CountAsError {
		first, last, _ := mesh.StatusRange(s) // checked by the policy
		rules = append(rules, &matcherv3.MatchPredicate{Rule: &matcherv3.MatchPredicate_HttpResponseHeadersMatch{
			HttpResponseHeadersMatch: &matcherv3.HttpHeadersMatch{Headers: []*routev3.HeaderMatcher{{
				Name:                 ":status",
				HeaderMatchSpecifier: &routev3.HeaderMatcher_RangeMatch{RangeMatch: &typev3.Int64Range{Start: int64(first), End: int64(last) + 1}},
			}}},
		}})
	}
	m := rules[0]
	if len(rules) > 1 {
		m = &matcherv3.MatchPredicate{Rule: &matcherv3.MatchPredicate_OrMatch{OrMatch: &matcherv3.MatchPredicate_MatchSet{Rules: rules}}}
	}
	return &httpv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: m}
}

// retryAfter lets ejections last as long as instances have asked for, which Envoy
// has no field for.
func retryAfter(c *clusterv3.Cluster, o *mesh.OutlierDetection) {
	if o != nil && !or(o.RetryAfter, true) {
		return
	}
	c.Metadata.FilterMetadata[MetadataNamespace].Fields["outlierDetection"] = structpb.NewStructValue(&structpb.Struct{
		Fields: map[string]*structpb.Value{"retryAfter": structpb.NewBoolValue(true)},
	})
}
