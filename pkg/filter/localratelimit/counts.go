// SPDX-License-Identifier: Apache-2.0

package localratelimit

import "github.com/outrigger-mesh/outrigger/pkg/filter"

// counters of one stat_prefix on one worker.
type counters struct {
	enabled, ok, limited, enforced, shadow uint64
}

func counts(all *filter.Counters[counters], worker int, dst []filter.Count) []filter.Count {
	for _, s := range all.All() {
		c := s.On(worker)
		as := filter.Count{
			Scope: s.Name + ".http_local_rate_limit", Family: "http_local_rate_limit",
			Tags: []filter.Tag{{Name: "envoy_local_http_ratelimit_prefix", Value: s.Name}},
		}
		add := func(name, help string, n uint64) {
			as.Name, as.Help, as.Value = name, help, n
			dst = append(dst, as)
		}
		add("enabled", "Requests that were charged.", c.enabled)
		add("ok", "Requests for which there was a token.", c.ok)
		add("rate_limited", "Requests for which there was no token.", c.limited)
		add("enforced", "Requests without a token that were refused.", c.enforced)
		add("shadow_mode", "Descriptors in shadow mode that found no token.", c.shadow)
	}
	return dst
}
