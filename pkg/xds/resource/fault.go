// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// Fault are the settings of envoy.filters.http.fault. The requests that have all of
// Cluster, Headers and Nodes are concerned.
type Fault struct {
	Delay   *FaultDelay   // nil: none
	Abort   *FaultAbort   // nil: none
	Slow    *FaultRate    // nil: none
	Cluster string        // that the request is for; "": any
	Headers []HeaderMatch // all must match
	Nodes   []string      // x-envoy-downstream-service-node; none: any
	// MaxActive is how many faults there may be at a time, by a key of the runtime;
	// negative: any number.
	MaxActive    int64
	MaxActiveKey string
}

// FaultDelay holds requests up.
type FaultDelay struct {
	Percent     Percent
	Fixed       time.Duration
	DurationKey string // of the runtime: milliseconds
	ByHeader    bool   // as the request asks for itself
}

// FaultAbort answers requests. One of HTTP, GRPC and ByHeader is set.
type FaultAbort struct {
	Percent          Percent
	HTTP, GRPC       int
	HTTPKey, GRPCKey string // of the runtime
	IsGRPC, ByHeader bool
	Body             []byte
}

// FaultRate makes responses slow.
type FaultRate struct {
	Percent  Percent
	Fixed    uint64 // KiB a second
	ByHeader bool   // as the request asks for itself
}

// MaxFaultRate is the most that a FaultRate may say, in KiB a second.
const MaxFaultRate = 1 << 30
