// SPDX-License-Identifier: Apache-2.0

package decode

import "google.golang.org/protobuf/reflect/protoreflect"

// The lists of this file are what "nothing is ignored in silence" rests on: a
// populated field that is in none of them is refused with its path. A new field
// goes into read in the commit that reads it.

const (
	cl  = "envoy.config.cluster.v3."
	co  = "envoy.config.core.v3."
	ro  = "envoy.config.route.v3."
	li  = "envoy.config.listener.v3."
	en  = "envoy.config.endpoint.v3."
	bo  = "envoy.config.bootstrap.v3."
	al  = "envoy.config.accesslog.v3."
	hcm = "envoy.extensions.filters.network.http_connection_manager.v3."
	tcp = "envoy.extensions.filters.network.tcp_proxy.v3."
	ext = "envoy.extensions."
	ty  = "envoy.type."
	lbp = ext + "load_balancing_policies."
)

// edits are the four lists of header changes.
const edits = " request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove "

// read lists by message the fields that decode reads.
var read = withAdmission(withTLS(map[protoreflect.FullName]string{
	// Cluster
	cl + "Cluster": `name alt_stat_name type cluster_type eds_cluster_config connect_timeout per_connection_buffer_limit_bytes lb_policy
		load_assignment max_requests_per_connection circuit_breakers common_http_protocol_options http_protocol_options
		http2_protocol_options typed_extension_protocol_options outlier_detection upstream_bind_config ring_hash_lb_config
		maglev_lb_config least_request_lb_config round_robin_lb_config common_lb_config transport_socket transport_socket_matches metadata
		upstream_connection_options close_connections_on_host_health_failure load_balancing_policy
		original_dst_lb_config cleanup_interval health_checks dns_refresh_rate dns_failure_refresh_rate dns_jitter respect_dns_ttl dns_lookup_family
		dns_resolvers use_tcp_for_dns_lookups dns_resolution_config typed_dns_resolver_config wait_for_warm_on_init lb_subset_config`,
	cl + "Cluster.RefreshRate": "base_interval max_interval",
	cl + "Cluster.LbSubsetConfig": `fallback_policy default_subset subset_selectors locality_weight_aware scale_locality_weight panic_mode_any
		list_as_any metadata_fallback_policy`,
	cl + "Cluster.LbSubsetConfig.LbSubsetSelector":          "keys single_host_per_subset fallback_policy fallback_keys_subset",
	cl + "Cluster.OriginalDstLbConfig":                      "use_http_header http_header_name upstream_port_override",
	cl + "Cluster.EdsClusterConfig":                         "eds_config service_name",
	cl + "Cluster.CustomClusterType":                        "name typed_config",
	cl + "Cluster.RingHashLbConfig":                         "minimum_ring_size hash_function maximum_ring_size",
	cl + "Cluster.MaglevLbConfig":                           "table_size",
	cl + "Cluster.LeastRequestLbConfig":                     "choice_count active_request_bias slow_start_config",
	cl + "Cluster.RoundRobinLbConfig":                       "slow_start_config",
	cl + "Cluster.SlowStartConfig":                          "slow_start_window aggression min_weight_percent",
	cl + "Cluster.CommonLbConfig":                           "healthy_panic_threshold zone_aware_lb_config locality_weighted_lb_config ignore_new_hosts_until_first_hc close_connections_on_host_set_change consistent_hashing_lb_config override_host_status",
	co + "HealthStatusSet":                                  "statuses",
	cl + "Cluster.CommonLbConfig.ZoneAwareLbConfig":         "fail_traffic_on_panic routing_enabled min_cluster_size",
	cl + "Cluster.CommonLbConfig.LocalityWeightedLbConfig":  "",
	cl + "Cluster.CommonLbConfig.ConsistentHashingLbConfig": "use_hostname_for_hashing hash_balance_factor",
	cl + "CircuitBreakers":                                  "thresholds per_host_thresholds",
	cl + "CircuitBreakers.Thresholds":                       "priority max_connections max_pending_requests max_requests max_retries retry_budget track_remaining",
	cl + "CircuitBreakers.Thresholds.RetryBudget":           "budget_percent min_retry_concurrency",
	cl + "OutlierDetection": `consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx consecutive_gateway_failure
		enforcing_consecutive_gateway_failure split_external_local_origin_errors consecutive_local_origin_failure
		enforcing_consecutive_local_origin_failure max_ejection_time max_ejection_time_jitter always_eject_one_host
		enforcing_success_rate enforcing_local_origin_success_rate enforcing_failure_percentage enforcing_failure_percentage_local_origin
		success_rate_minimum_hosts success_rate_request_volume success_rate_stdev_factor failure_percentage_threshold
		failure_percentage_minimum_hosts failure_percentage_request_volume successful_active_health_check_uneject_host
		monitors detect_degraded_hosts`,
	cl + "UpstreamConnectionOptions":  "tcp_keepalive",
	cl + "LoadBalancingPolicy":        "policies",
	cl + "LoadBalancingPolicy.Policy": "typed_extension_config",

	lbp + "common.v3.LocalityLbConfig":                                  "zone_aware_lb_config locality_weighted_lb_config",
	lbp + "common.v3.LocalityLbConfig.ZoneAwareLbConfig":                "fail_traffic_on_panic routing_enabled min_cluster_size force_locality_direct_routing force_local_zone locality_basis",
	lbp + "common.v3.LocalityLbConfig.ZoneAwareLbConfig.ForceLocalZone": "min_size",
	lbp + "common.v3.LocalityLbConfig.LocalityWeightedLbConfig":         "",
	lbp + "common.v3.ConsistentHashingLbConfig":                         "use_hostname_for_hashing hash_balance_factor",
	lbp + "least_request.v3.LeastRequest":                               "choice_count active_request_bias locality_lb_config selection_method slow_start_config",
	lbp + "round_robin.v3.RoundRobin":                                   "locality_lb_config slow_start_config",
	lbp + "common.v3.SlowStartConfig":                                   "slow_start_window aggression min_weight_percent",
	lbp + "random.v3.Random":                                            "locality_lb_config",
	lbp + "ring_hash.v3.RingHash":                                       "hash_function minimum_ring_size maximum_ring_size use_hostname_for_hashing consistent_hashing_lb_config locality_weighted_lb_config",
	lbp + "maglev.v3.Maglev":                                            "table_size consistent_hashing_lb_config locality_weighted_lb_config",
	lbp + "pick_first.v3.PickFirst":                                     "shuffle_address_list",
	lbp + peakEWMAName:                                                  "decay_time default_rtt penalty_value",
	lbp + "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin": `enable_oob_load_report blackout_period weight_expiration_period
		weight_update_period error_utilization_penalty metric_names_for_computing_utilization slow_start_config`,
	lbp + "subset.v3.Subset": `fallback_policy default_subset subset_selectors locality_weight_aware scale_locality_weight panic_mode_any
		list_as_any metadata_fallback_policy subset_lb_policy allow_redundant_keys`,
	lbp + "subset.v3.Subset.LbSubsetSelector":                "keys single_host_per_subset fallback_policy fallback_keys_subset",
	lbp + "override_host.v3.OverrideHost":                    "override_host_sources fallback_policy selected_host_key",
	lbp + "override_host.v3.OverrideHost.OverrideHostSource": "header metadata",
	"envoy.type.metadata.v3.MetadataKey":                     "key path",
	"envoy.type.metadata.v3.MetadataKey.PathSegment":         "key",
	lbp + "random_subsetting.v3.RandomSubsetting":            "subset_size child_policy",
	lbp + "wrr_locality.v3.WrrLocality":                      "endpoint_picking_policy",

	ext + "upstreams.http.v3.HttpProtocolOptions":                         "common_http_protocol_options explicit_http_config use_downstream_protocol_config outlier_detection",
	ext + "upstreams.http.v3.HttpProtocolOptions.OutlierDetection":        "error_matcher",
	"envoy.config.common.matcher.v3.MatchPredicate":                       "or_match http_response_headers_match",
	"envoy.config.common.matcher.v3.MatchPredicate.MatchSet":              "rules",
	"envoy.config.common.matcher.v3.HttpHeadersMatch":                     "headers",
	ext + "upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig":      "http_protocol_options http2_protocol_options",
	ext + "upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig": "http_protocol_options http2_protocol_options",

	ext + "clusters.aggregate.v3.ClusterConfig": "clusters",
	ext + "clusters.dns.v3.DnsCluster": `dns_refresh_rate dns_failure_refresh_rate respect_dns_ttl dns_jitter typed_dns_resolver_config
		dns_lookup_family all_addresses_in_single_endpoint dns_min_refresh_rate`,
	ext + "clusters.dns.v3.DnsCluster.RefreshRate":               "base_interval max_interval",
	ext + "network.dns_resolver.cares.v3.CaresDnsResolverConfig": "resolvers dns_resolver_options query_timeout_seconds query_tries",
	co + "DnsResolutionConfig":                                   "resolvers dns_resolver_options",
	co + "DnsResolverOptions":                                    "use_tcp_for_dns_lookups no_default_search_domain",

	// Endpoints
	en + "ClusterLoadAssignment":                     "cluster_name endpoints policy",
	en + "ClusterLoadAssignment.Policy":              "drop_overloads overprovisioning_factor weighted_priority_health",
	en + "ClusterLoadAssignment.Policy.DropOverload": "category drop_percentage",
	en + "LocalityLbEndpoints":                       "locality lb_endpoints load_balancing_weight priority",
	en + "LbEndpoint":                                "endpoint health_status metadata load_balancing_weight",
	en + "Endpoint":                                  "address hostname health_check_config",
	en + "Endpoint.HealthCheckConfig":                "port_value hostname address disable_active_health_check",

	// Health checks
	co + "HealthCheck": `name timeout interval initial_jitter interval_jitter interval_jitter_percent unhealthy_threshold healthy_threshold
		reuse_connection http_health_check tcp_health_check grpc_health_check custom_health_check no_traffic_interval no_traffic_healthy_interval
		unhealthy_interval unhealthy_edge_interval healthy_edge_interval event_log_path event_logger
		always_log_health_check_failures always_log_health_check_success tls_options transport_socket_match_criteria`,
	co + "HealthCheck.TlsOptions": "alpn_protocols",
	co + "HealthCheck.Payload":    "text binary",
	co + "HealthCheck.HttpHealthCheck": `host path send receive response_buffer_size request_headers_to_add request_headers_to_remove expected_statuses
		retriable_statuses codec_client_type service_name_matcher method`,
	co + "HealthCheck.TcpHealthCheck":                                 "send receive proxy_protocol_config",
	co + "HealthCheck.GrpcHealthCheck":                                "service_name authority initial_metadata",
	co + "HealthCheck.CustomHealthCheck":                              "name",
	ext + "health_check.event_sinks.file.v3.HealthCheckEventFileSink": "event_log_path",
	ext + "filters.http.health_check.v3.HealthCheck":                  "pass_through_mode cache_time cluster_min_healthy_percentages headers",

	// Core
	co + "Address":                  "socket_address pipe",
	co + "SocketAddress":            "protocol address port_value",
	co + "Pipe":                     "path",
	co + "Locality":                 "region zone sub_zone",
	co + "Metadata":                 "filter_metadata",
	co + "TypedExtensionConfig":     "name typed_config",
	co + "ExtensionConfigSource":    "config_source default_config apply_default_config_without_warming type_urls",
	co + "TransportSocket":          "name typed_config",
	co + "BindConfig":               "source_address freebind",
	co + "TcpKeepalive":             "keepalive_time",
	co + "RuntimeDouble":            "default_value runtime_key",
	co + "RuntimeUInt32":            "default_value runtime_key",
	co + "RuntimeFractionalPercent": "default_value runtime_key",
	co + "HeaderValueOption":        "header append append_action keep_empty_value",
	co + "HeaderValue":              "key value",
	co + "CidrRange":                "address_prefix prefix_len",
	co + "DataSource":               "inline_string inline_bytes filename environment_variable",
	co + "SubstitutionFormatString": "text_format json_format text_format_source omit_empty_values content_type",
	co + "HttpProtocolOptions": `idle_timeout max_connection_duration max_headers_count max_response_headers_kb max_stream_duration
		headers_with_underscores_action max_requests_per_connection`,
	co + "Http2ProtocolOptions": `hpack_table_size max_concurrent_streams initial_stream_window_size initial_connection_window_size
		max_outbound_frames max_outbound_control_frames connection_keepalive allow_connect`,
	co + "KeepaliveSettings": "interval timeout",
	co + "Http1ProtocolOptions": `allow_absolute_url accept_http_10 default_host_for_http_10 header_key_format allow_chunked_length
		override_stream_error_on_invalid_http_message send_fully_qualified_url`,
	co + "Http1ProtocolOptions.HeaderKeyFormat":                 "proper_case_words",
	co + "Http1ProtocolOptions.HeaderKeyFormat.ProperCaseWords": "",
	co + "ConfigSource":           "path path_config_source api_config_source ads self initial_fetch_timeout resource_api_version",
	co + "PathConfigSource":       "path watched_directory poll_interval",
	co + "WatchedDirectory":       "path",
	co + "ApiConfigSource":        "api_type transport_api_version cluster_names grpc_services refresh_delay request_timeout set_node_on_first_message_only",
	co + "AggregatedConfigSource": "",
	co + "SelfConfigSource":       "transport_api_version",
	co + "GrpcService":            "envoy_grpc google_grpc initial_metadata",
	co + "GrpcService.EnvoyGrpc":  "cluster_name authority",
	co + "GrpcService.GoogleGrpc": "target_uri",
	co + "HttpService":            "http_uri",
	co + "HttpUri":                "uri cluster",
	co + "Node":                   "id cluster metadata locality",

	ty + "v3.Percent":                         "value",
	ty + "v3.FractionalPercent":               "numerator denominator",
	ty + "v3.Int64Range":                      "start end",
	ty + "v3.HashPolicy":                      "source_ip",
	ty + "v3.HashPolicy.SourceIp":             "",
	ty + "matcher.v3.RegexMatcher":            "regex",
	ty + "matcher.v3.RegexMatchAndSubstitute": "pattern substitution",
	ty + "matcher.v3.StringMatcher":           "exact prefix suffix safe_regex contains ignore_case",
	ty + "tracing.v3.CustomTag":               "tag literal request_header environment metadata",
	ty + "tracing.v3.CustomTag.Literal":       "value",
	ty + "tracing.v3.CustomTag.Header":        "name default_value",

	// Routes
	ro + "RouteConfiguration": `name virtual_hosts vhds internal_only_headers most_specific_header_mutations_wins validate_clusters
		max_direct_response_body_size_bytes request_mirror_policies ignore_port_in_host_matching typed_per_filter_config` + edits,
	ro + "Vhds": "config_source",
	ro + "VirtualHost": `name domains routes require_tls typed_per_filter_config include_request_attempt_count include_attempt_count_in_response
		retry_policy hedge_policy per_request_buffer_limit_bytes request_body_buffer_limit request_mirror_policies metadata` + edits,
	ro + "Route": `name match route redirect direct_response metadata decorator typed_per_filter_config tracing
		per_request_buffer_limit_bytes stat_prefix request_body_buffer_limit` + edits,
	ro + "RouteMatch":                       "prefix path safe_regex connect_matcher path_separated_prefix case_sensitive runtime_fraction headers query_parameters grpc",
	ro + "RouteMatch.ConnectMatcher":        "",
	ro + "RouteMatch.GrpcRouteMatchOptions": "",
	ro + "QueryParameterMatcher":            "name string_match present_match",
	ro + "HeaderMatcher":                    "name exact_match safe_regex_match range_match present_match prefix_match suffix_match contains_match string_match invert_match treat_missing_header_as_empty",
	ro + "RouteAction": `cluster cluster_header weighted_clusters cluster_not_found_response_code prefix_rewrite regex_rewrite
		host_rewrite_literal auto_host_rewrite host_rewrite_header host_rewrite_path_regex append_x_forwarded_host timeout
		idle_timeout retry_policy hedge_policy request_mirror_policies priority hash_policy max_stream_duration
		max_grpc_timeout grpc_timeout_offset upgrade_configs metadata_match`,
	ro + "RouteAction.UpgradeConfig":                   "upgrade_type enabled connect_config",
	ro + "RouteAction.UpgradeConfig.ConnectConfig":     "",
	ro + "RouteAction.MaxStreamDuration":               "max_stream_duration grpc_timeout_header_max grpc_timeout_header_offset",
	ro + "RouteAction.RequestMirrorPolicy":             "cluster cluster_header runtime_fraction trace_sampled disable_shadow_host_suffix_append",
	ro + "RouteAction.HashPolicy":                      "header cookie connection_properties query_parameter terminal",
	ro + "RouteAction.HashPolicy.Header":               "header_name regex_rewrite",
	ro + "RouteAction.HashPolicy.Cookie":               "name ttl path",
	ro + "RouteAction.HashPolicy.ConnectionProperties": "source_ip",
	ro + "RouteAction.HashPolicy.QueryParameter":       "name",
	ro + "WeightedCluster":                             "clusters total_weight",
	ro + "WeightedCluster.ClusterWeight":               "name cluster_header weight typed_per_filter_config host_rewrite_literal metadata_match" + edits,
	ro + "RedirectAction":                              "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite regex_rewrite response_code strip_query",
	ro + "DirectResponseAction":                        "status body",
	ro + "Decorator":                                   "operation",
	ro + "Tracing":                                     "client_sampling random_sampling overall_sampling custom_tags",
	ro + "RetryPolicy": `retry_on num_retries per_try_timeout per_try_idle_timeout retry_priority retry_host_predicate
		host_selection_retry_max_attempts retriable_status_codes retry_back_off rate_limited_retry_back_off
		retriable_headers retriable_request_headers`,
	ro + "HedgePolicy":                                                     "hedge_on_per_try_timeout",
	ro + "RetryPolicy.RetryPriority":                                       "name typed_config",
	ro + "RetryPolicy.RetryHostPredicate":                                  "name typed_config",
	ro + "RetryPolicy.RetryBackOff":                                        "base_interval max_interval",
	ro + "RetryPolicy.RateLimitedRetryBackOff":                             "reset_headers max_interval",
	ro + "RetryPolicy.ResetHeader":                                         "name format",
	ext + "retry.host.previous_hosts.v3.PreviousHostsPredicate":            "",
	ext + "retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate":       "",
	ext + "retry.host.omit_host_metadata.v3.OmitHostMetadataConfig":        "metadata_match",
	ext + "retry.priority.previous_priorities.v3.PreviousPrioritiesConfig": "update_frequency",
	ro + "FilterConfig":                                                    "config is_optional disabled",
	ro + "ScopedRouteConfiguration":                                        "on_demand name route_configuration_name route_configuration key",
	ro + "ScopedRouteConfiguration.Key":                                    "fragments",
	ro + "ScopedRouteConfiguration.Key.Fragment":                           "string_key",

	// Listeners
	li + "Listener": `name address additional_addresses stat_prefix filter_chains default_filter_chain per_connection_buffer_limit_bytes
		metadata deprecated_v1 drain_type listener_filters listener_filters_timeout continue_on_listener_filters_timeout
		traffic_direction access_log tcp_backlog_size bind_to_port`,
	li + "Listener.DeprecatedV1":                      "bind_to_port",
	li + "AdditionalAddress":                          "address",
	li + "ListenerFilter":                             "name typed_config filter_disabled",
	li + "ListenerFilterChainMatchPredicate":          "or_match and_match not_match any_match destination_port_range",
	li + "ListenerFilterChainMatchPredicate.MatchSet": "rules",
	ty + "v3.Int32Range":                              "start end",
	li + "FilterChain":                                "filter_chain_match filters transport_socket transport_socket_connect_timeout name metadata",
	li + "FilterChainMatch": `destination_port prefix_ranges direct_source_prefix_ranges source_type source_prefix_ranges source_ports
		transport_protocol server_names application_protocols`,
	ext + "filters.listener.proxy_protocol.v3.ProxyProtocol":                   "allow_requests_without_proxy_protocol disallowed_versions",
	ext + "filters.listener.tls_inspector.v3.TlsInspector":                     "max_client_hello_size close_connection_on_client_hello_parsing_errors",
	ext + "filters.listener.http_inspector.v3.HttpInspector":                   "",
	ext + "filters.listener.original_dst.v3.OriginalDst":                       "",
	ext + "transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport": "config transport_socket",
	co + "ProxyProtocolConfig":                                                 "version",
	li + "Filter":                                                              "name typed_config",
	ext + "filters.network.connection_limit.v3.ConnectionLimit":                "stat_prefix max_connections",
	tcp + "TcpProxy":                               "stat_prefix cluster weighted_clusters idle_timeout access_log max_connect_attempts hash_policy metadata_match",
	tcp + "TcpProxy.WeightedCluster":               "clusters",
	tcp + "TcpProxy.WeightedCluster.ClusterWeight": "name weight metadata_match",
	hcm + "HttpConnectionManager": `codec_type stat_prefix rds route_config scoped_routes http_filters tracing common_http_protocol_options
		http_protocol_options http2_protocol_options server_name server_header_transformation max_request_headers_kb stream_idle_timeout request_timeout
		request_headers_timeout drain_timeout delayed_close_timeout access_log access_log_flush_interval access_log_options
		use_remote_address xff_num_trusted_hops internal_address_config skip_xff_append via generate_request_id
		preserve_external_request_id always_set_request_id_in_response normalize_path merge_slashes
		path_with_escaped_slashes_action local_reply_config strip_matching_host_port strip_any_host_port
		stream_error_on_invalid_http_message strip_trailing_host_dot upgrade_configs
		forward_client_cert_details set_current_client_cert_details`,
	hcm + "HttpConnectionManager.SetCurrentClientCertDetails":                           "subject dns uri",
	hcm + "HttpConnectionManager.UpgradeConfig":                                         "upgrade_type enabled",
	hcm + "HttpConnectionManager.HcmAccessLogOptions":                                   "access_log_flush_interval",
	hcm + "HttpConnectionManager.InternalAddressConfig":                                 "unix_sockets cidr_ranges",
	hcm + "HttpConnectionManager.Tracing":                                               "client_sampling random_sampling overall_sampling verbose max_path_tag_length custom_tags provider",
	hcm + "Rds":                                                                         "config_source route_config_name",
	hcm + "HttpFilter":                                                                  "name typed_config config_discovery is_optional disabled",
	hcm + "ScopedRoutes":                                                                "name scope_key_builder rds_config_source scoped_route_configurations_list scoped_rds",
	hcm + "ScopedRoutes.ScopeKeyBuilder":                                                "fragments",
	hcm + "ScopedRoutes.ScopeKeyBuilder.FragmentBuilder":                                "header_value_extractor",
	hcm + "ScopedRoutes.ScopeKeyBuilder.FragmentBuilder.HeaderValueExtractor":           "name element_separator index element",
	hcm + "ScopedRoutes.ScopeKeyBuilder.FragmentBuilder.HeaderValueExtractor.KvElement": "separator key",
	hcm + "ScopedRouteConfigurationsList":                                               "scoped_route_configurations",
	hcm + "ScopedRds":                                                                   "scoped_rds_config_source",
	hcm + "LocalReplyConfig":                                                            "mappers body_format",
	hcm + "ResponseMapper":                                                              "filter status_code body body_format_override headers_to_add",

	// Access logs and tracers
	al + "AccessLog":                                         "name filter typed_config",
	al + "AccessLogFilter":                                   "status_code_filter duration_filter not_health_check_filter traceable_filter runtime_filter and_filter or_filter header_filter response_flag_filter",
	al + "StatusCodeFilter":                                  "comparison",
	al + "DurationFilter":                                    "comparison",
	al + "ComparisonFilter":                                  "op value",
	al + "NotHealthCheckFilter":                              "",
	al + "TraceableFilter":                                   "",
	al + "RuntimeFilter":                                     "runtime_key percent_sampled",
	al + "AndFilter":                                         "filters",
	al + "OrFilter":                                          "filters",
	al + "HeaderFilter":                                      "header",
	al + "ResponseFlagFilter":                                "flags",
	ext + "access_loggers.file.v3.FileAccessLog":             "path format json_format typed_json_format log_format",
	ext + "access_loggers.stream.v3.StdoutAccessLog":         "log_format",
	ext + "access_loggers.stream.v3.StderrAccessLog":         "log_format",
	ext + "access_loggers.grpc.v3.HttpGrpcAccessLogConfig":   "common_config additional_request_headers_to_log additional_response_headers_to_log",
	ext + "access_loggers.grpc.v3.TcpGrpcAccessLogConfig":    "common_config",
	ext + "access_loggers.grpc.v3.CommonGrpcAccessLogConfig": "log_name grpc_service transport_api_version buffer_flush_interval buffer_size_bytes",
	"envoy.config.trace.v3.Tracing.Http":                     "name typed_config",
	"envoy.config.trace.v3.ZipkinConfig":                     "collector_cluster collector_endpoint trace_id_128bit shared_span_context collector_endpoint_version collector_hostname trace_context_option",
	"envoy.config.trace.v3.OpenTelemetryConfig":              "grpc_service http_service service_name",

	"envoy.service.runtime.v3.Runtime": "name layer",

	// Bootstrap
	bo + "Bootstrap":                       "node static_resources dynamic_resources stats_flush_interval layered_runtime admin cluster_manager",
	bo + "ClusterManager":                  "local_cluster_name outlier_detection",
	bo + "ClusterManager.OutlierDetection": "event_log_path",
	bo + "Bootstrap.StaticResources":       "listeners clusters secrets",
	bo + "Bootstrap.DynamicResources":      "lds_config cds_config ads_config",
	bo + "LayeredRuntime":                  "layers",
	bo + "RuntimeLayer":                    "name static_layer disk_layer admin_layer rtds_layer",
	bo + "RuntimeLayer.AdminLayer":         "",
	bo + "RuntimeLayer.RtdsLayer":          "name rtds_config",
	bo + "Admin":                           "address access_log access_log_path",
}))

