// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	maxRetries = 1000
	// defaultMaxReset is the longest that an endpoint may ask callers to wait.
	defaultMaxReset = 300 * time.Second
)

func (j *job) retry(m *routev3.RetryPolicy, p *place) *resource.RetryPolicy {
	if m == nil {
		return nil
	}
	r := &resource.RetryPolicy{
		NumRetries:        j.within(uint32Or(m.GetNumRetries(), 1), 0, maxRetries, p.field("num_retries")),
		PerTryTimeout:     j.duration(m.GetPerTryTimeout(), 0, p.field("per_try_timeout")),
		PerTryIdleTimeout: j.duration(m.GetPerTryIdleTimeout(), 0, p.field("per_try_idle_timeout")),
		BaseInterval:      25 * time.Millisecond,
		Headers:           j.headerMatches(m.GetRetriableHeaders(), p, "retriable_headers"),
		RequestHeaders:    j.headerMatches(m.GetRetriableRequestHeaders(), p, "retriable_request_headers"),
		HostAttempts:      1,
	}
	for _, word := range strings.Split(m.GetRetryOn(), ",") {
		word = strings.TrimSpace(word)
		bit := resource.RetryCondition([]byte(word))
		if bit == 0 && word != "" {
			j.fail(p.field("retry_on"), "unknown condition %q", clip(word, 60))
		}
		r.On |= bit
	}
	if b := m.GetRetryBackOff(); b != nil {
		r.BaseInterval = j.duration(b.GetBaseInterval(), r.BaseInterval, p.field("retry_back_off").field("base_interval"))
		if r.BaseInterval < time.Millisecond {
			r.BaseInterval = time.Millisecond // Envoy rounds up as well
		}
	}
	r.MaxInterval = j.duration(m.GetRetryBackOff().GetMaxInterval(), 10*r.BaseInterval, p.field("retry_back_off").field("max_interval"))
	j.only(r.MaxInterval < r.BaseInterval, p.field("retry_back_off").field("max_interval"), "must not be less than base_interval")
	for i, c := range m.GetRetriableStatusCodes() {
		r.StatusCodes = append(r.StatusCodes, j.within(c, 100, 599, p.item("retriable_status_codes", i)))
	}
	if n := m.GetHostSelectionRetryMaxAttempts(); n != 0 {
		j.only(n < 0 || n > 100, p.field("host_selection_retry_max_attempts"), "must be between 1 and 100")
		r.HostAttempts = int(max(1, min(n, 100)))
	}
	r.RateLimited = j.rateLimited(m.GetRateLimitedRetryBackOff(), p.field("rate_limited_retry_back_off"))
	j.retryHosts(m, r, p)
	j.retryPriority(m.GetRetryPriority(), r, p.field("retry_priority"))
	return r
}

// hedge is nil where a route leaves it to its virtual host.
func hedge(m *routev3.HedgePolicy) *resource.HedgePolicy {
	if m == nil {
		return nil
	}
	return &resource.HedgePolicy{OnPerTryTimeout: m.GetHedgeOnPerTryTimeout()}
}

func (j *job) rateLimited(m *routev3.RetryPolicy_RateLimitedRetryBackOff, p *place) *resource.RateLimitedBackOff {
	if m == nil {
		return nil
	}
	r := &resource.RateLimitedBackOff{MaxInterval: j.duration(m.GetMaxInterval(), defaultMaxReset, p.field("max_interval"))}
	for i, h := range m.GetResetHeaders() {
		at := p.item("reset_headers", i)
		r.Headers = append(r.Headers, resource.ResetHeader{
			Name: j.matchedName(h.GetName(), at.field("name")), UnixTimestamp: h.GetFormat() == routev3.RetryPolicy_UNIX_TIMESTAMP,
		})
	}
	return r
}
