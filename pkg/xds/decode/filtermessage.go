// SPDX-License-Identifier: Apache-2.0

package decode

import (
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

const localRateLimitURL = typeURLPrefix + "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"

// filterMessage is an HTTP filter whose configuration is read here, as it has parts in
// common with routes; the filter makes what it needs of the resource.
type filterMessage struct {
	message func() proto.Message
	// read makes the resource; route: it is one of typed_per_filter_config.
	read func(j *job, m proto.Message, route bool, p *place) any
}

// filterMessages are those filters by type URL.
var filterMessages = map[string]filterMessage{
	localRateLimitURL: {
		func() proto.Message { return new(localratelimitv3.LocalRateLimit) },
		func(j *job, m proto.Message, route bool, p *place) any {
			return j.localRateLimit(m.(*localratelimitv3.LocalRateLimit), route, p)
		},
	},
	healthFilterURL: {
		func() proto.Message { return new(healthcheckv3.HealthCheck) },
		func(j *job, m proto.Message, _ bool, p *place) any {
			return j.healthFilter(m.(*healthcheckv3.HealthCheck), p)
		},
	},
	faultURL: {
		func() proto.Message { return new(faultv3.HTTPFault) },
		func(j *job, m proto.Message, _ bool, p *place) any { return j.fault(m.(*faultv3.HTTPFault), p) },
	},
}

// filterResource reads the configuration of such a filter, which may also be the JSON
// of a TypedStruct.
func (j *job) filterResource(f filterMessage, a *anypb.Any, route bool, p *place) (any, bool) {
	m, before := f.message(), len(j.fields)
	if _, text, ok := typedStruct(a); ok {
		if err := protojson.Unmarshal(text, m); err != nil {
			j.fail(p.field("value"), "%s", cleanError(err))
			return nil, false
		}
		p = p.field("value")
		j.check(m, p)
	} else if !j.unpack(a, m, p) {
		return nil, false
	}
	res := f.read(j, m, route, p)
	return res, len(j.fields) == before
}
