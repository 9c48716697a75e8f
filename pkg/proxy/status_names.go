// SPDX-License-Identifier: Apache-2.0

package proxy

import "github.com/outrigger-mesh/outrigger/pkg/metrics"

// The names below are Envoy's ("HTTP connection manager statistics", "Cluster
// manager statistics" of its documentation); a name of ours is in stats of its
// own, see status_stats.go.

const (
	counter = metrics.KindCounter
	gauge   = metrics.KindGauge
)

// managerCounts are the stats of http.<stat_prefix>.
var managerCounts = [...]count[managerCounters]{
	{"downstream_cx_total", "Connections accepted.", counter, func(s *managerCounters) *uint64 { return &s.cxTotal }},
	{"downstream_cx_active", "Connections open now.", gauge, func(s *managerCounters) *uint64 { return &s.cxActive }},
	{"downstream_cx_destroy", "Connections closed.", counter, func(s *managerCounters) *uint64 { return &s.cxDestroy }},
	{"downstream_cx_idle_timeout", "Connections closed because they were idle for too long.", counter, func(s *managerCounters) *uint64 { return &s.cxIdleTimeout }},
	{"downstream_cx_upgrades_total", "Requests that became tunnels: upgrades and CONNECT.", counter, func(s *managerCounters) *uint64 { return &s.upgradesTotal }},
	{"downstream_cx_upgrades_active", "Tunnels that requests have become, now.", gauge, func(s *managerCounters) *uint64 { return &s.upgradesActive }},
	{"downstream_cx_protocol_error", "Connections with a request that breaks the protocol.", counter, func(s *managerCounters) *uint64 { return &s.rqProtocolError }},
	{"downstream_cx_rx_bytes_total", "Bytes received.", counter, func(s *managerCounters) *uint64 { return &s.rxBytes }},
	{"downstream_cx_tx_bytes_total", "Bytes sent.", counter, func(s *managerCounters) *uint64 { return &s.txBytes }},
	{"downstream_flow_control_paused_reading_total", "Times that reading a request paused because the upstream was slower.", counter, func(s *managerCounters) *uint64 { return &s.flowPaused }},
	{"downstream_cx_http2_total", "Connections of HTTP/2 accepted.", counter, func(s *managerCounters) *uint64 { return &s.cxHTTP2 }},
	{"downstream_cx_http2_active", "Connections of HTTP/2 open now.", gauge, func(s *managerCounters) *uint64 { return &s.cxHTTP2Active }},
	{"downstream_rq_total", "Requests received.", counter, func(s *managerCounters) *uint64 { return &s.rqTotal }},
	{"downstream_rq_active", "Requests in flight.", gauge, func(s *managerCounters) *uint64 { return &s.rqActive }},
	{"downstream_rq_completed", "Requests that ended.", counter, func(s *managerCounters) *uint64 { return &s.rqCompleted }},
	{"downstream_rq_header_timeout", "Requests whose headers took too long.", counter, func(s *managerCounters) *uint64 { return &s.rqHeaderTimeout }},
	{"downstream_rq_idle_timeout", "Requests that ended because nothing moved for too long.", counter, func(s *managerCounters) *uint64 { return &s.rqIdleTimeout }},
	{"downstream_rq_overload_close", "Requests refused because the process is overloaded.", counter, func(s *managerCounters) *uint64 { return &s.rqOverload }},
	{"rq_overload_local_reply", "Requests refused before the filters because the process is overloaded.", counter, func(s *managerCounters) *uint64 { return &s.rqOverloadLocal }},
	{"downstream_cx_overload_disable_keepalive", "Connections that end with a response because the process is overloaded.", counter, func(s *managerCounters) *uint64 { return &s.cxOverloadKeepAlive }},
	{"downstream_rq_1xx", classHelp, counter, func(s *managerCounters) *uint64 { return &s.rq1xx }},
	{"downstream_rq_2xx", classHelp, counter, func(s *managerCounters) *uint64 { return &s.rq2xx }},
	{"downstream_rq_3xx", classHelp, counter, func(s *managerCounters) *uint64 { return &s.rq3xx }},
	{"downstream_rq_4xx", classHelp, counter, func(s *managerCounters) *uint64 { return &s.rq4xx }},
	{"downstream_rq_5xx", classHelp, counter, func(s *managerCounters) *uint64 { return &s.rq5xx }},
}

