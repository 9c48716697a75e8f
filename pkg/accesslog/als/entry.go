// SPDX-License-Identifier: Apache-2.0

package als

import (
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	logv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// httpEntry copies a record: nothing of it may be kept.
func httpEntry(r *record.Record, v accesslog.Values, reqNames, respNames []string) *logv3.HTTPAccessLogEntry {
	return &logv3.HTTPAccessLogEntry{
		CommonProperties: common(r),
		ProtocolVersion:  version(r.Protocol),
		Request: &logv3.HTTPRequestProperties{
			RequestMethod: method(captured(r, record.CaptureMethod)),
			Authority:     captured(r, record.CaptureAuthority),
			Path:          captured(r, record.CapturePath),
			UserAgent:     captured(r, record.CaptureUserAgent),
			RequestId:     captured(r, record.CaptureRequestID),

			RequestHeadersBytes: r.RequestHeaderBytes, RequestBodyBytes: r.BytesReceived,
			RequestHeaders: headers(reqNames, v.Request),
		},
		Response: &logv3.HTTPResponseProperties{
			ResponseCode:         wrapperspb.UInt32(uint32(r.Status)),
			ResponseHeadersBytes: r.ResponseHeaderBytes, ResponseBodyBytes: r.BytesSent,
			ResponseHeaders:     headers(respNames, v.Response),
			ResponseCodeDetails: r.Details,
		},
	}
}

func tcpEntry(r *record.Record) *logv3.TCPAccessLogEntry {
	return &logv3.TCPAccessLogEntry{
		CommonProperties:     common(r),
		ConnectionProperties: &logv3.ConnectionProperties{ReceivedBytes: r.BytesReceived, SentBytes: r.BytesSent},
	}
}

func common(r *record.Record) *logv3.AccessLogCommon {
	c := &logv3.AccessLogCommon{
		DownstreamRemoteAddress:       address(r.Remote),
		DownstreamDirectRemoteAddress: address(r.DirectRemote),
		DownstreamLocalAddress:        address(r.Local),
		StartTime:                     timestamppb.New(time.Unix(0, r.Start)),
		TimeToLastRxByte:              duration(r.RequestEnd),
		TimeToFirstUpstreamTxByte:     duration(r.UpstreamRequest),
		TimeToFirstUpstreamRxByte:     duration(r.UpstreamResponse),
		TimeToFirstDownstreamTxByte:   duration(r.ResponseStart),
		TimeToLastDownstreamTxByte:    duration(r.End),
		Duration:                      duration(r.End),
		UpstreamRemoteAddress:         address(r.UpstreamAddr),
		UpstreamLocalAddress:          address(r.UpstreamLocal),
		UpstreamCluster:               r.Cluster,
		RouteName:                     r.Route,
		ResponseFlags:                 flags(r.Flags),

		UpstreamTransportFailureReason: r.TransportReason,
		UpstreamRequestAttemptCount:    uint32(r.Attempts),
		ConnectionTerminationDetails:   r.CloseDetails,
		DownstreamWireBytesSent:        r.WireSent,
		DownstreamWireBytesReceived:    r.WireReceived,
		UpstreamWireBytesSent:          r.UpstreamWireSent,
		UpstreamWireBytesReceived:      r.UpstreamWireReceived,
	}
	if r.UpstreamPath != "" {
		c.UpstreamRemoteAddress = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: r.UpstreamPath}}}
	}
	switch r.Kind {
	case record.HTTPExchange:
		c.AccessLogType = logv3.AccessLogType_DownstreamEnd
	case record.TCPConnection:
		c.AccessLogType = logv3.AccessLogType_TcpConnectionEnd
	case record.Periodic:
		c.AccessLogType = logv3.AccessLogType_DownstreamPeriodic
	}
	return c
}

func duration(n int64) *durationpb.Duration {
	if n == record.Never {
		return nil
	}
	return durationpb.New(time.Duration(n))
}

func address(a netip.AddrPort) *corev3.Address {
	if !a.IsValid() {
		return nil
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

func flags(f record.Flags) *logv3.ResponseFlags {
	if f == 0 {
		return nil
	}
	has := func(b record.Flags) bool { return f&b != 0 }
	out := &logv3.ResponseFlags{
		FailedLocalHealthcheck: has(record.LH), NoHealthyUpstream: has(record.UH), UpstreamRequestTimeout: has(record.UT),
		LocalReset: has(record.LR), UpstreamRemoteReset: has(record.UR), UpstreamConnectionFailure: has(record.UF),
		UpstreamConnectionTermination: has(record.UC), UpstreamOverflow: has(record.UO), NoRouteFound: has(record.NR),
		DelayInjected: has(record.DI), FaultInjected: has(record.FI), RateLimited: has(record.RL),
		RateLimitServiceError: has(record.RLSE), DownstreamConnectionTermination: has(record.DC),
		UpstreamRetryLimitExceeded: has(record.URX), StreamIdleTimeout: has(record.SI),
		InvalidEnvoyRequestHeaders: has(record.IH), DownstreamProtocolError: has(record.DPE),
		UpstreamMaxStreamDurationReached: has(record.UMSDR), DurationTimeout: has(record.DT),
		UpstreamProtocolError: has(record.UPE), NoClusterFound: has(record.NC), OverloadManager: has(record.OM),
		DnsResolutionFailure: has(record.DF),
	}
	if has(record.UAEX) {
		out.UnauthorizedDetails = &logv3.ResponseFlags_Unauthorized{Reason: logv3.ResponseFlags_Unauthorized_EXTERNAL_SERVICE}
	}
	return out
}

func version(p codec.Protocol) logv3.HTTPAccessLogEntry_HTTPVersion {
	switch p {
	case codec.HTTP10:
		return logv3.HTTPAccessLogEntry_HTTP10
	case codec.HTTP11:
		return logv3.HTTPAccessLogEntry_HTTP11
	}
	return logv3.HTTPAccessLogEntry_HTTP2
}

func method(s string) corev3.RequestMethod {
	return corev3.RequestMethod(corev3.RequestMethod_value[s]) // unknown: METHOD_UNSPECIFIED
}

func captured(r *record.Record, i int) string {
	v, _ := r.Capture(i)
	return text(v)
}

// text makes bytes of the traffic fit for a proto3 string.
func text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

func headers(names []string, values [][]byte) map[string]string {
	var m map[string]string
	for i, v := range values {
		if v == nil {
			continue
		}
		if m == nil {
			m = make(map[string]string, len(values))
		}
		m[names[i]] = text(v)
	}
	return m
}
