// SPDX-License-Identifier: Apache-2.0

package proxy

import "github.com/outrigger-mesh/outrigger/pkg/metrics"

// subsets shows the subsets of a cluster that has some or had. Unlike Envoy's, they
// are counted once and not for each worker.
func (s *sampler) subsets(spec *clusterSpec, own *metrics.Scope) {
	st, ok := spec.lb.View().SubsetStats()
	if !ok {
		return
	}
	s.add("lb_subsets_active", "Subsets that have endpoints.", gauge, uint64(st.Active))
	s.add("lb_subsets_created", "Subsets made.", counter, st.Created)
	s.add("lb_subsets_removed", "Subsets that have lost their last endpoint.", counter, st.Removed)
	s.add("lb_subsets_single_host_per_subset_duplicate", "Endpoints left out as their subset is for one only.", gauge, uint64(st.Duplicate))
	scope := s.scope
	s.in(own)
	s.add("lb_subsets_omitted", "Places of endpoints in subsets that are not there as they would be too many: requests for them take the fallback.", gauge, uint64(st.Omitted))
	s.in(scope)
}
