// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// RateLimitedBackOff waits before a retry as long as the endpoint asks for.
type RateLimitedBackOff struct {
	Headers     []ResetHeader // the first that names a time counts
	MaxInterval time.Duration // longer ones are not read; default 300 s
}

// ResetHeader is a header of the response that says when the endpoint may be asked
// again.
type ResetHeader struct {
	Name          string // lower case
	UnixTimestamp bool   // seconds since 1970, else from now on
}

// HostPredicates are the endpoints that a retry avoids, besides those that were tried,
// as long as there are others.
type HostPredicates struct {
	OmitCanaries bool
	// OmitMetadata are lists of entries of "envoy.lb": an endpoint that has all of one
	// list is avoided.
	OmitMetadata []map[string]string
}

// HedgePolicy says when another attempt is made while one goes on.
type HedgePolicy struct {
	OnPerTryTimeout bool
}
