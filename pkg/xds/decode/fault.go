// SPDX-License-Identifier: Apache-2.0

package decode

import (
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const faultURL = typeURLPrefix + "envoy.extensions.filters.http.fault.v3.HTTPFault"

func (j *job) fault(m *faultv3.HTTPFault, p *place) *resource.Fault {
	f := &resource.Fault{
		Cluster: j.intern(m.GetUpstreamCluster()), Headers: j.headerMatches(m.GetHeaders(), p, "headers"), Nodes: m.GetDownstreamNodes(),
		MaxActive: -1, MaxActiveKey: orText(m.GetMaxActiveFaultsRuntime(), "fault.http.max_active_faults"),
	}
	if m.GetMaxActiveFaults() != nil {
		f.MaxActive = int64(m.GetMaxActiveFaults().GetValue())
	}
	if d, at := m.GetDelay(), p.field("delay"); d != nil {
		f.Delay = &resource.FaultDelay{
			Percent:     j.faultPercent(d.GetPercentage(), orText(m.GetDelayPercentRuntime(), "fault.http.delay.fixed_delay_percent"), at),
			DurationKey: orText(m.GetDelayDurationRuntime(), "fault.http.delay.fixed_duration_ms"),
		}
		switch v := d.GetFaultDelaySecifier().(type) {
		case *commonfaultv3.FaultDelay_FixedDelay:
			f.Delay.Fixed = j.duration(v.FixedDelay, 0, at.field("fixed_delay"))
		case *commonfaultv3.FaultDelay_HeaderDelay_:
			f.Delay.ByHeader = true
		}
	}
	if a, at := m.GetAbort(), p.field("abort"); a != nil {
		f.Abort = &resource.FaultAbort{
			Percent: j.faultPercent(a.GetPercentage(), orText(m.GetAbortPercentRuntime(), "fault.http.abort.abort_percent"), at),
			HTTPKey: orText(m.GetAbortHttpStatusRuntime(), "fault.http.abort.http_status"),
			GRPCKey: orText(m.GetAbortGrpcStatusRuntime(), "fault.http.abort.grpc_status"),
			Body:    []byte(orText(a.GetResponseBody(), "fault filter abort")),
		}
		switch v := a.GetErrorType().(type) {
		case *faultv3.FaultAbort_HttpStatus:
			f.Abort.HTTP = j.within(v.HttpStatus, 200, 599, at.field("http_status"))
		case *faultv3.FaultAbort_GrpcStatus:
			f.Abort.GRPC, f.Abort.IsGRPC = j.within(v.GrpcStatus, 1, 16, at.field("grpc_status")), true
		case *faultv3.FaultAbort_HeaderAbort_:
			f.Abort.ByHeader = true
		}
	}
	if r, at := m.GetResponseRateLimit(), p.field("response_rate_limit"); r != nil {
		f.Slow = &resource.FaultRate{Percent: j.faultPercent(r.GetPercentage(), orText(m.GetResponseRateLimitPercentRuntime(), "fault.http.rate_limit.response_percent"), at)}
		switch v := r.GetLimitType().(type) {
		case *commonfaultv3.FaultRateLimit_FixedLimit_:
			f.Slow.Fixed = v.FixedLimit.GetLimitKbps()
			j.only(f.Slow.Fixed < 1 || f.Slow.Fixed > resource.MaxFaultRate, at.field("fixed_limit").field("limit_kbps"), "must be at least 1 and at most 1073741824")
		case *commonfaultv3.FaultRateLimit_HeaderLimit_:
			f.Slow.ByHeader = true
		}
	}
	return f
}

// faultPercent reads a percentage, which is 0 unless it is given.
func (j *job) faultPercent(m *typev3.FractionalPercent, key string, p *place) resource.Percent {
	pm, den := j.perMillion(m, p.field("percentage"))
	return resource.Percent{RuntimeKey: key, PerMillion: pm, Denominator: den}
}

func orText(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
