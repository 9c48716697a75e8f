// SPDX-License-Identifier: Apache-2.0

package fault

import "github.com/outrigger-mesh/outrigger/pkg/filter"

// counters of one stat_prefix on one worker.
type counters struct{ delays, aborts, slow, overflow uint64 }

func counts(all *filter.Counters[counters], worker int, dst []filter.Count) []filter.Count {
	for _, s := range all.All() {
		c := s.On(worker)
		as := filter.Count{
			Scope: "http." + s.Name + ".fault", Family: "http.fault",
			Tags: []filter.Tag{{Name: "envoy_http_conn_manager_prefix", Value: s.Name}},
		}
		add := func(name, help string, n uint64) {
			as.Name, as.Help, as.Value = name, help, n
			dst = append(dst, as)
		}
		add("delays_injected", "Requests that were delayed on purpose.", c.delays)
		add("aborts_injected", "Requests that were answered on purpose.", c.aborts)
		add("response_rl_injected", "Responses that were slow on purpose.", c.slow)
		add("faults_overflow", "Faults that were left out because there were too many.", c.overflow)
		if worker == 0 { // all workers count it together
			as.Gauge = true
			add("active_faults", "Requests with a fault now.", uint64(max(0, s.Active.Load())))
		}
	}
	return dst
}
