// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// The head of a copy grows by its marked authority, and where it has to move for
// that, the request's own must stay sampled for whoever is sent it next.
func TestAMirrorThatIsNotTracedLeavesTheRequestSampledWhateverItsSize(t *testing.T) {
	const sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	got := map[string]chan string{"c": make(chan string, 1), "first": make(chan string, 1), "second": make(chan string, 1)}
	r := newRig(t, func(s *resource.Snapshot) {
		for name, to := range got {
			withCluster(s, name, backend(t, func(_ http.ResponseWriter, q *http.Request) { to <- q.Header.Get("traceparent") }))
		}
		all := resource.Percent{PerMillion: 1e6}
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Mirrors = []resource.Mirror{
			{Cluster: "first", Fraction: all}, {Cluster: "second", Fraction: all, TraceSampled: true}}
	})
	client := r.client()
	for size := 0; size < 4<<10; size += 64 {
		q, err := http.NewRequest(http.MethodGet, "http://"+r.addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Host = strings.Repeat("long.", 40) + "example"
		q.Header.Set("Traceparent", sent)
		q.Header.Set("X-Padding", strings.Repeat("x", size))
		resp, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		main, first, second := <-got["c"], <-got["first"], <-got["second"]
		if main != sent || !strings.HasSuffix(first, "-00") || second != sent {
			t.Errorf("%d bytes of padding: %q, in the mirrors %q and %q", size, main, first, second)
		}
	}
}
