// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// With previous_priorities a retry leaves the priority that it has tried, and the
// requests after it begin with the first again.
func TestRetriesLeaveThePrioritiesThatTheyHaveTried(t *testing.T) {
	for _, on := range []bool{false, true} {
		var first, second atomic.Int64
		count := func(n *atomic.Int64, status int) string {
			return backend(t, func(w http.ResponseWriter, _ *http.Request) {
				n.Add(1)
				w.WriteHeader(status)
			})
		}
		bad, worse, good := count(&first, 500), count(&first, 500), count(&second, 200)
		r := newRig(t, func(s *resource.Snapshot) {
			retrying(s, bad, worse)
			p := s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry
			p.NumRetries = 1
			if on {
				p.PreviousPriorities = 1
			}
			ap := netip.MustParseAddrPort(good)
			a := s.Assignments["c"]
			a.Localities = append(a.Localities, resource.Locality{Priority: 1, Endpoints: []resource.Endpoint{
				{Address: resource.Address{Host: ap.Addr().String(), Port: ap.Port()}, Weight: 1},
			}})
		})
		const requests = 8
		for range requests {
			getWith(t, r.client(), r.addr, nil)
		}
		wantFirst, wantSecond := int64(2*requests), int64(0)
		if on {
			wantFirst, wantSecond = requests, requests
		}
		if first.Load() != wantFirst || second.Load() != wantSecond {
			t.Errorf("previous priorities %v: %d tries of the first priority, %d of the second", on, first.Load(), second.Load())
		}
	}
}
