// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"math"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// http2Options reads the settings of HTTP/2 connections.
func (j *job) http2Options(o *corev3.Http2ProtocolOptions, p *place) (h resource.HTTP2Options) {
	if o == nil {
		return h
	}
	h.AllowConnect = o.GetAllowConnect()
	if v := o.GetHpackTableSize(); v != nil {
		h.HeaderTableSize = max(v.GetValue(), 1)
	}
	if v := o.GetMaxConcurrentStreams(); v != nil {
		h.MaxConcurrentStreams = uint32(j.within(v.GetValue(), 1, math.MaxInt32, p.field("max_concurrent_streams")))
	}
	if v := o.GetInitialStreamWindowSize(); v != nil {
		h.StreamWindow = uint32(j.within(v.GetValue(), 65535, math.MaxInt32, p.field("initial_stream_window_size")))
	}
	if v := o.GetInitialConnectionWindowSize(); v != nil {
		h.ConnWindow = uint32(j.within(v.GetValue(), 65535, math.MaxInt32, p.field("initial_connection_window_size")))
	}
	if v := o.GetMaxOutboundFrames(); v != nil {
		h.MaxOutboundFrames = uint32(j.within(v.GetValue(), 1, math.MaxInt32, p.field("max_outbound_frames")))
	}
	if v := o.GetMaxOutboundControlFrames(); v != nil {
		h.MaxOutboundControlFrames = uint32(j.within(v.GetValue(), 1, math.MaxInt32, p.field("max_outbound_control_frames")))
	}
	if k, at := o.GetConnectionKeepalive(), p.field("connection_keepalive"); k != nil {
		h.KeepAliveInterval = j.duration(k.GetInterval(), 0, at.field("interval"))
		h.KeepAliveTimeout = j.duration(k.GetTimeout(), 10*time.Second, at.field("timeout"))
	}
	return h
}
