// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// HTTP2Options are the settings of HTTP/2 connections. What is zero is the codec's
// default.
type HTTP2Options struct {
	MaxConcurrentStreams uint32
	StreamWindow         uint32 // bytes that the peer may send ahead on a stream
	ConnWindow           uint32 // and on the connection
	HeaderTableSize      uint32
	// AllowConnect takes extended CONNECT from clients (RFC 8441). An endpoint is
	// asked for it where it says that it takes it, whatever stands here.
	AllowConnect bool
	// Frames that may wait for a peer that does not read: of all kinds, and
	// answers to its own.
	MaxOutboundFrames, MaxOutboundControlFrames uint32

	// KeepAliveInterval > 0: a connection with nothing received for so long is
	// asked for a sign of life, and closed without one in KeepAliveTimeout.
	KeepAliveInterval, KeepAliveTimeout time.Duration
}