const classHelp = "Responses by the class of their status."

// clusterCounts are the stats of cluster.<name>; those with an empty name are
// shown as our own.
var clusterCounts = [...]count[clusterStats]{
	{"upstream_cx_total", "Connections begun to endpoints.", counter, func(s *clusterStats) *uint64 { return &s.cxTotal }},
	{"upstream_cx_active", "Connections to endpoints now.", gauge, func(s *clusterStats) *uint64 { return &s.cxActive }},
	{"upstream_cx_destroy", "Connections to endpoints that ended.", counter, func(s *clusterStats) *uint64 { return &s.cxDestroy }},
	{"upstream_cx_connect_fail", "Connections that could not be made.", counter, func(s *clusterStats) *uint64 { return &s.cxConnectFail }},
	{"upstream_cx_connect_timeout", "Connections that were not made in time.", counter, func(s *clusterStats) *uint64 { return &s.cxConnectTimeout }},
	{"upstream_cx_overflow", "Connections refused by the limit of connections.", counter, func(s *clusterStats) *uint64 { return &s.cxOverflow }},
	{"upstream_cx_idle_timeout", "Connections closed because they were idle for too long.", counter, func(s *clusterStats) *uint64 { return &s.cxIdleTimeout }},
	{"upstream_cx_protocol_error", "Connections with a response that breaks the protocol.", counter, func(s *clusterStats) *uint64 { return &s.protocolError }},
	{"upstream_cx_rx_bytes_total", "Bytes received from endpoints.", counter, func(s *clusterStats) *uint64 { return &s.rxBytes }},
	{"upstream_cx_tx_bytes_total", "Bytes sent to endpoints.", counter, func(s *clusterStats) *uint64 { return &s.txBytes }},
	{"upstream_cx_none_healthy", "Requests that found no endpoint to go to.", counter, func(s *clusterStats) *uint64 { return &s.noneHealthy }},
	{"upstream_rq_total", "Requests for endpoints of the cluster, retries among them.", counter, func(s *clusterStats) *uint64 { return &s.rqTotal }},
	{"upstream_rq_active", "Requests in flight.", gauge, func(s *clusterStats) *uint64 { return &s.rqActive }},
	{"upstream_rq_completed", "Responses received.", counter, func(s *clusterStats) *uint64 { return &s.rqCompleted }},
	{"upstream_rq_active_overflow", "Requests refused by the limit of requests.", counter, func(s *clusterStats) *uint64 { return &s.rqOverflow }},
	{"upstream_rq_pending_total", "Requests that waited for a connection.", counter, func(s *clusterStats) *uint64 { return &s.rqPendingTotal }},
	{"upstream_rq_pending_overflow", "Requests refused by the limit of waiting ones.", counter, func(s *clusterStats) *uint64 { return &s.rqPendingOverflow }},
	{"upstream_rq_pending_failure_eject", "Requests that failed while they waited for a connection.", counter, func(s *clusterStats) *uint64 { return &s.rqPendingFailure }},
	{"upstream_rq_timeout", "Requests that got no response in time.", counter, func(s *clusterStats) *uint64 { return &s.rqTimeout }},
	{"upstream_rq_per_try_timeout", "Tries that got no response in time.", counter, func(s *clusterStats) *uint64 { return &s.rqPerTryTimeout }},
	{"upstream_rq_cancelled", "Requests given up before a connection was there.", counter, func(s *clusterStats) *uint64 { return &s.rqCancelled }},
	{"upstream_rq_tx_reset", "Requests reset by this side.", counter, func(s *clusterStats) *uint64 { return &s.rqTxReset }},
	{"http2.keepalive_timeout", "Connections of HTTP/2 closed as the endpoint gave no sign of life.", counter, func(s *clusterStats) *uint64 { return &s.http2KeepAlive }},
	{"upstream_rq_rx_reset", "Requests reset by the endpoint.", counter, func(s *clusterStats) *uint64 { return &s.rqRxReset }},
	{"upstream_rq_drop_overload", "Requests dropped because the control plane asked for it.", counter, func(s *clusterStats) *uint64 { return &s.dropOverload }},
	{"upstream_rq_retry", "Retries.", counter, func(s *clusterStats) *uint64 { return &s.retries }},
	{"upstream_rq_retry_success", "Retries that succeeded.", counter, func(s *clusterStats) *uint64 { return &s.retrySuccess }},
	{"upstream_rq_retry_overflow", "Retries refused by the limit or the budget of retries.", counter, func(s *clusterStats) *uint64 { return &s.retryOverflow }},
	{"upstream_rq_retry_limit_exceeded", "Requests that were not retried because they had been often enough.", counter, func(s *clusterStats) *uint64 { return &s.retryLimit }},
	{"upstream_rq_retry_backoff_exponential", "Retries that waited for a time of ours.", counter, func(s *clusterStats) *uint64 { return &s.retryExponential }},
	{"upstream_rq_retry_backoff_ratelimited", "Retries that waited for as long as the endpoint had asked for.", counter, func(s *clusterStats) *uint64 { return &s.retryRateLimited }},
	{"retry_or_shadow_abandoned", "Requests whose body became too long to be retried or mirrored.", counter, func(s *clusterStats) *uint64 { return &s.retryAbandoned }},
	{"upstream_rq_1xx", classHelp, counter, func(s *clusterStats) *uint64 { return &s.rq1xx }},
	{"upstream_rq_2xx", classHelp, counter, func(s *clusterStats) *uint64 { return &s.rq2xx }},
	{"upstream_rq_3xx", classHelp, counter, func(s *clusterStats) *uint64 { return &s.rq3xx }},
	{"upstream_rq_4xx", classHelp, counter, func(s *clusterStats) *uint64 { return &s.rq4xx }},
	{"upstream_rq_5xx", classHelp, counter, func(s *clusterStats) *uint64 { return &s.rq5xx }},
	{"lb_subsets_selected", "Requests whose subset had endpoints.", counter, func(s *clusterStats) *uint64 { return &s.subsetsSelected }},
	{"lb_subsets_fallback", "Requests that a fallback gave an endpoint as there was no subset for them.", counter, func(s *clusterStats) *uint64 { return &s.subsetsFallback }},
	{"lb_subsets_fallback_panic", "Requests that got any endpoint as even the fallback had none.", counter, func(s *clusterStats) *uint64 { return &s.subsetsFallbackPanic }},
	{"lb_zone_routing_all_directly", "Requests that stayed in this zone, as all do.", counter, func(s *clusterStats) *uint64 { return &s.zoneDirect }},
	{"lb_zone_routing_sampled", "Requests that stayed in this zone, which has too few endpoints for all.", counter, func(s *clusterStats) *uint64 { return &s.zoneSampled }},
	{"lb_zone_routing_cross_zone", "Requests that left this zone, which has too few endpoints for all.", counter, func(s *clusterStats) *uint64 { return &s.zoneCross }},
	{"lb_zone_no_capacity_left", "Requests that left this zone for any other, as none had capacity left by the numbers.", counter, func(s *clusterStats) *uint64 { return &s.zoneNoCapacity }},
	{ownPrefix + "short_circuited_total", "Requests refused by the open circuit.", counter, func(s *clusterStats) *uint64 { return &s.shortCircuited }},
	{ownPrefix + "hedges_total", "Attempts that went on beyond their per-try timeout beside another one.", counter, func(s *clusterStats) *uint64 { return &s.hedges }},
	{ownPrefix + "mirror_dropped_total", "Mirrored requests dropped because their upstream was slower.", counter, func(s *clusterStats) *uint64 { return &s.mirrorDropped }},
}

// ownPrefix marks names that are not Envoy's: they are shown in the scope
// "outrigger.cluster.<name>".
const ownPrefix = "outrigger."