// wholes are messages that are accepted with whatever is in them, each with the
// reason.
var wholes = map[protoreflect.FullName]string{
	ty + "tracing.v3.CustomTag.Environment": "refused by the reader of tags",
	ty + "tracing.v3.CustomTag.Metadata":    "refused by the reader of tags",
	bo + "RuntimeLayer.DiskLayer":           "refused by the reader of layers",
}

// harmless are fields that change nothing here, each with the reason.
var harmless = map[protoreflect.FullName]string{
	cl + "Cluster.ignore_health_on_host_removal":                   "endpoints that discovery no longer names always leave at once",
	cl + "Cluster.track_timeout_budgets":                           "statistics only",
	cl + "Cluster.track_cluster_stats":                             "statistics only",
	cl + "Cluster.CommonLbConfig.update_merge_window":              "updates are merged before they are applied",
	cl + "CircuitBreakers.Thresholds.max_connection_pools":         "there is one pool per endpoint and loop",
	en + "LocalityLbEndpoints.proximity":                           "nothing goes by it, in Envoy neither",
	en + "LocalityLbEndpoints.metadata":                            "matched by nothing that is supported",
	co + "Pipe.mode":                                               "the mode of connected sockets is their server's",
	co + "SocketAddress.ipv4_compat":                               "IPv6 sockets take IPv4 as well",
	co + "Http1ProtocolOptions.enable_trailers":                    "trailers are always forwarded",
	co + "Http1ProtocolOptions.use_balsa_parser":                   "names a parser of Envoy",
	co + "Http1ProtocolOptions.allow_custom_methods":               "every method that is a token is forwarded",
	co + "Http1ProtocolOptions.HeaderKeyFormat.stateful_formatter": "the case of names is always kept",
	co + "TcpKeepalive.keepalive_probes":                           "the system's count is kept",
	co + "TcpKeepalive.keepalive_interval":                         "the system's interval is kept",
	co + "ApiConfigSource.rate_limit_settings":                     "requests are always limited",
	co + "GrpcService.timeout":                                     "is for single calls; streams have none",
	co + "GrpcService.GoogleGrpc.stat_prefix":                      "statistics only",
	co + "HttpUri.timeout":                                         "exports have their own",
	co + "SubstitutionFormatString.json_format_options":            "fields are always sorted",
	co + "Node.user_agent_name":                                    "this program says who it is itself",
	co + "Node.user_agent_version":                                 "see user_agent_name",
	co + "Node.user_agent_build_version":                           "see user_agent_name",
	co + "Node.client_features":                                    "this program says what it can itself",
	co + "Node.extensions":                                         "see client_features",
	ty + "matcher.v3.RegexMatcher.google_re2":                      "the only engine",
	ro + "VirtualHost.virtual_clusters":                            "statistics only",
	ro + "Decorator.propagate":                                     "operation names do not travel",
	lbp + "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin.oob_reporting_period": "for enable_oob_load_report, which is refused",
	lbp + peakEWMAName + ".aggregation_interval":                                                  "workers share one estimate",
	lbp + peakEWMAName + ".max_samples_per_host":                                                  "samples are not buffered",
	ro + "WeightedCluster.runtime_key_prefix":                                                     "weights come from configuration",
	li + "Listener.reuse_port":                                                                    "every loop has its own socket",
	li + "Listener.enable_reuse_port":                                                             "every loop has its own socket",
	li + "Listener.max_connections_to_accept_per_socket_event":                                    "loops bound their own work",
	li + "Listener.connection_balance_config":                                                     "the kernel spreads connections over loops",
	hcm + "HttpConnectionManager.add_user_agent":                                                  "the user agent is the client's",
	hcm + "HttpConnectionManager.proxy_100_continue":                                              "interim responses are always forwarded",
	al + "RuntimeFilter.use_independent_randomness":                                               "randomness is always independent",
	"envoy.config.trace.v3.OpenTelemetryConfig.max_cache_size":                                    "the span ring has its own bound",
	bo + "Admin.profile_path":                                                                     "profiles are answered, not written",
	bo + "Admin.ignore_global_conn_limit":                                                         "there is none",
	bo + "Bootstrap.stats_config":                                                                 "statistics only",
	bo + "Bootstrap.enable_dispatcher_stats":                                                      "statistics only",
	bo + "Bootstrap.watchdog":                                                                     "loops are watched by default",
	bo + "Bootstrap.watchdogs":                                                                    "loops are watched by default",
	ext + "filters.listener.proxy_protocol.v3.ProxyProtocol.stat_prefix":                          "statistics only",
	ext + "filters.listener.tls_inspector.v3.TlsInspector.initial_read_buffer_size":               "buffers are as large as what came",
	ext + "filters.listener.tls_inspector.v3.TlsInspector.enable_ja3_fingerprinting":              "read by nothing; fingerprints are of logs that are refused",
	ext + "filters.http.fault.v3.HTTPFault.disable_downstream_cluster_stats":                      "callers have no statistics of their own",
}
