// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// HealthFilter answers health checks of this proxy, or lets them through.
type HealthFilter struct {
	Headers     []HeaderMatch // all of them: a request that is a health check
	PassThrough bool          // the upstream answers
	CacheTime   time.Duration // with PassThrough: how long its answer serves; 0: never
	// MinHealthy are the clusters that have to be healthy for an answer of 200 without
	// PassThrough, sorted by name.
	MinHealthy []MinHealthy
}

// MinHealthy is the share of a cluster's endpoints that has to be healthy or degraded.
type MinHealthy struct {
	Cluster string
	Percent uint32
}
