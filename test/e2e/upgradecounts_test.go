// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// counts watches a counter of a sidecar through its upgrades.
type counts struct {
	t      *testing.T
	s      *mesh.Sidecar
	before int
	stop   chan struct{}
	seen   chan []int
}

// watchCounts asks for the number of requests until want is called.
func watchCounts(t *testing.T, s *mesh.Sidecar) *counts {
	t.Helper()
	c := &counts{t: t, s: s, stop: make(chan struct{}), seen: make(chan []int, 1)}
	c.before = s.AwaitStat(requestsOf, func(int) bool { return true })
	go func() { // ends with want
		seen := []int{c.before}
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-c.stop:
				c.seen <- seen
				return
			case <-ticker.C:
			}
			body, err := mesh.Get("http://" + s.Admin + "/stats?filter=^" + requestsOf + "$")
			var n int
			if _, value, _ := strings.Cut(body, ": "); err == nil && value != "" {
				if n, err = strconv.Atoi(strings.TrimSpace(value)); err == nil {
					seen = append(seen, n)
				}
			}
		}
	}()
	return c
}

// requestsOf counts what a caller's application has sent.
const requestsOf = "http.outbound.downstream_rq_total"

// want ends the watch: every request since its begin is counted, and the number has never
// gone back.
func (c *counts) want(requests int) {
	c.s.AwaitStat(requestsOf, func(n int) bool { return n == c.before+requests })
	seen := c.end()
	if !slices.IsSorted(seen) {
		for i := range seen[1:] {
			if seen[i+1] < seen[i] {
				c.t.Errorf("%s went back from %d to %d", requestsOf, seen[i], seen[i+1])
			}
		}
	}
}

// end ends the watch and returns what was seen.
func (c *counts) end() []int {
	close(c.stop)
	return <-c.seen
}
