// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"math"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const (
	faultFilter     = "envoy.filters.http.fault"
	rateLimitFilter = "envoy.filters.http.local_ratelimit"
	// rateLimitKeys is how many values a limit by header or address knows at a time.
	rateLimitKeys = 10_000
)

func httpFilter(name string, config proto.Message) (*hcmv3.HttpFilter, error) {
	packed, err := pack(config)
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed}}, err
}

// rateLimit is the filter of the inbound listener.
func rateLimit(r *mesh.RateLimit) (*hcmv3.HttpFilter, error) {
	all := &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
	bucket := &typev3.TokenBucket{
		MaxTokens: or(r.Burst, r.Requests), TokensPerFill: u32(r.Requests),
		FillInterval: durationpb.New(time.Duration(or(r.Per, mesh.Duration(time.Second)))),
	}
	l := &localratelimitv3.LocalRateLimit{
		StatPrefix: InboundListener, FilterEnabled: all, FilterEnforced: all,
		RateLimitedAsResourceExhausted: true, EnableXRatelimitHeaders: ratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03,
		EnableRetryAfterHeader: true,
	}
	if r.Status != 0 {
		l.Status = &typev3.HttpStatus{Code: typev3.StatusCode(r.Status)}
	}
	if r.By == nil {
		l.TokenBucket = bucket
		return httpFilter(rateLimitFilter, l)
	}
	// The address of the connection: remote_address would be what X-Forwarded-For says,
	// which whoever calls may change with each request.
	key := "source_ip"
	action := &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
		GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: key, DescriptorValue: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"},
	}}
	if r.By.Header != "" {
		key = "header"
		action.ActionSpecifier = &routev3.RateLimit_Action_RequestHeaders_{
			RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{HeaderName: r.By.Header, DescriptorKey: key},
		}
	}
	l.RateLimits = []*routev3.RateLimit{{Actions: []*routev3.RateLimit_Action{action}}}
	l.Descriptors = []*ratelimitv3.LocalRateLimitDescriptor{{
		Entries: []*ratelimitv3.RateLimitDescriptor_Entry{{Key: key}}, TokenBucket: bucket,
	}}
	l.MaxDynamicDescriptors = u32(rateLimitKeys)
	return httpFilter(rateLimitFilter, l)
}

// addFault puts a service's fault into its virtual host; the filter of the listener
// has none of its own.
func addFault(h *routev3.VirtualHost, f *mesh.Fault) error {
	out := &faultv3.HTTPFault{}
	if f.MaxActive != nil {
		out.MaxActiveFaults = u32(*f.MaxActive)
	}
	if d := f.Delay; d != nil {
		out.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(time.Duration(d.Fixed))}, Percentage: fraction(d.Percent),
		}
	}
	if a := f.Abort; a != nil {
		out.Abort = &faultv3.FaultAbort{ErrorType: &faultv3.FaultAbort_HttpStatus{HttpStatus: uint32(a.Status)}, Percentage: fraction(a.Percent)}
		if a.GRPCStatus != 0 {
			out.Abort.ErrorType = &faultv3.FaultAbort_GrpcStatus{GrpcStatus: uint32(a.GRPCStatus)}
		}
	}
	packed, err := pack(out)
	h.TypedPerFilterConfig = map[string]*anypb.Any{faultFilter: packed}
	return err
}

// fraction is a share of requests; nil is all.
func fraction(p *mesh.Percent) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{
		Numerator: uint32(math.Round(float64(or(p, mesh.Percent(100))) * 10_000)), Denominator: typev3.FractionalPercent_MILLION,
	}
}
