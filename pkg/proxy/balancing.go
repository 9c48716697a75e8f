// SPDX-License-Identifier: Apache-2.0

package proxy

// otherRequests are those in flight to the cluster, of both priorities and all
// workers, without the one that asks, which has been admitted.
func (s *clusterSpec) otherRequests() int64 {
	return int64(s.limits[0].Requests()) + int64(s.limits[1].Requests()) - 1
}
