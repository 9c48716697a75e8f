// SPDX-License-Identifier: Apache-2.0

package decode

import "google.golang.org/protobuf/reflect/protoreflect"

// withAdmission adds the messages of rate limits, faults and overload to the lists of
// fields.go.
func withAdmission(lists map[protoreflect.FullName]string) map[protoreflect.FullName]string {
	const rate = ro + "RateLimit"
	for name, fields := range map[protoreflect.FullName]string{
		ext + "filters.http.local_ratelimit.v3.LocalRateLimit": `stat_prefix status token_bucket filter_enabled filter_enforced
			request_headers_to_add_when_not_enforced response_headers_to_add descriptors stage local_rate_limit_per_downstream_connection
			enable_x_ratelimit_headers vh_rate_limits always_consume_default_token_bucket rate_limited_as_resource_exhausted
			rate_limits max_dynamic_descriptors enable_retry_after_header`,
		ext + "filters.network.local_ratelimit.v3.LocalRateLimit": "stat_prefix token_bucket runtime_enabled share_key",
		ext + "common.ratelimit.v3.LocalRateLimitDescriptor":      "entries token_bucket shadow_mode",
		ext + "common.ratelimit.v3.RateLimitDescriptor.Entry":     "key value",
		ext + "filters.http.fault.v3.HTTPFault": `delay abort upstream_cluster headers downstream_nodes max_active_faults delay_percent_runtime
			abort_percent_runtime delay_duration_runtime abort_http_status_runtime max_active_faults_runtime abort_grpc_status_runtime
			response_rate_limit response_rate_limit_percent_runtime`,
		ext + "filters.common.fault.v3.FaultRateLimit":             "fixed_limit header_limit percentage",
		ext + "filters.common.fault.v3.FaultRateLimit.FixedLimit":  "limit_kbps",
		ext + "filters.common.fault.v3.FaultRateLimit.HeaderLimit": "",
		ext + "filters.http.fault.v3.FaultAbort":                   "http_status grpc_status header_abort percentage response_body",
		ext + "filters.http.fault.v3.FaultAbort.HeaderAbort":       "",
		ext + "filters.common.fault.v3.FaultDelay":                 "fixed_delay header_delay percentage",
		ext + "filters.common.fault.v3.FaultDelay.HeaderDelay":     "",
		co + "RuntimeFeatureFlag":                                  "default_value runtime_key",
		ty + "v3.TokenBucket":                                      "max_tokens tokens_per_fill fill_interval",
		ty + "v3.HttpStatus":                                       "code",
		ty + "matcher.v3.AddressMatcher":                           "ranges invert_match",
		"xds.core.v3.CidrRange":                                    "address_prefix prefix_len",
		rate:                                                       "stage actions hits_addend",
		rate + ".HitsAddend":                                       "number format",
		rate + ".Action":                                           "source_cluster destination_cluster request_headers query_parameters remote_address masked_remote_address generic_key header_value_match query_parameter_value_match remote_address_match",
		rate + ".Action.SourceCluster":                             "",
		rate + ".Action.DestinationCluster":                        "",
		rate + ".Action.RequestHeaders":                            "header_name descriptor_key skip_if_absent",
		rate + ".Action.QueryParameters":                           "query_parameter_name descriptor_key skip_if_absent",
		rate + ".Action.RemoteAddress":                             "",
		rate + ".Action.MaskedRemoteAddress":                       "v4_prefix_mask_len v6_prefix_mask_len",
		rate + ".Action.GenericKey":                                "descriptor_value default_value descriptor_key",
		rate + ".Action.HeaderValueMatch":                          "descriptor_value default_value descriptor_key expect_match headers",
		rate + ".Action.QueryParameterValueMatch":                  "descriptor_value default_value descriptor_key expect_match query_parameters",
		rate + ".Action.RemoteAddressMatch":                        "descriptor_value descriptor_key default_value address_matcher",
	} {
		lists[name] = fields
	}
	const load, monitor = "envoy.config.overload.v3.", ext + "resource_monitors."
	for name, fields := range map[protoreflect.FullName]string{
		load + "OverloadManager":                                          "refresh_interval resource_monitors actions loadshed_points",
		load + "ResourceMonitor":                                          "name typed_config",
		load + "OverloadAction":                                           "name triggers typed_config",
		load + "LoadShedPoint":                                            "name triggers",
		load + "Trigger":                                                  "name threshold scaled",
		load + "ThresholdTrigger":                                         "value",
		load + "ScaledTrigger":                                            "scaling_threshold saturation_threshold",
		load + "ScaleTimersOverloadActionConfig":                          "timer_scale_factors",
		load + "ScaleTimersOverloadActionConfig.ScaleTimer":               "timer min_timeout min_scale",
		monitor + "fixed_heap.v3.FixedHeapConfig":                         "max_heap_size_bytes",
		monitor + "downstream_connections.v3.DownstreamConnectionsConfig": "max_active_downstream_connections",
		monitor + "injected_resource.v3.InjectedResourceConfig":           "filename",
	} {
		lists[name] = fields
	}
	lists[bo+"Bootstrap"] += " overload_manager"
	lists[li+"Listener"] += " ignore_global_conn_limit bypass_overload_manager"
	lists[ro+"VirtualHost"] += " rate_limits"
	lists[ro+"RouteAction"] += " rate_limits include_vh_rate_limits"
	return lists
}
