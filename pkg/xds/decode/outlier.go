// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strconv"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// outlier reads outlier detection with Envoy's defaults. A count of 0 turns a
// detector off: it is never reached.
func (j *job) outlier(m *clusterv3.OutlierDetection, p *place) *resource.OutlierDetection {
	if m == nil {
		return nil
	}
	o := &resource.OutlierDetection{
		Consecutive5xx:     uint32Or(m.GetConsecutive_5Xx(), 5),
		Enforcing5xx:       uint32Or(m.GetEnforcingConsecutive_5Xx(), 100),
		ConsecutiveGateway: uint32Or(m.GetConsecutiveGatewayFailure(), 5),
		EnforcingGateway:   uint32Or(m.GetEnforcingConsecutiveGatewayFailure(), 0),
		ConsecutiveLocal:   uint32Or(m.GetConsecutiveLocalOriginFailure(), 5),
		EnforcingLocal:     uint32Or(m.GetEnforcingConsecutiveLocalOriginFailure(), 100),
		SplitLocal:         m.GetSplitExternalLocalOriginErrors(),
		SuccessRate: resource.SuccessRate{
			MinHosts:       uint32Or(m.GetSuccessRateMinimumHosts(), 5),
			Volume:         uint32Or(m.GetSuccessRateRequestVolume(), 100),
			Stdev:          float64(uint32Or(m.GetSuccessRateStdevFactor(), 1900)) / 1000,
			Enforcing:      uint32Or(m.GetEnforcingSuccessRate(), 100),
			EnforcingLocal: uint32Or(m.GetEnforcingLocalOriginSuccessRate(), 100),
		},
		Failure: resource.FailurePercentage{
			Threshold:      uint32Or(m.GetFailurePercentageThreshold(), 85),
			MinHosts:       uint32Or(m.GetFailurePercentageMinimumHosts(), 5),
			Volume:         uint32Or(m.GetFailurePercentageRequestVolume(), 50),
			Enforcing:      uint32Or(m.GetEnforcingFailurePercentage(), 0),
			EnforcingLocal: uint32Or(m.GetEnforcingFailurePercentageLocalOrigin(), 0),
		},
		Interval:           j.duration(m.GetInterval(), 10*time.Second, p.field("interval")),
		BaseEjection:       j.duration(m.GetBaseEjectionTime(), 30*time.Second, p.field("base_ejection_time")),
		MaxEjectionPercent: uint32Or(m.GetMaxEjectionPercent(), 10),
		AlwaysEjectOne:     m.GetAlwaysEjectOneHost().GetValue(),
		Jitter:             j.duration(m.GetMaxEjectionTimeJitter(), 0, p.field("max_ejection_time_jitter")),
		UnejectChecked:     m.GetSuccessfulActiveHealthCheckUnejectHost() == nil || m.GetSuccessfulActiveHealthCheckUnejectHost().GetValue(),
	}
	// Envoy: max_ejection_time is 300 s or the base, whichever is larger.
	o.MaxEjection = j.duration(m.GetMaxEjectionTime(), max(300*time.Second, o.BaseEjection), p.field("max_ejection_time"))
	j.only(o.MaxEjection < o.BaseEjection, p.field("max_ejection_time"), "must not be less than base_ejection_time")
	j.only(len(m.GetMonitors()) > 0, p.field("monitors"), "not supported; which responses count is said by outlier_detection.error_matcher of HttpProtocolOptions")
	j.only(m.GetDetectDegradedHosts().GetValue(), p.field("detect_degraded_hosts"), notSupported+"; leave it out or set it to false")
	return o
}

// errorMatcher reads which responses outlier detection counts as failures. Statuses
// can be told apart, other headers cannot.
func (j *job) errorMatcher(m *httpv3.HttpProtocolOptions_OutlierDetection, c *resource.Cluster, p *place) {
	if m.GetErrorMatcher() == nil {
		return
	}
	statuses := j.statuses(m.GetErrorMatcher(), p.field("error_matcher"), 0)
	if c.Outlier != nil {
		c.Outlier.Errors = statuses
	}
}

const onlyStatuses = "want http_response_headers_match with one header, :status, or or_match of such"

func (j *job) statuses(m *matcherv3.MatchPredicate, p *place, depth int) []resource.StatusRange {
	switch rule := m.GetRule().(type) {
	case *matcherv3.MatchPredicate_OrMatch:
		if depth > 0 {
			break
		}
		out := []resource.StatusRange{}
		for i, r := range rule.OrMatch.GetRules() {
			out = append(out, j.statuses(r, p.field("or_match").item("rules", i), depth+1)...)
		}
		return out
	case *matcherv3.MatchPredicate_HttpResponseHeadersMatch:
		at := p.field("http_response_headers_match")
		headers := rule.HttpResponseHeadersMatch.GetHeaders()
		if len(headers) != 1 {
			break
		}
		return []resource.StatusRange{j.status(headers[0], at.item("headers", 0))}
	}
	j.fail(p, onlyStatuses)
	return []resource.StatusRange{}
}

// status reads a matcher of :status, one or a range without its end.
//
//nolint:staticcheck // exact_match is deprecated and still in use
func (j *job) status(m *routev3.HeaderMatcher, p *place) resource.StatusRange {
	first, last := 0, -1
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_RangeMatch:
		first, last = int(s.RangeMatch.GetStart()), int(s.RangeMatch.GetEnd())-1
	case *routev3.HeaderMatcher_ExactMatch:
		first, _ = strconv.Atoi(s.ExactMatch)
		last = first
	case *routev3.HeaderMatcher_StringMatch:
		first, _ = strconv.Atoi(s.StringMatch.GetExact())
		last = first
	}
	if m.GetName() != ":status" || m.GetInvertMatch() || m.GetTreatMissingHeaderAsEmpty() || first < 100 || last < first || last > 599 {
		j.fail(p, "want the header :status with range_match or exact, of statuses from 100 to 599")
	}
	return resource.StatusRange{First: first, Last: last}
}

// outlierSettings are what Envoy's outlier detection has no fields for.
type outlierSettings struct {
	RetryAfter bool `json:"retryAfter"`
}

func (j *job) ownOutlier(s *outlierSettings, c *resource.Cluster, p *place) {
	if s == nil {
		return
	}
	if c.Outlier == nil {
		j.fail(p, "needs the cluster's outlier_detection")
		return
	}
	c.Outlier.RetryAfter = s.RetryAfter
}

// ejectionLog reads where ejections of all clusters are written.
func (j *job) ejectionLog(m *bootstrapv3.Bootstrap, b *BootstrapConfig, p *place) {
	b.EjectionLog = m.GetClusterManager().GetOutlierDetection().GetEventLogPath()
	j.only(strings.IndexByte(b.EjectionLog, 0) >= 0 || len(b.EjectionLog) > 4096, p, "is no path")
}
