// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"hash/fnv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// A seed is worth nothing that does not find again what it has found. So some days are
// lived twice, and must be the same in all that happens on the network and in the access
// log.

// repeated is how many seeds there are for one that is.
const repeated = 20

// dayEvent is something that happened.
type dayEvent struct {
	at   time.Duration
	what byte // as sim.World's; l: a record
	fd   int
	n    uint64
}

func (e dayEvent) String() string { return fmt.Sprintf("%v %c %d %d", e.at, e.what, e.fd, e.n) }

// trace has the day keep what happens.
func (d *day) trace() {
	d.traced = true
	d.world.OnEvent = func(what byte, fd, n int) {
		d.events = append(d.events, dayEvent{d.world.Now(), what, fd, uint64(n)})
	}
}

// traceRecord keeps a record, as far as it does not hold addresses of memory.
func (d *day) traceRecord(r *record.Record) {
	if !d.traced {
		return
	}
	h := fnv.New64a()
	fmt.Fprintln(h, r.Kind, r.Status, r.Flags, r.Details, r.CloseDetails, r.Cluster, r.Attempts, r.BytesReceived, r.BytesSent, r.Start, r.RequestEnd, r.End, r.UpstreamAddr, r.ConnectionID)
	d.events = append(d.events, dayEvent{d.world.Now(), 'l', int(r.Status), h.Sum64()})
}

// again lives the day of a seed once more beside the first one.
func again(t testing.TB, seed uint64, s daySettings) {
	t.Helper()
	var days [2]*day
	for i := range days {
		days[i] = newDay(t, seed)
		days[i].trace()
		days[i].run(s)
	}
	a, b := days[0].events, days[1].events
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("the day differs from itself in event %d:%s", i, sideBySide(a, b, i))
		}
	}
	if len(a) != len(b) || len(a) == 0 {
		t.Fatalf("the day has %d events, and %d when it is lived again", len(a), len(b))
	}
}

// sideBySide shows what led to the difference at i.
func sideBySide(a, b []dayEvent, i int) string {
	var s strings.Builder
	for j := max(0, i-10); j < min(i+3, len(a), len(b)); j++ {
		fmt.Fprintf(&s, "\n%-40v | %v", a[j], b[j])
	}
	return s.String()
}
